"""The report: what the snapshot says, who holds the lock, and what the journal counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from watchman import clock
from watchman.model import State
from watchman.status.status_file import ShownTrouble, Snapshot, broker_trouble
from watchman.text import iso

_OF_MOVE = ("source", "root", "waiting", "reason", "copies", "rate", "eta_s")
_FAILED, _MOVING, _READY = (
    state.name.lower() for state in (State.FAILED, State.MOVING, State.READY)
)
STALE = 45.0
"""Seconds after which a snapshot is too old: the pipeline writes one every 10."""
NOT_YET = (
    "it does not watch yet: its log tells what it does; work on a large journal takes minutes, and "
    "a restart would begin it anew; if it does nothing, 'notify stop --kill'"
)
"""What is to be said of a process that is hung, or opens its journal: see ``may_be_opening``."""

Counts = Mapping[tuple[str, State], tuple[int, int]]
"""(broker, state) → (number of deliveries, arrival of the oldest in ns)."""


class Now(NamedTuple):
    """When and of whom the question is asked."""

    ns: int
    monotonic_ns: int
    run_ns: int
    """``run_of`` whoever holds the lock."""
    answered: bool = False
    """Whether it has written its snapshot because it was asked."""


@dataclass(frozen=True)
class Deliveries:
    """The deliveries to one broker that are in one state."""

    broker: str
    """Empty where files are only moved."""
    state: str
    count: int
    oldest_ns: int


class HeldTasks(NamedTuple):
    """What an operator has ordered to wait."""

    kind: str
    """``broker``, ``task`` or ``directory``."""
    name: str
    since_ns: int
    by: str
    number: int
    """How many tasks wait."""
    oldest_ns: int
    """When the first of them arrived; 0 where there are none, or it is not known."""
    brokers: Mapping[str, int]
    """How many of them are for which broker."""
    or_more: bool = False
    """Whether more may wait, which no sender has come to yet."""


@dataclass(frozen=True)
class Status:
    """How it stands with watchman."""

    state: str
    """``active``, ``waiting`` (nothing that it is to watch is there), ``starting``, ``hung`` or
    ``inactive``."""
    pid: int | None
    """None while inactive; 0 where it runs in another container."""
    since_ns: int | None
    beat_ns: int | None
    """When the process last said that it works."""
    deliveries: Sequence[Deliveries]
    last_arrival_ns: int
    last_sent_ns: int
    snapshot: Snapshot | None = field(default=None)
    """The last word of the process that runs; None while it has said nothing, or none runs."""

    answered: bool = False
    """Whether the process has taken the snapshot for this question."""
    held: Sequence[HeldTasks] = ()
    counted: bool = True
    """Whether the journal could be read, so that deliveries and times are what it has."""

    @property
    def failed(self) -> list[ShownTrouble]:
        """What an operator has to decide about."""
        return [
            {
                "subject": f"broker {one.broker}" if one.broker else "moving without a task",
                "message": f"{one.count:,} {'has' if one.count == 1 else 'have'} failed: "
                "'notify failed' tells why; then 'notify retry' or 'notify discard'",
                "since_ns": one.oldest_ns,
            }
            for one in self.deliveries
            if one.state == _FAILED
        ]

    @property
    def troubles(self) -> list[tuple[int, str, str]]:
        """Return (since when in ns, what, why and what to do) of all that is wrong."""
        found = [(t["since_ns"], t["subject"], t["message"]) for t in self.failed]
        return found if self.snapshot is None else found + _troubles(self.snapshot)

    @property
    def well(self) -> bool:
        """Whether it is active, and nothing is wrong."""
        return self.active and not self.troubles

    def held_for(self, broker: str) -> int:
        """Return how many of a broker's tasks an operator has ordered to wait."""
        # What is for a broker that is held as a whole may be kept by another hold as well.
        whole = [one.number for one in self.held if (one.kind, one.name) == ("broker", broker)]
        return max(whole, default=sum(one.brokers.get(broker, 0) for one in self.held))

    def held_words(self, brokers: Collection[str] | None = None) -> str:
        """Return how many tasks for some brokers are held, for all by default; empty for none.

        As people read it: ``1,204``, or ``5 or more`` where no sender has come to all of them.
        """
        names = {one.broker for one in self.deliveries} if brokers is None else brokers
        number = sum(map(self.held_for, names))
        more = " or more" if any(map(self._may_hold_more, names)) else ""
        return f"{number:,}{more}" if number else ""

    def _may_hold_more(self, broker: str) -> bool:
        whole = any((one.kind, one.name) == ("broker", broker) for one in self.held)
        return not whole and any(one.or_more and one.brokers.get(broker) for one in self.held)

    @property
    def oldest_waiting_ns(self) -> int:
        """When the oldest arrived that is to be moved or sent, and is not held; 0 for none."""
        waiting = [
            one.oldest_ns
            for one in self.deliveries
            if one.state == _MOVING
            or (one.state == _READY and one.count > self.held_for(one.broker))
        ]
        return min(waiting, default=0)

    @property
    def may_be_opening(self) -> bool:
        """Whether it seems to hang and has no pipeline: so it is while the journal is opened.

        At the start, or once more since it was damaged.
        """
        watching = self.snapshot is not None and self.snapshot["watching"]
        return self.state == "hung" and not watching

    @property
    def active(self) -> bool:
        """Whether it watches; ``snapshot["troubles"]`` tells what it has to do without."""
        return self.state == "active"


def compose(
    process: tuple[int, int] | None,
    snapshot: Snapshot | None,
    counts: Counts,
    latest: tuple[int, int],
    now: Now,
    *,
    discarded: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    held: Sequence[HeldTasks] = (),
) -> Status:
    """Put together what is known. ``process`` is (pid, since when in ns) of the lock's holder,
    ``latest`` the journal's last arrival and last sending in ns.
    """
    numbers = [(broker, state.name.lower(), number) for (broker, state), number in counts.items()]
    numbers += [(broker, "discarded", number) for broker, number in discarded.items()]
    deliveries = [Deliveries(broker, state, *number) for broker, state, number in sorted(numbers)]
    beat = snapshot["beat_ns"] if snapshot else None
    arrived, sent = latest
    if snapshot:
        # Arrivals that no pattern matches are not in the journal.
        arrived = clock.latest([arrived, snapshot["last_arrival_ns"]], now.ns)
        brokers = snapshot["brokers"].values()
        sent = clock.latest([sent, *(broker["last_sent_ns"] for broker in brokers)], now.ns)
    if process is None:
        # What is wrong, under way or shown of its parts was true of that process.
        return Status("inactive", None, None, beat, deliveries, arrived, sent, held=held)
    pid, since = process
    if snapshot and snapshot["run_ns"] != now.run_ns:
        # No word of this process yet: it is opening its journal, unless that takes too long.
        beat, snapshot = None, None
    state = _state(since, snapshot, now)
    return Status(state, pid, since, beat, deliveries, arrived, sent, snapshot, now.answered, held)


def _state(since_ns: int, snapshot: Snapshot | None, now: Now) -> str:
    """Return the state of a process that lives."""
    if snapshot is None:
        # A clock that was set back says nothing about it.
        silent_ns = now.ns - since_ns
    elif now.answered:
        silent_ns = 0
    else:
        silent_ns = now.monotonic_ns - snapshot["beat_monotonic_ns"]
    if silent_ns > STALE * 1e9:
        return "hung"
    if snapshot is None or not snapshot["watching"]:
        return "starting"
    there = any(watch["directories"] for watch in snapshot["watches"])
    return "active" if there else "waiting"


def as_json(status: Status, now_ns: int) -> dict[str, Any]:
    """Return the status as plain values: times as ISO 8601 in UTC, ages in seconds."""
    snapshot: Mapping[str, Any] = status.snapshot or {}
    brokers = snapshot.get("brokers", {})
    return {
        "state": status.state,
        "pid": status.pid,
        "since": _iso(status.since_ns),
        "last_heartbeat": _iso(status.beat_ns),
        "watches": snapshot.get("watches", []),
        "troubles": [_with_since(one) for one in (*snapshot.get("troubles", []), *status.failed)],
        "notes": [_with_since(note) for note in snapshot.get("notes", [])],
        "counted": status.counted,
        "deliveries": [
            {
                "broker": part.broker,
                "state": part.state,
                "count": part.count,
                "oldest": _iso(part.oldest_ns),
                "oldest_age": round((now_ns - part.oldest_ns) / 1e9, 3),
            }
            for part in status.deliveries
        ],
        "brokers": {
            name: {
                "trouble": broker["trouble"],
                "since": _iso(broker["since_ns"]),
                "last_sent": _iso(broker["last_sent_ns"]),
                "rate": round(broker["rate"], 3),
            }
            for name, broker in brokers.items()
        },
        "moves": [
            {
                **{key: move[key] for key in _OF_MOVE},
                "stuck_since": _iso(move["stuck_since_ns"]),
                "troubles": [
                    {"since": _iso(since), "message": message}
                    for since, message in move["troubles"]
                ],
            }
            for move in snapshot.get("moves", [])
        ],
        "last_arrival": _iso(status.last_arrival_ns),
        "last_sent": _iso(status.last_sent_ns),
        "overflows": snapshot.get("overflows", 0),
        "answered": status.answered,
        "age": None if status.beat_ns is None else round((now_ns - status.beat_ns) / 1e9, 3),
        "rates": snapshot.get("rates", {}),
        "incomplete": snapshot.get("incomplete", 0),
        "being_written": [_with_since(one) for one in snapshot.get("being_written", [])],
        "unjudged": snapshot.get("unjudged", 0),
        "partial": snapshot.get("partial", 0),
        "oldest_partial": [_with_since(one) for one in snapshot.get("oldest_partial", [])],
        "being_read": [_with_since(one) for one in snapshot.get("being_read", [])],
        "scans": [_with_since(one) for one in snapshot.get("scans", [])],
        "held": [
            {
                "kind": hold.kind,
                "name": hold.name,
                "since": _iso(hold.since_ns),
                "by": hold.by,
                "waiting": hold.number,
                "or_more": hold.or_more,
                "oldest": _iso(hold.oldest_ns),
            }
            for hold in status.held
        ],
    }


def _troubles(snapshot: Snapshot) -> list[tuple[int, str, str]]:
    found = [(t["since_ns"], t["subject"], t["message"]) for t in snapshot["troubles"]]
    down = [
        broker_trouble(name, broker)
        for name, broker in snapshot["brokers"].items()
        if broker["trouble"]
    ]
    found += [(t["since_ns"], t["subject"], t["message"]) for t in down]
    for move in snapshot["moves"]:
        subject = f"moving {move['source']} to {move['root']}"
        if move["reason"]:
            found.append((move["stuck_since_ns"] or 0, subject, move["reason"]))
        found += [(since, subject, message) for since, message in move["troubles"]]
    return found


def _with_since(trouble: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in trouble.items() if key not in {"since_ns", "kind"}}
    return {**rest, "since": _iso(trouble["since_ns"])}


def _iso(ns: int | None) -> str | None:
    return iso(ns) if ns else None
