"""Templates: a message that Celery has made once for a route, with room for what differs.

A wire format encodes what was captured with stand-ins in it. :class:`Template` splits that where
the stand-ins are; each message's values are put between the pieces.
"""

from __future__ import annotations

import json.encoder
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, AnyStr, Generic, NamedTuple, cast

from watchman.brokers.capture import (
    ARRIVED,
    HEADER,
    MTIME,
    PATH,
    SIZE,
    SOURCE,
    TASK_ID,
    CapturedMessage,
    Target,
)
from watchman.model import Message, Route

ARGSREPR = f"{PATH}Argsrepr"
"""The stand-in for the ``argsrepr`` header where the path is in it."""

encode_json: Callable[[str], str] = json.encoder.encode_basestring_ascii
"""A str as JSON, just as the JSON encoder that kombu uses writes it."""


class Unsuitable(Exception):  # noqa: N818 — no error: Celery makes each message of the route then
    """A route that no template can stand for."""


class EncodedMessage(NamedTuple):
    """A message ready for the wire. ``payload`` is what the wire format made of it."""

    target: Target
    payload: Any


Encoder = Callable[[Message], EncodedMessage]


class WireFormat:
    """How a transport writes a message."""

    def template(self, captured: CapturedMessage, argsrepr: ArgsRepr, further: int = 0) -> Encoder:
        """Return a function that fills in a template; raise Unsuitable where there is none.

        ``further`` is the number of the message's further headers.
        """
        raise NotImplementedError

    def encode(self, captured: CapturedMessage) -> EncodedMessage:
        """Encode one captured message."""
        raise NotImplementedError

    def comparable(self, encoded: EncodedMessage) -> Any:
        """Return what two encodings of the same message have in common."""
        raise NotImplementedError


class ArgsRepr:
    """The ``argsrepr`` header: Celery's shortened repr of the positional arguments."""

    def __init__(self, app: Any, route: Route, captured: str) -> None:
        self.before, mark, self.after = captured.partition(PATH)
        self.fixed = not mark
        """Whether the route says what it is, so that the path is not in it."""
        self._limit = app.amqp.argsrepr_maxsize
        self._levels = app.conf.task_repr_maxlevels
        self._args = route.args
        around = len(self.before) + len(self.after)
        if self.after.count(PATH) or (mark and around > self._limit // 2):
            raise Unsuitable("the arguments are too long")
        self.simple = self._limit - around - 1
        """Paths without a quote that are no longer than this stand in the repr as they are."""

    def __call__(self, path: str) -> str:
        """Return the repr for a path, as Celery would write it."""
        # saferepr() changes a string in two ways: it quotes ', and it shortens what is too long.
        if len(path) + path.count("'") <= self.simple:
            quoted = path.replace("'", "\\'")
            return f"{self.before}{quoted}{self.after}"
        from celery.utils.saferepr import saferepr

        text: str = saferepr((path, *self._args), self._limit, maxlevels=self._levels)
        return text


class Template(Generic[AnyStr]):
    """Encoded text or bytes, split where ``stand_ins`` (as they are encoded) are in it.

    A message's values, one for each of the stand-ins and in their order, are filled in with
    ``join(template.in_order((*values, *template.fixed)))``. That is written out where it is done:
    a method for it would cost each message a twentieth more.

    Raises Unsuitable where something of a stand-in is left over.
    """

    def __init__(self, encoded: AnyStr, stand_ins: Sequence[AnyStr]) -> None:
        names = [cast("AnyStr", _like(encoded, name)) for name in _STAND_INS]
        either = cast("AnyStr", _like(encoded, "|"))
        pattern = re.compile(either.join(map(re.escape, stand_ins)), re.DOTALL)
        self.fixed: tuple[AnyStr, ...] = tuple(pattern.split(encoded))
        """What is the same in all messages."""
        if any(name in piece for piece in self.fixed for name in names):
            raise Unsuitable("a stand-in is where nothing can be filled in")
        # The values come first, then the fixed pieces; in what is encoded they take turns.
        first = len(stand_ins)
        order = [first]
        for number, found in enumerate(pattern.findall(encoded), first + 1):
            order += (stand_ins.index(found), number)
        if len(order) == 1:  # itemgetter() of one number gives no tuple
            self.fixed += (encoded[:0],)
            order.append(first + 1)
        self.in_order: Callable[[tuple[AnyStr, ...]], tuple[AnyStr, ...]] = itemgetter(*order)


_STAND_INS = (TASK_ID, PATH, SOURCE, SIZE, MTIME, ARRIVED, HEADER)


def _like(encoded: str | bytes, text: str) -> str | bytes:
    return text if isinstance(encoded, str) else text.encode()


def split_body(captured: CapturedMessage) -> tuple[str, str]:
    """Return the JSON before and after the path, the first of the task's arguments."""
    before, mark, after = captured.body.partition(f'"{PATH}"')
    if not mark or PATH in after or TASK_ID in captured.body:
        raise Unsuitable("the body")
    return before, after
