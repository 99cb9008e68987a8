"""Routes as text, so that a delivery can be sent after its pattern has left the configuration."""

from __future__ import annotations

import datetime
import json
from typing import Any

from watchman.model import Route


def encode(route: Route) -> str:
    """Return the route's args, kwargs and options as JSON; equal routes give equal text."""
    return json.dumps(
        [route.args, dict(route.kwargs), dict(route.options)], default=_encode, sort_keys=True
    )


def decode(broker: str, task: str, text: str) -> Route:
    """Return the route that :func:`encode` made ``text`` of."""
    args, kwargs, options = json.loads(text, object_hook=_decode)
    return Route(broker, task, tuple(args), kwargs, options)


def _encode(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return {"__datetime__": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"__seconds__": value.total_seconds()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be written down as JSON")


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() == {"__datetime__"}:
        return datetime.datetime.fromisoformat(value["__datetime__"])
    if value.keys() == {"__seconds__"}:
        return datetime.timedelta(seconds=value["__seconds__"])
    return value
