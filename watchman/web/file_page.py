"""What is told of one delivery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from watchman.commands.timeline import DaemonNow, Way, timeline
from watchman.journal.record import Record
from watchman.status.overview import Status
from watchman.text import printable, size
from watchman.web.observed import Told
from watchman.web.view import Time, time_of

_UNKNOWN_WAY = Way(None, None, None)
"""``notify where`` tells watch and pattern: of the configuration only its places are read here."""


class Step(NamedTuple):
    """Something that happened."""

    time: Time | None
    """None where it is that of the step before."""
    words: str
    state: str
    """The state that it led to, for its colour; empty for none."""


def steps(told: Told, status: Status, now_ns: int) -> list[Step]:
    """Return what happened, in its order."""
    return list(_steps(told, status, now_ns))


def _steps(told: Told, status: Status, now_ns: int) -> Iterator[Step]:
    itself = time_of(told.record.version.mtime_ns, now_ns)
    if told.record.kind != "directories":
        yield Step(itself, "Last written, by the file's own time", "")
    elif itself is not None:
        yield Step(itself, "Made, by its own time", "")
    daemon = DaemonNow(status.state != "inactive", status.snapshot, told.holds)
    for event in timeline(
        told.record,
        told.acts,
        _UNKNOWN_WAY,
        told.later,
        daemon,
        told.upload,
        told.incomplete,
        told.together,
    ):
        words = f"{event.what[:1].upper()}{event.what[1:]}"
        yield Step(time_of(event.at_ns, now_ns), words, event.state)


def facts(record: Record) -> list[tuple[str, str]]:
    """Return what else is known of it, by name."""
    found = [("Source", record.source)]
    if record.final != record.source:
        found.append(("Destination", record.final))
    if record.kind == "directories":
        found.append(("Kind", "a finished directory"))
    else:
        found.append(("Size", size(record.version.size)))
    if record.task is not None:
        broker = record.broker or ""
        found += [("Task", record.task), ("Broker", broker), ("Task id", record.task_id)]
    found.append(("Number", str(record.seq)))
    return [(name, printable(text)) for name, text in found]
