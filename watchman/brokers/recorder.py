"""What Celery would have published for a message, kept instead of sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from watchman.model import Message, Route

NS = 1_000_000_000
_SALT = os.urandom(8).hex()

# Stand-ins. They are plain letters and digits: no serializer or repr() changes them.
TASK_ID = f"watchmanTaskId{_SALT}"
PATH = f"watchmanPath{_SALT}"
SOURCE = f"watchmanSource{_SALT}"
SIZE = f"watchmanSize{_SALT}"
MTIME = f"watchmanMtime{_SALT}"
ARRIVED = f"watchmanArrived{_SALT}"
ARGSREPR = f"watchmanArgsrepr{_SALT}"

TIMED = frozenset({"countdown", "eta", "expires", "expiration"})
"""Options whose meaning depends on when the message is sent."""

_NEVER_PASSED = frozenset({"args", "kwargs", "task_id", "producer", "publisher", "connection"})


class Unsuitable(Exception):  # noqa: N818 — no error: the route goes the plain way
    """A route that no template can stand for."""


class Target(NamedTuple):
    """Where a message goes."""

    exchange: str
    routing_key: str
    priority: int | None
    mandatory: bool
    declare: tuple[Any, ...]
    """kombu entities to declare before the first message."""
    place: tuple[str, ...]
    """Exchange, routing key and the names of what is declared: what the target is known by."""


class Recorded(NamedTuple):
    """What Celery would have published."""

    target: Target
    body: Any
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]


class Letter(NamedTuple):
    """A message ready for the wire. ``payload`` is what the transport's encoder made of it."""

    target: Target
    payload: Any


class _Channel:
    """What kombu's Producer needs of a channel; keeps the message instead of sending it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.connection = self
        self.declared: list[Any] = []
        self.records: list[Recorded] = []

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

    def basic_publish(
        self, message: Any, exchange: str, routing_key: str, mandatory: bool, **_: Any
    ) -> None:
        body, priority, content_type, content_encoding, headers, properties = message
        declare, self.declared = tuple(self.declared), []
        names = (str(getattr(entity, "name", entity)) for entity in declare)
        place = (exchange, routing_key, *names)
        target = Target(exchange, routing_key, priority, bool(mandatory), declare, place)
        self.records.append(
            Recorded(target, body, content_type, content_encoding, headers, properties)
        )


class Recorder:
    """Has Celery make a message, and keeps what it would have published."""

    def __init__(self, app: Any, connection: Any) -> None:
        from kombu import Producer

        class Recording(Producer):
            def maybe_declare(self, entity: Any, *_: Any, **__: Any) -> None:
                if entity:
                    channel.declared.append(entity)

        channel = self._channel = _Channel(connection)
        self._app = app
        self._producer: Any = Recording(channel)
        self.host = socket.gethostname()

    def record(self, message: Message) -> Recorded:
        """Return what ``send_task`` would have published for the message.

        Raises whatever Celery or a serializer raises for options or arguments it cannot take.
        """
        return self._record(message, watchman_headers(message, self.host))

    def record_template(self, route: Route) -> Recorded:
        """Return what ``send_task`` would have published, with the stand-ins in it."""
        message = Message(TASK_ID, PATH, SOURCE, 0, 0, 0, route)
        headers = {
            "watchman_source": SOURCE,
            "watchman_size": SIZE,
            "watchman_mtime": MTIME,
            "watchman_arrived": ARRIVED,
            "watchman_host": self.host,
        }
        return self._record(message, headers)

    def _record(self, message: Message, headers: Mapping[str, Any]) -> Recorded:
        self._channel.records.clear()
        self._channel.declared.clear()
        send_task(self._app, self._producer, message, headers)
        (recorded,) = self._channel.records
        return recorded


def watchman_headers(message: Message, host: str) -> dict[str, Any]:
    """Return what a worker finds of the arrival in ``self.request.headers``; times in seconds."""
    return {
        "watchman_source": message.source,
        "watchman_size": message.size,
        "watchman_mtime": message.mtime_ns / NS,
        "watchman_arrived": message.arrived_ns / NS,
        "watchman_host": host,
    }


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
    app.send_task(
        route.task,
        (message.path, *route.args),
        dict(route.kwargs),
        task_id=message.task_id,
        producer=producer,
        result_cls=_NoResult,
        **options,
    )


class _NoResult:
    """Stands in for AsyncResult, which would load the result backend."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id
