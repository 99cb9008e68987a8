"""What the templates show: words, numbers and times, with nothing in them that could disguise.

Names are escaped twice: here what no terminal and no page should print (:func:`text.printable`),
which is also all that no UTF-8 can hold; by the templates what would be HTML.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from watchman.journal.record import Record
from watchman.model import State
from watchman.status import ShownCopy, ShownMove, ShownScan, Snapshot
from watchman.status.overview import NOT_YET, Status
from watchman.text import ago, counted, iso, moment, printable, rate, size, span
from watchman.web.observed import Overview
from watchman.web.plot import Plot, plot

WORDS = {
    "active": ("Active", "Events come, and what is complete is sent."),
    "waiting": ("Waiting", "Nothing that it is to watch is there."),
    "starting": ("Starting", "It has not seen all of its watches yet."),
    "hung": ("Hung", "It gives no sign of work: see its log, then 'notify restart'."),
    "inactive": ("Inactive", "Nobody watches: 'notify start', or its supervisor, starts it."),
}
_OTHERS = ("vanished", "discarded")
"""States of deliveries that are told where there are any."""


class Time(NamedTuple):
    """A time."""

    iso: str
    text: str
    """The time of day, with the day where that is not today."""
    ago: str


_UNKNOWN = Time("", "unknown", "")


class Name(NamedTuple):
    """A path, in two parts."""

    directory: str
    name: str


class File(NamedTuple):
    """A delivery in a list."""

    seq: int
    name: Name
    final: Name | None
    """None where it is not moved."""
    arrived: Time
    word: str
    task: str
    broker: str
    reason: str


class Problem(NamedTuple):
    """A trouble or a note."""

    subject: str
    message: str
    since: Time | None


class BrokerCard(NamedTuple):
    """A broker."""

    name: str
    up: bool | None
    """None where nobody tells: watchman does not run, or the broker is no longer configured."""
    since: Time | None
    """Since when there is trouble."""
    rate: str
    waiting: int
    oldest: Time | None
    held: str
    """How many are held; empty for none."""
    moving: int
    failed: int
    sent: int
    others: Sequence[tuple[str, int]]
    """States that are none of these, and how many are in them."""
    last_sent: Time | None
    query: str
    """The query string that lists what waits."""


class HoldCard(NamedTuple):
    """What an operator has ordered to wait."""

    name: str
    number: int
    or_more: bool
    since: Time | None
    by: str


class ScanBar(NamedTuple):
    """A scan that takes its time."""

    what: str
    done: int
    new: int
    text: str


class OpenFileRow(NamedTuple):
    """A file that is being written."""

    path: str
    since: Time | None


class PartialFileRow(NamedTuple):
    """A file that waits for what ``complete`` asks."""

    path: str
    since: Time | None
    reason: str


class ReadFile(NamedTuple):
    """A file that is read for long, to tell whether it is whole."""

    path: str
    since: Time | None
    asked: str


class CopyBar(NamedTuple):
    """A copy in progress."""

    source: str
    final: str
    done: int
    total: int
    text: str


class MoveCard(NamedTuple):
    """A MOVES entry."""

    source: str
    root: str
    waiting: int
    rate: str
    left: str
    """How long it will take, behind a comma; empty where nobody can tell."""
    stuck: Time | None
    copies: Sequence[CopyBar]


class WatchCard(NamedTuple):
    """A watch."""

    path: str
    directories: int
    kind: str
    method: str
    handler: str


class Page(NamedTuple):
    """All of the first page."""

    state: str
    tone: str
    """``good``, ``fair`` or ``bad``."""
    title: str
    words: str
    pid: int
    since: Time | None
    seen: Time | None
    """When the process last said that it works."""
    silent: bool
    """Whether it does not answer now, so that what is shown was true when it was last seen."""
    counted: bool
    """Whether the journal could be read; nothing is known of deliveries where not."""
    rates: str
    """What came and went in the last minute; empty where nobody tells."""
    now: Time
    moving: int
    ready: int
    all_held: str
    oldest: Time | None
    """Of those that nobody holds."""
    failed: int
    last_arrival: Time | None
    last_sent: Time | None
    hour: Plot
    day: Plot
    troubles: Sequence[Problem]
    scans: Sequence[ScanBar]
    held: Sequence[HoldCard]
    incomplete: int
    """Files that are being written, or not settled."""
    being_written: Sequence[OpenFileRow]
    """The oldest of them."""
    partial: int
    """Files that wait for what ``complete`` asks."""
    oldest_partial: Sequence[PartialFileRow]
    """A few of those that have waited for longest."""
    being_read: Sequence[ReadFile]
    notes: Sequence[Problem]
    brokers: Sequence[BrokerCard]
    moves: Sequence[MoveCard]
    watches: Sequence[WatchCard]
    failures: Sequence[File]
    latest: Sequence[File]


def page(seen: Overview) -> Page:
    """Return the first page."""
    found, now = seen.status, seen.now_ns
    snapshot = found.snapshot
    troubles = list(_troubles(seen))
    title, words = WORDS[found.state]
    if found.may_be_opening:
        words = f"{NOT_YET[0].upper()}{NOT_YET[1:]}."
    tone = "bad" if found.state in {"inactive", "hung"} else "good"
    silent = snapshot is not None and not found.answered
    if tone == "good" and (troubles or silent or found.state != "active"):
        tone = "fair"
    counts = Counter[str]()
    for one in found.deliveries:
        counts[one.state] += one.count
    return Page(
        state=found.state,
        tone=tone,
        title=title,
        words=words,
        pid=found.pid or 0,
        since=time_of(found.since_ns, now),
        seen=time_of(found.beat_ns, now),
        silent=silent,
        counted=found.counted,
        rates="" if silent else _rates(snapshot),
        now=time_of(now, now) or _UNKNOWN,
        moving=counts["moving"],
        ready=counts["ready"],
        all_held=found.held_words(),
        oldest=time_of(found.oldest_waiting_ns, now),
        failed=counts["failed"],
        last_arrival=time_of(found.last_arrival_ns, now),
        last_sent=time_of(found.last_sent_ns, now),
        hour=plot(seen.minutes, now, count=60, step=1),
        day=plot(seen.minutes, now, count=96, step=15),
        troubles=troubles,
        scans=[_scan(one) for one in (snapshot["scans"] if snapshot else ())],
        held=list(_held(found, now)),
        incomplete=snapshot["incomplete"] if snapshot else 0,
        being_written=[
            OpenFileRow(printable(one["path"]), time_of(one["since_ns"], now))
            for one in (snapshot["being_written"] if snapshot else ())
        ],
        partial=snapshot["partial"] if snapshot else 0,
        oldest_partial=[
            partial_file(one["path"], one["since_ns"], one["reason"], now)
            for one in (snapshot["oldest_partial"] if snapshot else ())
        ],
        being_read=[
            ReadFile(
                printable(one["path"]),
                time_of(one["since_ns"], now),
                printable(", ".join(one["asked"])),
            )
            for one in (snapshot.get("being_read", ()) if snapshot else ())
        ],
        notes=[
            Problem(printable(n["subject"]), printable(n["message"]), time_of(n["since_ns"], now))
            for n in (snapshot["notes"] if snapshot else ())
        ],
        brokers=list(_brokers(found, snapshot, now)),
        moves=list(_moves(snapshot, now)) if snapshot else [],
        watches=[
            WatchCard(
                printable(watch["path"]),
                watch["directories"],
                watch["kind"],
                watch["method"],
                printable(watch["handler"]),
            )
            for watch in (snapshot["watches"] if snapshot else ())
        ],
        failures=[file(record, now) for record in seen.failed],
        latest=[file(record, now) for record in seen.latest],
    )


def file(record: Record, now_ns: int) -> File:
    """Return a delivery as it is listed."""
    # Why the others wait is told once, where their broker is.
    reason = "" if record.state is State.READY else record.reason
    return File(
        record.seq,
        _name(record.source),
        None if record.final == record.source else _name(record.final),
        time_of(record.arrived_ns, now_ns) or _UNKNOWN,
        record.word,
        printable(record.task or ""),
        printable(record.broker or ""),
        printable(reason),
    )


def partial_file(path: str, since_ns: int, reason: str, now_ns: int) -> PartialFileRow:
    """Return a file that is not whole yet, as it is listed."""
    return PartialFileRow(printable(path), time_of(since_ns, now_ns), printable(reason))


def _troubles(seen: Overview) -> Iterator[Problem]:
    if seen.journal_trouble:
        yield Problem("the journal", printable(seen.journal_trouble), None)
    for since_ns, subject, message in sorted(seen.status.troubles):
        since = time_of(since_ns, seen.now_ns)
        yield Problem(printable(subject), printable(message), since)


def _brokers(found: Status, snapshot: Snapshot | None, now: int) -> Iterator[BrokerCard]:
    told = snapshot["brokers"] if snapshot else {}
    counted: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in told}
    for one in found.deliveries:
        counted.setdefault(one.broker, {})[one.state] = (one.count, one.oldest_ns)
    for name, states in counted.items():
        broker = told.get(name)
        ready, oldest = states.get("ready", (0, 0))
        held = found.held_for(name)
        yield BrokerCard(
            name=printable(name),
            up=None if broker is None else not broker["trouble"],
            since=time_of(broker["since_ns"], now) if broker else None,
            rate=rate(broker["rate"]) if broker else "",
            waiting=ready,
            oldest=time_of(oldest, now) if ready > held else None,
            held=found.held_words({name}),
            moving=states.get("moving", (0, 0))[0],
            failed=states.get("failed", (0, 0))[0],
            sent=states.get("sent", states.get("moved", (0, 0)))[0],
            others=[(state, states[state][0]) for state in _OTHERS if state in states],
            last_sent=time_of(broker["last_sent_ns"], now) if broker else None,
            query=f"?broker={quote_from_bytes(os.fsencode(name))}" if name else "?state=moved",
        )


def _held(found: Status, now: int) -> Iterator[HoldCard]:
    for one in found.held:
        name = f"task:{one.name}" if one.kind == "task" else one.name
        since = time_of(one.since_ns, now)
        yield HoldCard(printable(name), one.number, one.or_more, since, printable(one.by))


def _scan(one: ShownScan) -> ScanBar:
    paths = ", ".join(map(printable, one["paths"][:3]))
    more = f" and {len(one['paths']) - 3} more" if len(one["paths"]) > 3 else ""
    what = "The first run of" if one["first_run"] else "Catching up on"
    looked = f"{counted(one['listed'], 'file')} looked at{' so far' if one['listing'] else ''}"
    speed = f"{rate(one['rate'])}{_left(one)}"
    text = f"{looked}, {one['done']:,} of {one['new']:,} new ones done, {speed}"
    return ScanBar(f"{what} {paths}{more}", one["done"], max(one["new"], 1), text)


def _moves(snapshot: Snapshot, now: int) -> Iterator[MoveCard]:
    for move in snapshot["moves"]:
        copies = [
            CopyBar(
                printable(copy["source"]),
                printable(copy["final"]),
                copy["done"],
                max(copy["total"], 1),
                f"{size(copy['done'])} of {size(copy['total'])}, "
                f"{size(copy['rate'])}/s{_left(copy)}",
            )
            for copy in move["copies"]
        ]
        stuck = time_of(move["stuck_since_ns"], now)
        source, root = printable(move["source"]), printable(move["root"])
        speed = rate(move["rate"])
        yield MoveCard(source, root, move["waiting"], speed, _left(move), stuck, copies)


def _rates(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return ""
    return f"{rate(snapshot['rates']['in'])} in, {rate(snapshot['rates']['out'])} out"


def _left(what: ShownMove | ShownCopy | ShownScan) -> str:
    eta = what["eta_s"]
    return "" if eta is None else f", {span(eta)} left"


def time_of(ns: int | None, now_ns: int) -> Time | None:
    """Return a time as it is shown; None for never."""
    if not ns:
        return None
    text = moment(ns)
    day, _, of_day = text.partition(" ")
    today = moment(now_ns).partition(" ")[0]
    return Time(iso(ns) or "", of_day if day == today else text, ago(now_ns - ns))


def zone() -> str:
    """Return the time zone of all times that are shown, as its name or as ``+01``."""
    return time.strftime("%Z")


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def _name(path: str) -> Name:
    directory, mark, name = path.rstrip("/").rpartition("/")
    return Name(printable(directory + mark), printable(name))
