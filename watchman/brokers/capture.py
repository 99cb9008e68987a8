"""What Celery would publish for a message: it is captured, and nothing is sent.

Celery's own ``send_task`` runs with a producer that keeps what it is given. So routes, routers,
queues and options mean what they mean to Celery; templates, the messages that no template can
stand for, and what ``check`` tells of a route's queue are all made of it.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from watchman.brokers.app import make_application, make_connection
from watchman.model import Broker, Message, Route
from watchman.text import describe

NS = 1_000_000_000
_SALT = os.urandom(8).hex()

# Stand-ins for what differs from message to message. They are plain letters and digits: no
# serializer or repr() changes them.
TASK_ID = f"watchmanTaskId{_SALT}"
PATH = f"watchmanPath{_SALT}"
SOURCE = f"watchmanSource{_SALT}"
SIZE = f"watchmanSize{_SALT}"
MTIME = f"watchmanMtime{_SALT}"
ARRIVED = f"watchmanArrived{_SALT}"

HEADER = f"watchmanHeader{_SALT}"
"""Followed by a number: the stand-in for the value of a further header."""

TIMED = frozenset({"countdown", "eta", "expires", "expiration"})
"""Options whose meaning depends on when the message is sent."""

_NEVER_PASSED = frozenset({"args", "kwargs", "task_id", "producer", "publisher", "connection"})


class Target(NamedTuple):
    """Where a message goes."""

    exchange: str
    routing_key: str
    priority: int | None
    declare: tuple[Any, ...]
    """kombu entities to declare before the first message."""
    place: tuple[str, ...]
    """Exchange, routing key and the names of what is declared: what the target is known by."""


class CapturedMessage(NamedTuple):
    """What Celery would have published."""

    target: Target
    body: Any
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]


class _Channel:
    """What kombu's Producer needs of a channel; keeps the messages instead of sending them."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.connection = self
        self.declared: list[Any] = []
        self.messages: list[CapturedMessage] = []

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str = "",
        content_encoding: str = "",
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        return body, priority, content_type, content_encoding, headers or {}, properties or {}

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **_: Any) -> None:
        body, priority, content_type, content_encoding, headers, properties = message
        declare, self.declared = tuple(self.declared), []
        names = (str(getattr(entity, "name", entity)) for entity in declare)
        target = Target(exchange, routing_key, priority, declare, (exchange, routing_key, *names))
        self.messages.append(
            CapturedMessage(target, body, content_type, content_encoding, headers, properties)
        )


class Capture:
    """Has Celery make messages. ``connection`` is a ``kombu.Connection``, never connected."""

    def __init__(self, app: Any, connection: Any) -> None:
        from kombu import Producer

        class CapturingProducer(Producer):
            def maybe_declare(self, entity: Any, *_: Any, **__: Any) -> None:
                if entity:
                    channel.declared.append(entity)

        channel = self._channel = _Channel(connection)
        self._app = app
        self._producer: Any = CapturingProducer(channel)
        self._host = socket.gethostname()

    def message(self, message: Message) -> CapturedMessage:
        """Return what ``send_task`` would have published for the message.

        Raises whatever Celery or a serializer raises for options or arguments it cannot take.
        """
        return self._captured(message, watchman_headers(message, self._host))

    def with_stand_ins(self, route: Route, names: Iterable[str]) -> CapturedMessage:
        """Return what ``send_task`` would have published by the route, with the stand-ins in it.

        ``names`` are those of further headers.
        """
        message = Message(TASK_ID, PATH, SOURCE, 0, 0, 0, route)
        headers = {
            "watchman_source": SOURCE,
            "watchman_size": SIZE,
            "watchman_mtime": MTIME,
            "watchman_arrived": ARRIVED,
            "watchman_host": self._host,
            **dict(zip(names, header_stand_ins(), strict=False)),
        }
        return self._captured(message, headers)

    def _captured(self, message: Message, headers: Mapping[str, Any]) -> CapturedMessage:
        self._channel.messages.clear()
        self._channel.declared.clear()
        send_task(self._app, self._producer, message, headers)
        (captured,) = self._channel.messages
        return captured


def watchman_headers(message: Message, host: str) -> dict[str, Any]:
    """Return what a worker finds of the arrival in ``self.request.headers``; times in seconds."""
    return {
        "watchman_source": message.source,
        "watchman_size": message.size,
        "watchman_mtime": message.mtime_ns / NS,
        "watchman_arrived": message.arrived_ns / NS,
        "watchman_host": host,
        **message.headers,
    }


def header_stand_ins() -> Iterator[str]:
    """Yield stand-ins for the values of further headers, in their order."""
    return (f"{HEADER}N{number}E" for number in itertools.count())


def send_task(
    app: Any, producer: Any, message: Message, headers: Mapping[str, Any], **extra: Any
) -> None:
    """Call ``Celery.send_task`` as it is meant for a file: with the producer given, once."""
    route = message.route
    options: dict[str, Any] = {**route.options, **extra}
    for name in _NEVER_PASSED.intersection(options):
        del options[name]
    # Ours win: workers rely on them.
    options["headers"] = {**(options.get("headers") or {}), **headers}
    # Back-off lives in the sender, once.
    options["retry"] = False
    try:
        app.send_task(
            route.task,
            (message.path, *route.args),
            {**route.kwargs, "files": list(message.files)} if message.files else dict(route.kwargs),
            task_id=message.task_id,
            producer=producer,
            result_cls=_NoResult,
            **options,
        )
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        # Of the user's own routers, and receivers of Celery's signals: it would end the thread.
        raise RuntimeError(describe(error)) from error


class _NoResult:
    """Stands in for AsyncResult, which would load the result backend."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


class Preview(NamedTuple):
    """Where a route's messages would go."""

    queue: str | None = None
    """The queue that the message would be in; None where only an exchange is named."""
    exchange: str = ""
    routing_key: str = ""
    problem: str = ""
    """Why there would be no message; all else is empty then."""
    declares: bool = False
    """Whether the exchange is made with the first message, if it is not there."""

    def text(self) -> str:
        """Return the target in words."""
        if self.queue is not None:
            return self.queue
        return f"exchange {self.exchange!r}, routing key {self.routing_key!r}"


def preview(broker: Broker, celery_settings: Mapping[str, Any], route: Route) -> Preview:
    """Return where a message of that route would go on that broker; nothing is sent."""
    try:
        app = make_application(celery_settings)
        capture = Capture(app, make_connection(app, broker.urls[0], {}))
        return _preview(capture.message(_EXAMPLE._replace(route=route)).target)
    except Exception as error:  # noqa: BLE001 — Celery, kombu, serializers and the user's own routers
        return Preview(problem=f"{type(error).__name__}: {error}")


_EXAMPLE = Message("watchman-check", "/path/of/a/file", "/path/of/a/file", 1, 0, 0, Route("", ""))


def _preview(target: Target) -> Preview:
    if not target.exchange:
        return Preview(target.routing_key, "", target.routing_key)
    # Celery declares its default queue also with a message for another exchange.
    bound = [
        str(entity.name)
        for entity in target.declare
        if getattr(getattr(entity, "exchange", None), "name", None) == target.exchange
        and entity.routing_key == target.routing_key
    ]
    exchanges = {getattr(one, "exchange", one) for one in target.declare}
    declares = any(getattr(one, "name", None) == target.exchange for one in exchanges)
    queue = bound[0] if bound else None
    return Preview(queue, target.exchange, target.routing_key, declares=declares)
