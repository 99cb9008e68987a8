"""The JSON envelope of kombu's virtual transports (Redis, filesystem …).

https://docs.celeryq.dev/projects/kombu/ — kombu/transport/virtual/base.py, ``prepare_message``
and ``basic_publish``.
"""

from __future__ import annotations

import functools
import itertools
import re
import uuid
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Callable
from operator import itemgetter
from typing import Any

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
    Unsuitable,
)
from watchman.model import Message

_BODY = f"{PATH}Body"
_TAG = f"{PATH}Tag"
_FIELDS = {
    f'"{TASK_ID}"': 0,
    f'"{SOURCE}"': 1,
    f'"{ARGSREPR}"': 2,
    f'"{SIZE}"': 3,
    f'"{MTIME}"': 4,
    f'"{ARRIVED}"': 5,
    _BODY: 6,
    _TAG: 7,
}
"""What is filled in, by what stands for it: its place among the values."""
_ONCE = (SOURCE, SIZE, MTIME, ARRIVED, _BODY, _TAG)
_PATTERN = re.compile("|".join(map(re.escape, _FIELDS)))


@functools.lru_cache(maxsize=64)
def _moment(ns: int) -> str:
    """Return seconds as JSON has them; the files of a batch have arrived together."""
    return repr(ns / NS)


class VirtualStyle(Style):
    """Letters whose payload is the whole envelope, a str of JSON in ASCII."""

    def __init__(self, body_encoding: str | None = "base64", default_priority: int = 0) -> None:
        from kombu.utils.json import dumps

        self._dumps: Callable[[Any], str] = dumps
        self._body_encoding = body_encoding
        self._default_priority = default_priority
        # Unique for each publish, also where one task is sent twice: a worker's list of
        # unacknowledged messages is keyed by it.
        head = str(uuid.uuid4())[:24]
        self._tags = map((head + "%012x").__mod__, itertools.count())

    def plain(self, recorded: Recorded) -> Letter:
        """Return the letter for one recorded message."""
        body, encoding = self._encode_body(recorded.body)
        return Letter(recorded.target, self._envelope(recorded, body, encoding, next(self._tags)))

    def comparable(self, letter: Letter) -> Any:
        """Return the letter without its delivery tag."""
        return letter.target[:4], re.sub(r'"delivery_tag": "[^"]*"', "", letter.payload)

    def template(self, recorded: Recorded, arguments: Arguments) -> Encoder:
        """Return a function that fills the envelope in by string formatting."""
        if self._body_encoding != "base64":
            raise Unsuitable("another body encoding")
        before, mark, after = recorded.body.partition(f'"{PATH}"')
        if not mark or PATH in after or TASK_ID in recorded.body:
            raise Unsuitable("the body")
        text = self._envelope(recorded, _BODY, "base64", _TAG)
        if TASK_ID in _PATTERN.sub("", text) or any(text.count(name) != 1 for name in _ONCE):
            raise Unsuitable("the headers")
        return self._filler(recorded, arguments, text, before, after)

    def _filler(
        self, recorded: Recorded, arguments: Arguments, text: str, before: str, after: str
    ) -> Encoder:
        target, tags, join = recorded.target, self._tags, "".join
        shown_before = encode_json(arguments.before)[:-1]
        shown_after = encode_json(arguments.after)[1:]
        simple = arguments.simple
        fixed = _PATTERN.split(text)
        # The values come first, then the fixed pieces; in the text they take turns.
        places = [_FIELDS[found] for found in _PATTERN.findall(text)]
        order = [len(_FIELDS)]
        for number, place in enumerate(places, len(_FIELDS) + 1):
            order += (place, number)
        in_order = itemgetter(*order)

        def fill(message: Message) -> Letter:
            task_id, path, source, size, mtime_ns, arrived_ns, _ = message
            quoted = encode_json(path)
            if "'" in path or len(path) > simple:
                shown = encode_json(arguments(path))
            else:
                shown = shown_before + quoted[1:-1] + shown_after
            values = (
                encode_json(task_id),
                quoted if source is path else encode_json(source),
                shown,
                str(size),
                repr(mtime_ns / NS),
                _moment(arrived_ns),
                b2a_base64((before + quoted + after).encode(), newline=False).decode("ascii"),
                next(tags),
                *fixed,
            )
            return Letter(target, join(in_order(values)))

        return fill

    def _encode_body(self, body: Any) -> tuple[Any, str | None]:
        if self._body_encoding == "base64":
            raw = body.encode() if isinstance(body, str) else body
            return b64encode(raw).decode(), "base64"
        return body, self._body_encoding

    def _envelope(self, recorded: Recorded, body: Any, encoding: str | None, tag: str) -> str:
        """Return the JSON, with its keys in the order in which kombu writes them."""
        target = recorded.target
        properties = dict(recorded.properties)
        properties.setdefault("delivery_info", {})
        properties.setdefault("priority", target.priority or self._default_priority)
        properties.update(body_encoding=encoding, delivery_tag=tag)
        properties["delivery_info"] = {
            **properties["delivery_info"],
            "exchange": target.exchange,
            "routing_key": target.routing_key,
        }
        # kombu's keys come in this order.
        return self._dumps(
            {
                "body": body,
                "content-encoding": recorded.content_encoding,
                "content-type": recorded.content_type,
                "headers": recorded.headers,
                "properties": properties,
            }
        )
