"""The report: what the snapshot says, who holds the lock, and what the journal counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from watchman.model import State
from watchman.status.snapshot import Snapshot
from watchman.text import iso

PATIENCE = 45.0
"""Seconds after which a snapshot is too old: the pipeline writes one every 10."""

Counts = Mapping[tuple[str, State], tuple[int, int]]
"""(broker, state) → (number of deliveries, arrival of the oldest in ns)."""


@dataclass(frozen=True)
class Deliveries:
    """The deliveries to one broker that are in one state."""

    broker: str
    """Empty where files are only moved."""
    state: str
    count: int
    oldest_ns: int


@dataclass(frozen=True)
class Status:
    """How it stands with watchman."""

    state: str
    """``active``, ``starting``, ``hung`` or ``inactive``."""
    pid: int | None
    """None while inactive; 0 where it runs in another container."""
    since_ns: int | None
    beat_ns: int | None
    """When the process last said that it works."""
    deliveries: Sequence[Deliveries]
    last_arrival_ns: int
    last_sent_ns: int
    snapshot: Snapshot | None = field(default=None)
    """The last word of the process that runs, or of the last one that ran."""

    @property
    def active(self) -> bool:
        """Whether everything is watched."""
        return self.state == "active"


def compose(
    process: tuple[int, int] | None,
    snapshot: Snapshot | None,
    counts: Counts,
    latest: tuple[int, int],
    now_ns: int,
) -> Status:
    """Put together what is known. ``process`` is (pid, since when in ns) of the lock's holder,
    ``latest`` the journal's last arrival and last sending in ns.
    """
    deliveries = [
        Deliveries(broker, state.name.lower(), count, oldest)
        for (broker, state), (count, oldest) in sorted(counts.items())
    ]
    beat = snapshot["beat_ns"] if snapshot else None
    arrived, sent = latest
    if snapshot:
        # Arrivals that no pattern matches are not in the journal.
        arrived = max(arrived, snapshot["last_arrival_ns"])
        sent = max(sent, *(broker["last_sent_ns"] for broker in snapshot["brokers"].values()), 0)
    if process is None:
        return Status("inactive", None, None, beat, deliveries, arrived, sent, snapshot)
    pid, since = process
    # In a container the last run often had the same pid; from another one it is seen as 0.
    if snapshot and (pid not in (0, snapshot["pid"]) or snapshot["started_ns"] < since):
        # No word of this process yet: it is opening its journal, unless that takes too long.
        beat, snapshot = None, None
    if abs(now_ns - (beat or since)) > PATIENCE * 1e9:
        state = "hung"
    else:
        state = "active" if snapshot and snapshot["watching"] else "starting"
    return Status(state, pid, since, beat, deliveries, arrived, sent, snapshot)


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
        "troubles": [_with_since(trouble) for trouble in snapshot.get("troubles", [])],
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
            }
            for name, broker in brokers.items()
        },
        "moves": [
            {
                **{key: move[key] for key in ("source", "root", "waiting", "reason", "copies")},
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
    }


def _with_since(trouble: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in trouble.items() if key != "since_ns"}
    return {**rest, "since": _iso(trouble["since_ns"])}


def _iso(ns: int | None) -> str | None:
    return iso(ns) if ns else None
