"""Routes as text, so that a delivery can be sent after its pattern has left the configuration."""

from __future__ import annotations

import datetime
import json
from typing import Any

from watchman.model import Batch, Route


def encode(route: Route) -> str:
    """Return the route's args, kwargs, options and batch as JSON; equal routes give equal text."""
    parts = [route.args, dict(route.kwargs), dict(route.options)]
    # As it was before there were batches, where there is none: it is the same route.
    parts += [] if route.batch is None else [list(route.batch)]
    return json.dumps(parts, default=_encode, sort_keys=True)


def decode(broker: str, task: str, text: str) -> Route:
    """Return the route that :func:`encode` made ``text`` of."""
    args, kwargs, options, *batch = json.loads(text, object_hook=_decode)
    return Route(broker, task, tuple(args), kwargs, options, *(Batch(*one) for one in batch))


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
