"""Messages and expectations that the tests of the publishers share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from watchman.model import Answer, Message, Outcome, Route

ARRIVED_NS = 1_596_705_457_000_000_000
MTIME_NS = 1_596_705_456_400_000_123

AWKWARD = {
    "latin-1 bytes": b"/srv/caf\xe9.csv",
    "newline": b"/srv/a\nb.csv",
    "quotes": b'/srv/it\'s "so".csv',
    "percent and braces": b"/srv/%s %(path)s %% {0} {path}.csv",
    "backslash": b"/srv/a\\b\\n.csv",
    "control characters": bytes(b"/srv/" + bytes(range(1, 32)) + b".csv"),
    "every high byte": bytes(b"/srv/" + bytes(range(0x80, 0x100)) + b".csv"),
    "snow": "/srv/☃ 雪 𝄞.csv".encode(),
    "long": b"/srv/" + b"/".join([b"n" * 250] * 15) + b".csv",
    "long and quoted": b"/srv/" + b"'" * 1100,
}
"""File names as the kernel has them."""


def route(queue: str, task: str = "tests.note", **options: Any) -> Route:
    return Route("broker", task, (), {}, {"queue": queue, **options})


def message(to: Route, path: str = "/srv/ftp/a.csv", task_id: str = "") -> Message:
    return Message(
        task_id or str(uuid.uuid4()), path, f"/in{path}", 12345, MTIME_NS, ARRIVED_NS, to
    )


def messages(to: Route, count: int) -> list[Message]:
    return [message(to, f"/srv/ftp/{number:05d}.csv") for number in range(count)]


def answers(outcomes: Iterable[Outcome]) -> set[Answer]:
    return {outcome.answer for outcome in outcomes}
