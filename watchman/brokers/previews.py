"""Where a route's messages would go: Celery makes one, and nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from watchman.brokers.application import make_application, make_connection
from watchman.brokers.recorder import Recorder
from watchman.model import Broker, Message, Route

_EXAMPLE = Message("watchman-check", "/path/of/a/file", "/path/of/a/file", 1, 0, 0, Route("", ""))


class Preview(NamedTuple):
    """What Celery would make of a route."""

    queue: str | None = None
    """The queue that the message would be in; None where only an exchange is named."""
    exchange: str = ""
    routing_key: str = ""
    problem: str = ""
    """Why there would be no message; all else is empty then."""

    def text(self) -> str:
        """Return the target in words."""
        if self.queue is not None:
            return self.queue
        return f"exchange {self.exchange!r}, routing key {self.routing_key!r}"


class Previews:
    """Previews for one broker."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        app = make_application(celery_settings)
        connection = make_connection(app, broker.urls[0], {})
        self._recorder = Recorder(app, connection)

    def of(self, route: Route) -> Preview:
        """Return what would become of a message of that route."""
        try:
            target = self._recorder.record(_EXAMPLE._replace(route=route)).target
        except Exception as error:  # noqa: BLE001 — Celery, serializers and the user's own routers
            return Preview(problem=f"{type(error).__name__}: {error}")
        if not target.exchange:
            return Preview(target.routing_key, "", target.routing_key)
        bound = [
            str(entity.name)
            for entity in target.declare
            if getattr(getattr(entity, "exchange", None), "name", None) == target.exchange
            and entity.routing_key == target.routing_key
        ]
        # Celery declares its default queue also with a message for another exchange.
        return Preview(bound[0] if bound else None, target.exchange, target.routing_key)


def preview(broker: Broker, celery_settings: Mapping[str, Any], route: Route) -> Preview:
    """Return what would become of a message of that route on that broker."""
    try:
        return Previews(broker, celery_settings).of(route)
    except Exception as error:  # noqa: BLE001 — whatever kombu raises for the URL and the settings
        return Preview(problem=f"{type(error).__name__}: {error}")
