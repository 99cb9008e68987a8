"""Messages as AMQP 0-9-1 frames, filled in from a template for each route.

https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.3 to 4.2.6: a method frame, a content
header frame and as many body frames as the negotiated frame size asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from struct import pack
from typing import Any, NamedTuple

from watchman.brokers.envelope import (
    Arguments,
    Encoder,
    Style,
    encode_json,
)
from watchman.brokers.recorder import (
    ARGSREPR,
    ARRIVED,
    MTIME,
    NS,
    PATH,
    SIZE,
    SOURCE,
    TASK_ID,
    Letter,
    Recorded,
    Target,
    Unsuitable,
)
from watchman.model import Message

_BASIC = 60
_PUBLISH = 40
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
FRAME_OVERHEAD = 8
_INT_MAX = 2147483647
_LONGEST_NAME = 255


class Content(NamedTuple):
    """A message's encoded properties and its body."""

    task_id: str
    properties: bytes
    body: bytes


class FrameStyle(Style):
    """Letters whose payload is a :class:`Content`."""

    def __init__(self) -> None:
        from amqp.basic_message import Message as Basic
        from amqp.serialization import dumps

        self._basic: Callable[..., Any] = Basic
        self._dumps: Callable[..., bytes] = dumps

    def plain(self, recorded: Recorded) -> Letter:
        """Return the letter for one recorded message."""
        content = Content(
            str(recorded.properties.get("correlation_id", "")),
            self._properties(recorded),
            _body(recorded.body),
        )
        return Letter(recorded.target, content)

    def comparable(self, letter: Letter) -> Any:
        """Return the letter without the entities, which compare by identity."""
        return letter.target[:4], letter.payload

    def template(self, recorded: Recorded, arguments: Arguments) -> Encoder:
        """Return a function that fills in the properties and the body."""
        before, mark, after = recorded.body.partition(f'"{PATH}"')
        if not mark or PATH in after or TASK_ID in recorded.body:
            raise Unsuitable("the body")
        properties = self._properties(recorded)
        table: bytes = self._dumps("F", [recorded.headers])
        head, mark_table, tail = properties.partition(table)
        if not mark_table:
            raise Unsuitable("the headers")
        # The table begins with its length, which is not known before it is filled in.
        forms = Form(table[4:]), Form(tail)
        if properties.count(SOURCE.encode()) != 1:
            raise Unsuitable("the headers")
        return _filler(recorded.target, arguments, head, forms, (before, after))

    def _properties(self, recorded: Recorded) -> bytes:
        message = self._basic(
            recorded.body,
            priority=recorded.target.priority,
            content_type=recorded.content_type,
            content_encoding=recorded.content_encoding,
            application_headers=recorded.headers,
            **recorded.properties,
        )
        encoded: bytes = message._serialize_properties()
        return encoded


def _body(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def _long(text: str) -> bytes:
    """Encode a table's long string as py-amqp does."""
    data = text.encode("utf-8", "surrogatepass")
    return b"S" + pack(">I", len(data)) + data


def _number(value: int) -> bytes:
    """Encode a table's integer as py-amqp does."""
    return pack(">cq", b"L", value) if abs(value) > _INT_MAX else pack(">ci", b"I", value)


_FIELDS = {
    _long(TASK_ID): 0,
    _long(SOURCE): 1,
    _long(ARGSREPR): 2,
    _long(SIZE): 3,
    _long(MTIME): 4,
    _long(ARRIVED): 5,
    bytes([len(TASK_ID)]) + TASK_ID.encode(): 6,
}
"""What is filled in, by what stands for it: its place among the values."""
_PATTERN = re.compile(b"|".join(map(re.escape, _FIELDS)), re.DOTALL)
_STAND_INS = (TASK_ID, SOURCE, ARGSREPR, SIZE, MTIME, ARRIVED)


class Form:
    """Encoded bytes with stand-ins in them. Raises Unsuitable where one is left over."""

    def __init__(self, encoded: bytes) -> None:
        self._fixed = _PATTERN.split(encoded)
        if any(name.encode() in piece for name in _STAND_INS for piece in self._fixed):
            raise Unsuitable("the properties")
        # The values come first, then the fixed pieces; in what is encoded they take turns.
        order = [len(_FIELDS)]
        for number, found in enumerate(_PATTERN.findall(encoded), len(_FIELDS) + 1):
            order += (_FIELDS[found], number)
        self._in_order = itemgetter(*order) if len(order) > 1 else None

    def fill(self, values: tuple[bytes, ...]) -> bytes:
        """Put the values, in the order of the stand-ins' places, where these stand."""
        if self._in_order is None:
            return self._fixed[0]
        return b"".join(self._in_order((*values, *self._fixed)))


def _filler(
    target: Target,
    arguments: Arguments,
    head: bytes,
    forms: tuple[Form, Form],
    body: tuple[str, str],
) -> Encoder:
    table_form, tail_form = forms
    before, after = body

    def fill(message: Message) -> Letter:
        task_id, path, source, size, mtime_ns, arrived_ns, _ = message
        raw_id = task_id.encode()
        values = (
            b"S" + pack(">I", len(raw_id)) + raw_id,
            _long(source),
            _long(arguments(path)),
            _number(size),
            pack(">cd", b"d", mtime_ns / NS),
            pack(">cd", b"d", arrived_ns / NS),
            bytes((len(raw_id),)) + raw_id,
        )
        table = table_form.fill(values)
        properties = b"".join((head, pack(">I", len(table)), table, tail_form.fill(values)))
        return Letter(
            target,
            Content(task_id, properties, (before + encode_json(path) + after).encode()),
        )

    return fill


def short_name(name: str) -> bytes:
    """Return a name as AMQP has it. Raises ValueError where it cannot be one."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the name is not UTF-8, and AMQP takes no other") from error
    if len(encoded) > _LONGEST_NAME:
        raise ValueError(
            f"the name has {len(encoded)} bytes, and AMQP takes {_LONGEST_NAME} at the most"
        )
    return encoded


def publish_method(channel: int, target: Target) -> bytes:
    """Return the ``basic.publish`` frame for a target, with the mandatory bit set.

    Raises ValueError for names that AMQP cannot express.
    """
    exchange, key = short_name(target.exchange), short_name(target.routing_key)
    mandatory = 1
    method = b"".join(
        (
            pack(">HHH", _BASIC, _PUBLISH, 0),
            bytes((len(exchange),)),
            exchange,
            bytes((len(key),)),
            key,
            bytes((mandatory,)),
        )
    )
    return pack(">BHI", _METHOD, channel, len(method)) + method + _END


def frames(channel: int, method: bytes, content: Content, frame_max: int) -> bytes:
    """Return a message's frames. Raises ValueError if its properties fit into no frame."""
    body = content.body
    room = frame_max - FRAME_OVERHEAD if frame_max else len(body) or 1
    length = len(content.properties) + 12
    if frame_max and length > room:
        raise ValueError(f"properties of {length} bytes, and the broker takes {room} in a frame")
    parts = [
        method,
        pack(">BHIHHQ", _HEADER, channel, length, _BASIC, 0, len(body)),
        content.properties,
        _END,
    ]
    for start in range(0, len(body), room):
        piece = body[start : start + room]
        parts += (pack(">BHI", _BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)
