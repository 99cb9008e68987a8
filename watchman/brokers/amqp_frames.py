"""Messages as AMQP 0-9-1 frames, filled in from a template for each route.

https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.3 to 4.2.6: a method frame, a content
header frame and as many body frames as the negotiated frame size asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from struct import pack
from typing import Any, NamedTuple

from watchman.brokers.capture import (
    ARRIVED,
    MTIME,
    NS,
    SIZE,
    SOURCE,
    TASK_ID,
    CapturedMessage,
    Target,
    header_stand_ins,
)
from watchman.brokers.template import (
    ARGSREPR,
    ArgsRepr,
    EncodedMessage,
    Encoder,
    Template,
    Unsuitable,
    WireFormat,
    encode_json,
    split_body,
)
from watchman.model import Message, record_of

_BASIC = 60
_PUBLISH = 40
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
FRAME_OVERHEAD = 8
_INT_MAX = 2147483647
_LONGEST_NAME = 255


class FrameContent(NamedTuple):
    """A message's encoded properties and its body."""

    task_id: str
    properties: bytes
    body: bytes


def _long(text: str) -> bytes:
    """Encode a table's long string as py-amqp does."""
    data = text.encode("utf-8", "surrogatepass")
    return b"S" + pack(">I", len(data)) + data


def _number(value: int) -> bytes:
    """Encode a table's integer as py-amqp does."""
    return pack(">cq", b"L", value) if abs(value) > _INT_MAX else pack(">ci", b"I", value)


def _double(value: float) -> bytes:
    """Encode a table's float as py-amqp does."""
    return pack(">cd", b"d", value)


def _value(value: str | int | float) -> bytes:
    """Encode the value of a further header."""
    if isinstance(value, str):
        return _long(value)
    return _double(value) if isinstance(value, float) else _number(value)


_STAND_INS = (
    *map(_long, (TASK_ID, SOURCE, ARGSREPR, SIZE, MTIME, ARRIVED)),
    bytes([len(TASK_ID)]) + TASK_ID.encode(),
)
"""In the order of the values that are filled in. The task id is a long string in the table of
headers, and a short one behind it."""


class FrameFormat(WireFormat):
    """Messages whose payload is a :class:`FrameContent`."""

    def __init__(self) -> None:
        from amqp.basic_message import Message as Basic
        from amqp.serialization import dumps

        self._basic: Callable[..., Any] = Basic
        self._dumps: Callable[..., bytes] = dumps

    def encode(self, captured: CapturedMessage) -> EncodedMessage:
        """Encode one captured message."""
        task_id = str(captured.properties.get("correlation_id", ""))
        body = captured.body.encode() if isinstance(captured.body, str) else bytes(captured.body)
        content = FrameContent(task_id, self._properties(captured), body)
        return EncodedMessage(captured.target, content)

    def comparable(self, encoded: EncodedMessage) -> Any:
        """Return all but the entities, which compare by identity."""
        return encoded.target[:3], encoded.payload

    def template(self, captured: CapturedMessage, argsrepr: ArgsRepr, further: int = 0) -> Encoder:
        """Return a function that fills in the properties and the body."""
        before, after = split_body(captured)
        properties = self._properties(captured)
        encoded_headers: bytes = self._dumps("F", [captured.headers])
        head, mark, behind = properties.partition(encoded_headers)
        if not mark or properties.count(SOURCE.encode()) != 1:
            raise Unsuitable("the headers")
        # The table begins with its length, which is not known before it is filled in.
        stand_ins = (*_STAND_INS, *map(_long, islice(header_stand_ins(), further)))
        table, tail = Template(encoded_headers[4:], stand_ins), Template(behind, stand_ins)
        table_in_order, table_fixed = table.in_order, table.fixed
        tail_in_order, tail_fixed = tail.in_order, tail.fixed
        target, join = captured.target, b"".join

        def fill(message: Message) -> EncodedMessage:
            task_id, path, source, size, mtime_ns, arrived_ns, _, further_headers, _ = message
            raw_id = task_id.encode()
            values = (
                b"S" + pack(">I", len(raw_id)) + raw_id,
                _long(source),
                _long(argsrepr(path)),
                _number(size),
                _double(mtime_ns / NS),
                _double(arrived_ns / NS),
                bytes((len(raw_id),)) + raw_id,
                *map(_value, further_headers.values()),
            )
            headers = join(table_in_order((*values, *table_fixed)))
            rest = join(tail_in_order((*values, *tail_fixed)))
            content = FrameContent(
                task_id,
                join((head, pack(">I", len(headers)), headers, rest)),
                (before + encode_json(path) + after).encode(),
            )
            encoded: EncodedMessage = record_of(EncodedMessage, (target, content))
            return encoded

        return fill

    def _properties(self, captured: CapturedMessage) -> bytes:
        message = self._basic(
            captured.body,
            priority=captured.target.priority,
            content_type=captured.content_type,
            content_encoding=captured.content_encoding,
            application_headers=captured.headers,
            **captured.properties,
        )
        encoded: bytes = message._serialize_properties()
        return encoded


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
    mandatory = b"\1"
    names = bytes((len(exchange),)) + exchange + bytes((len(key),)) + key
    method = pack(">HHH", _BASIC, _PUBLISH, 0) + names + mandatory
    return pack(">BHI", _METHOD, channel, len(method)) + method + _END


def frames(channel: int, method: bytes, content: FrameContent, frame_max: int) -> bytes:
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
