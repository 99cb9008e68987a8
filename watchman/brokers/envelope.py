"""Celery messages, made once for each route by Celery itself and then filled in.

For each route Celery's own ``send_task`` runs once with stand-ins for what differs from message
to message, and a recording producer keeps what it would have published. A transport's encoder
(``virtual``, ``frames``) turns that into a template. Where a route cannot be a template (another
serializer, compression, a callable router, task protocol 1 …) ``send_task`` runs for each
message: slower, and right.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable, Sequence
from typing import Any

from watchman.brokers.recorder import (
    ARGSREPR,
    PATH,
    TASK_ID,
    TIMED,
    Letter,
    Recorded,
    Recorder,
    Unsuitable,
)
from watchman.masking import mask
from watchman.model import Answer, Message, Outcome, Route

encode_json: Callable[[str], str] = json.encoder.encode_basestring_ascii
"""A str as JSON, just as the JSON encoder that kombu uses writes it."""


class Arguments:
    """The ``argsrepr`` header: Celery's shortened repr of the positional arguments."""

    def __init__(self, app: Any, route: Route, recorded: str) -> None:
        self.before, mark, self.after = recorded.partition(PATH)
        self.fixed = not mark
        self._limit = app.amqp.argsrepr_maxsize
        self._levels = app.conf.task_repr_maxlevels
        self._args = route.args
        self._static = len(self.before) + len(self.after)
        if self.after.count(PATH) or (mark and self._static > self._limit // 2):
            raise Unsuitable("the arguments are too long")
        self.simple = self._limit - self._static - 1
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


Encoder = Callable[[Message], Letter]


class Style:
    """How a transport writes a message."""

    def template(self, recorded: Recorded, arguments: Arguments) -> Encoder:
        """Return a function that fills in a template; raise Unsuitable where there is none."""
        raise NotImplementedError

    def plain(self, recorded: Recorded) -> Letter:
        """Return the letter for one recorded message."""
        raise NotImplementedError

    def comparable(self, letter: Letter) -> Any:
        """Return the letter without what is different in each message anyway."""
        raise NotImplementedError


class Envelopes:
    """Makes letters of messages; keeps one encoder for each route."""

    def __init__(self, app: Any, connection: Any, style: Style) -> None:
        self._app = app
        self._recorder = Recorder(app, connection)
        self._style = style
        self._encoders: dict[int, tuple[Route, Encoder]] = {}
        self.templates = 0
        """How many routes are templates, for the tests."""

    def letters(self, batch: Sequence[Message]) -> list[Letter | Outcome]:
        """Return a letter for each message, or why there can never be one."""
        made: list[Letter | Outcome] = []
        encoders: dict[int, Encoder] = {}
        for message in batch:
            route = message.route
            try:
                encoder = encoders.get(id(route))
                if encoder is None:
                    encoder = encoders[id(route)] = self._encoder(route)
                made.append(encoder(message))
            except Exception as error:  # noqa: BLE001 — serializers raise anything at all
                made.append(refused(message, error))
        return made

    def _encoder(self, route: Route) -> Encoder:
        if not TIMED.isdisjoint(route.options):
            # Made anew for each batch: the clock is in it.
            return self._make(route)
        known = self._encoders.get(id(route))
        if known is not None:
            return known[1]
        equal = (encoder for other, encoder in self._encoders.values() if other == route)
        encoder = next(equal, None) or self._make(route)
        if len(self._encoders) > 1000:  # only where each message has a Route of its own
            self._encoders.clear()
        # The route is kept too: an id is only unique as long as its object lives.
        self._encoders[id(route)] = (route, encoder)
        return encoder

    def _make(self, route: Route) -> Encoder:
        try:
            if not self._routes_by_name_only():
                return self._plain
            recorded = self._recorder.record_template(route)
            encoder = self._template(route, recorded)
            if TIMED.isdisjoint(route.options):
                self._prove(route, encoder)
        except Exception:  # noqa: BLE001 — what is wrong shows again, and is answered, message by message
            return self._plain
        self.templates += 1
        return encoder

    def _template(self, route: Route, recorded: Recorded) -> Encoder:
        argsrepr = recorded.headers.get("argsrepr")
        if recorded.headers.get("id") != TASK_ID or not isinstance(argsrepr, str):
            raise Unsuitable("no task protocol 2")
        if (recorded.content_type, recorded.content_encoding) != ("application/json", "utf-8"):
            raise Unsuitable("no JSON")
        if "compression" in recorded.headers or not isinstance(recorded.body, str):
            raise Unsuitable("compressed")
        arguments = Arguments(self._app, route, argsrepr)
        if not arguments.fixed:
            recorded.headers["argsrepr"] = ARGSREPR
        return self._style.template(recorded, arguments)

    def _prove(self, route: Route, encoder: Encoder) -> None:
        """Compare the template with what Celery makes of a message it has not seen."""
        probe = Message(
            "7d444840-9dc0-11d1-b245-5ffdce74fad2",
            "/srv/ü 'x'\n%s\udcff.csv",
            '/in/"ü\\%(a)s\udcfe.csv',
            5_000_000_000,
            1_596_705_456_400_000_123,
            1_596_705_457_000_000_000,
            route,
        )
        said = self._style.comparable(self._plain(probe))
        if said != self._style.comparable(encoder(probe)):
            raise Unsuitable("the template says something else than Celery")

    def _plain(self, message: Message) -> Letter:
        return self._style.plain(self._recorder.record(message))

    def _routes_by_name_only(self) -> bool:
        """False where a router of the user's own may look at the path."""
        from celery.app.routes import MapRoute

        return all(isinstance(router, MapRoute) for router in self._app.amqp.routes)


def refused(message: Message, error: Exception) -> Outcome:
    """Return the answer for a message that Celery cannot make."""
    text = mask(str(error)) or type(error).__name__
    return Outcome(
        Answer.REFUSED,
        f"no message for task {message.route.task} can be made ({type(error).__name__}: {text}); "
        "correct the pattern's args, kwargs or options",
    )
