"""The JSON that kombu's virtual transports (Redis, filesystem …) put around a message.

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
from itertools import islice
from typing import Any

from watchman.brokers.capture import (
    ARRIVED,
    MTIME,
    NS,
    SIZE,
    SOURCE,
    TASK_ID,
    CapturedMessage,
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

_BODY = f"{ARGSREPR}Body"
_TAG = f"{ARGSREPR}Tag"
_STAND_INS = (
    *(f'"{name}"' for name in (TASK_ID, SOURCE, ARGSREPR, SIZE, MTIME, ARRIVED)),
    _BODY,
    _TAG,
)
"""In the order of the values that are filled in."""


@functools.lru_cache(maxsize=64)
def _moment(ns: int) -> str:
    """Return seconds as JSON has them; the files of a batch have arrived together."""
    return repr(ns / NS)


def _value(value: str | int | float) -> str:
    """Return a header's value as JSON has it."""
    return encode_json(value) if isinstance(value, str) else repr(value)


class JsonFormat(WireFormat):
    """Messages whose payload is a str of JSON, in ASCII."""

    def __init__(self, body_encoding: str | None = "base64") -> None:
        from kombu.utils.json import dumps

        self._dumps: Callable[[Any], str] = dumps
        self._body_encoding = body_encoding
        # Unique for each publish, also where one task is sent twice: a worker's list of
        # unacknowledged messages is keyed by it.
        head = str(uuid.uuid4())[:24]
        self._tags = map((head + "%012x").__mod__, itertools.count())

    def encode(self, captured: CapturedMessage) -> EncodedMessage:
        """Encode one captured message."""
        body, encoding = captured.body, self._body_encoding
        if encoding == "base64":
            body = b64encode(body.encode() if isinstance(body, str) else body).decode()
        return EncodedMessage(
            captured.target, self._json(captured, body, encoding, next(self._tags))
        )

    def comparable(self, encoded: EncodedMessage) -> Any:
        """Return all but the delivery tag, and the entities, which compare by identity."""
        return encoded.target[:3], re.sub(r'"delivery_tag": "[^"]*"', "", encoded.payload)

    def template(self, captured: CapturedMessage, argsrepr: ArgsRepr, further: int = 0) -> Encoder:
        """Return a function that fills in the JSON."""
        if self._body_encoding != "base64":
            raise Unsuitable("another body encoding")
        before, after = split_body(captured)
        text = self._json(captured, _BODY, "base64", _TAG)
        if any(text.count(name) != 1 for name in (SOURCE, SIZE, MTIME, ARRIVED, _BODY, _TAG)):
            raise Unsuitable("the headers")
        names = tuple(map(encode_json, islice(header_stand_ins(), further)))
        template = Template(text, (*_STAND_INS, *names))
        in_order, fixed = template.in_order, template.fixed
        target, tags, join = captured.target, self._tags, "".join
        repr_before = encode_json(argsrepr.before)[:-1]
        repr_after = encode_json(argsrepr.after)[1:]
        simple = argsrepr.simple

        def fill(message: Message) -> EncodedMessage:
            task_id, path, source, size, mtime_ns, arrived_ns, _, headers, _ = message
            quoted = encode_json(path)
            if "'" in path or len(path) > simple:
                shown = encode_json(argsrepr(path))
            else:
                shown = repr_before + quoted[1:-1] + repr_after
            values = (
                encode_json(task_id),
                quoted if source is path else encode_json(source),
                shown,
                str(size),
                repr(mtime_ns / NS),
                _moment(arrived_ns),
                b2a_base64((before + quoted + after).encode(), newline=False).decode("ascii"),
                next(tags),
                *map(_value, headers.values()),
                *fixed,
            )
            encoded: EncodedMessage = record_of(EncodedMessage, (target, join(in_order(values))))
            return encoded

        return fill

    def _json(self, captured: CapturedMessage, body: Any, encoding: str | None, tag: str) -> str:
        target = captured.target
        properties = dict(captured.properties)
        properties.setdefault("delivery_info", {})
        properties.setdefault("priority", target.priority or 0)
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
                "content-encoding": captured.content_encoding,
                "content-type": captured.content_type,
                "headers": captured.headers,
                "properties": properties,
            }
        )
