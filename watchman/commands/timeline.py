"""What happened to a delivery, in words and in order, and what it waits for. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from watchman.journal.acts import RESENT, Act
from watchman.journal.bundles import Membership
from watchman.journal.record import Record
from watchman.model import Hold, HoldKind, State, Upload
from watchman.status import Snapshot
from watchman.text import moment, printable, remedy_for_part, size

_TOGETHER = (State.READY, State.SENT, State.FAILED)
"""The states of what is announced, was announced, or should have been."""


class Event(NamedTuple):
    """A line of a timeline."""

    at_ns: int | None
    """None where the time is that of the line before, or not known."""
    what: str
    state: str = ""
    """The state that it leads to, for its colour."""


class Way(NamedTuple):
    """What the configuration says of a delivery now; it may have been another one then."""

    watch: str | None
    """The watch that sees its path; None where none does."""
    pattern: str | None
    """The pattern that leads its path to its task; None where none does."""
    brokers: Mapping[str, object] | None
    """The brokers that there are; None where the configuration cannot be read."""


class DaemonNow(NamedTuple):
    """What is true of the daemon."""

    active: bool
    snapshot: Snapshot | None
    """Its own word, or the last one of one that has ended."""
    holds: tuple[Hold, ...] = ()
    """What operators have ordered to wait."""


def timeline(
    record: Record,
    acts: Sequence[Act],
    way: Way,
    later: Record | None,
    now: DaemonNow,
    upload: Upload | None = None,
    incomplete: str = "",
    together: Membership | None = None,
) -> list[Event]:
    """Return what happened to a delivery; ``later`` is the next upload at its path.

    ``upload`` is what a transfer log tells of this one; ``incomplete`` is why its file was not
    whole in time, and empty where it was; ``together`` is with what it is announced.
    """
    route = _route_of_incomplete(record, way, incomplete) if incomplete else _route(record, way)
    events = [_begin(record, acts, is_whole=not incomplete), *_upload(upload), *route]
    events += [
        Event(act.at_ns, f"tried again by {printable(act.actor)}")
        for act in acts
        if act.seq == record.seq and act.act != RESENT
    ]
    events += [*_together(together, record), *_end(record, now, way.brokers, together)]
    events += [
        Event(act.at_ns, f"a second task by {printable(act.actor)}: delivery {act.other}")
        for act in acts
        if act.seq == record.seq and act.act == RESENT
    ]
    if later is not None:
        what = f"superseded by a later upload, delivery {later.seq}"
        events.append(Event(later.arrived_ns, what))
    # What has no time of its own stays behind the line that it belongs to.
    return [event for _, event in sorted(_timed(events), key=lambda pair: pair[0])]


def _upload(upload: Upload | None) -> list[Event]:
    """Return who uploaded it, as far as the log tells."""
    if upload is None:
        return []
    took = "" if upload.seconds is None else f" in {upload.seconds:.1f} s"
    user, host = printable(upload.user or "somebody"), printable(upload.host or "somewhere")
    by = f"uploaded by {user} from {host} by {printable(upload.protocol)}"
    return [Event(None, f"{by}: {size(upload.size)}{took}")]


def _together(together: Membership | None, record: Record) -> list[Event]:
    """Return with how many others it is announced by one task."""
    if together is None or together.due_ns is not None or record.state not in _TOGETHER:
        return []
    files = _files(together)
    which = f"a {together.kind} of {files}" if together.kind else f"one task for {files}"
    return [Event(None, f"in {which}, task id {printable(together.task_id)}")]


def _files(together: Membership) -> str:
    return "1 file" if together.number == 1 else f"{together.number:,} files"


def _timed(events: Sequence[Event]) -> list[tuple[int, Event]]:
    last, found = 0, []
    for event in events:
        last = event.at_ns if event.at_ns is not None else last
        found.append((last, event))
    return found


def _route(record: Record, way: Way) -> list[Event]:
    """Return in which watch it came, and by which pattern it has its task."""
    watch = _watch(way)
    if record.task is None:
        return [*watch, Event(None, "no pattern matches: no task")]
    task = _task(record)
    if way.brokers is None:
        return [*watch, Event(None, task)]
    by = f"pattern {printable(way.pattern)}" if way.pattern else "a pattern that is no more"
    return [*watch, Event(None, f"{by}: {task}")]


def _route_of_incomplete(record: Record, way: Way, reason: str) -> list[Event]:
    """Return the same for a file that was not whole in time."""
    by = f"pattern {printable(way.pattern)}" if way.pattern else "'incomplete_task'"
    task = "no task" if record.task is None else f"{by}: {_task(record)}"
    return [*_watch(way), Event(None, f"not whole: {printable(reason)}"), Event(None, task)]


def _watch(way: Way) -> list[Event]:
    return [Event(None, f"in the watch {printable(way.watch)}")] if way.watch else []


def _task(record: Record) -> str:
    return f"task {printable(record.task or '')} on broker {printable(record.broker or '')}"


def _begin(record: Record, acts: Sequence[Act], *, is_whole: bool) -> Event:
    for act in acts:
        if act.act == RESENT and act.other == record.seq:
            what = f"a second task for delivery {act.seq}, by {printable(act.actor)}"
            return Event(record.arrived_ns, f"{what}: delivery {record.seq}")
    unit = "finished" if record.kind == "directories" else "complete" if is_whole else "incomplete"
    amount = "" if record.kind == "directories" else f", {size(record.version.size)}"
    return Event(record.arrived_ns, f"{unit}{amount}: delivery {record.seq}")


def _end(
    record: Record,
    now: DaemonNow,
    brokers: Mapping[str, object] | None,
    together: Membership | None,
) -> list[Event]:
    """Return what it came to, or what it waits for."""
    state, word, at = record.state, record.word, record.noted_ns
    reason = printable(record.reason)
    final = printable(record.final)
    moved = [] if record.final == record.source else [Event(None, f"moved to {final}")]
    if state is State.SENT:
        return [*moved, Event(at, f"sent as {printable(record.task_id)}", word)]
    if state is State.MOVED:
        return [Event(at, f"moved to {final}", word)]
    if state is State.FAILED:
        remedy = remedy_for_part(record.reason, f" {record.seq}") or (
            f"mend the cause, then 'notify retry {record.seq}' or 'notify discard {record.seq}'"
        )
        return [Event(at, f"failed: {reason}; {remedy}", word)]
    if state is State.VANISHED:
        what = reason if word != "vanished" else f"vanished: {reason or 'the file is gone'}"
        return [Event(at, what, word)]
    if state is State.MOVING:
        return [Event(at, f"waits to be moved to {final}{_why_not_moved(record, now)}", word)]
    if together is not None and together.part is not None:
        path, of_part = together.part
        why = "has failed" if of_part is State.FAILED else "has yet to be moved"
        what = f"waits for {printable(path)}, a part of its set, which {why}"
        return [*moved, Event(at, what, word)]
    what = f"waits for broker {printable(record.broker or '')}"
    if together is not None and together.due_ns is not None:
        until = f"until {moment(together.due_ns)}"
        what = f"waits for its batch, of {_files(together)} so far, {until}"
    return [*moved, Event(at, f"{what}{_why_not_sent(record, now, brokers)}", word)]


def _why_not_moved(record: Record, now: DaemonNow) -> str:
    if not now.active:
        return "; watchman is not running: 'notify start'"
    inside = [
        move
        for move in (now.snapshot["moves"] if now.snapshot else [])
        if record.final.startswith(move["root"].rstrip("/") + "/")
    ]
    own = [move for move in inside if record.source.startswith(move["source"].rstrip("/") + "/")]
    inside = own or inside  # what was recorded with an older configuration may have none
    above, below = (printable(os.path.dirname(one)) for one in (record.source, record.final))
    # As the mover says of one file, and of all between two directories.
    words = (
        f" {printable(record.source)} to ",
        f" {above} to {below};",
        f" between {above} and {below};",
    )
    for since, message in (trouble for move in inside for trouble in move["troubles"]):
        if any(one in message for one in words):
            return f" since {moment(since)} because {printable(message)}"
    inside = [move for move in inside if move["reason"]]
    if not inside:
        return ""
    move = max(inside, key=lambda one: len(one["root"]))
    since = move["stuck_since_ns"]
    return f"{f' since {moment(since)}' if since else ''} because {printable(move['reason'])}"


def _keeps(hold: Hold, record: Record) -> bool:
    if hold.kind is HoldKind.BROKER:
        return hold.name == record.broker
    if hold.kind is HoldKind.TASK:
        return hold.name == record.task
    below = f"{hold.name.rstrip('/')}/"
    return record.source.startswith(below) or record.final.startswith(below)


def _why_not_sent(record: Record, now: DaemonNow, brokers: Mapping[str, object] | None) -> str:
    if brokers is not None and record.broker not in brokers:
        return ", which is not in BROKERS any more"
    for hold in now.holds:
        if _keeps(hold, record):
            return f"; held since {moment(hold.since_ns)} by {printable(hold.by)}: 'notify release'"
    if not now.active:
        return "; watchman is not running: 'notify start'"
    shown = (now.snapshot["brokers"] if now.snapshot else {}).get(record.broker or "")
    if shown is not None and shown["trouble"]:
        since = f" since {moment(shown['since_ns'])}" if shown["since_ns"] else ""
        return f"{since} because {printable(shown['trouble'])}"
    return f": {printable(record.reason)}" if record.reason else ""
