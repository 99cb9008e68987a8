"""What monitoring asks of the journal again and again: so nothing here grows with what is in it.

Each number comes from a row that is kept, or from one end of an index. The archive is not asked.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from watchman.journal import counters, soundness, tallies
from watchman.journal.bundles import OF_BUNDLE
from watchman.journal.held import holds, keeping
from watchman.model import HoldKind, State

_COUNTS = """SELECT broker, state, sum(count) FROM tallies WHERE state IN (1, 2, 4)
    GROUP BY broker, state"""
_OLDEST_READY = """SELECT arrived_ns FROM deliveries INDEXED BY deliveries_ready
    WHERE state = 2 AND held = 0 AND broker = ? ORDER BY seq LIMIT 1"""
# What a hold has kept that is gone bears its mark until a sender comes to it.
_OLDEST_RELEASED = """SELECT arrived_ns FROM deliveries INDEXED BY deliveries_held
    WHERE state = 2 AND held > 0 AND held = ? AND broker = ? ORDER BY seq LIMIT 1"""
# A batch has no leader until it is completed, which nobody does while its broker is down.
_OVERDUE = """SELECT bundle FROM open_batches WHERE broker = ? AND due_ns <= ?
    ORDER BY due_ns LIMIT 1"""
_OLDEST_OF_BATCH = f"SELECT arrived_ns FROM deliveries {OF_BUNDLE} ORDER BY seq LIMIT 1"  # noqa: S608 — our own words
_OLDEST_MOVING = """SELECT arrived_ns FROM deliveries INDEXED BY deliveries_moving
    WHERE state = 1 AND move IS ? ORDER BY seq LIMIT 1"""
_MOVES = "SELECT id, source, root FROM moves"
_LAST = "SELECT arrived_ns FROM deliveries ORDER BY seq DESC LIMIT 1"

OTHER_MOVES = ("", "")
"""Stands for the MOVES entry of deliveries of which it is not known."""


class Measures(NamedTuple):
    """The journal in numbers. Times are in ns since the epoch."""

    counts: Mapping[tuple[str, State], int]
    """How many are MOVING, READY or FAILED, by broker (empty: only moved) and state."""
    oldest_ready_ns: Mapping[str, int]
    """When the oldest arrived that waits for a broker, where any does. What is on hold is not."""
    held: Mapping[str, int]
    """How many tasks an operator holds, by broker; they are among those that are READY."""
    oldest_moving_ns: Mapping[tuple[str, str], int]
    """The same of those that wait to be moved, by MOVES entry: (source, root)."""
    counters: Mapping[counters.Key, int]
    """What has happened since the journal was begun."""
    last_arrival_ns: int
    last_sent_ns: int
    """0 for never."""


NONE = Measures({}, {}, {}, {}, {}, 0, 0)
"""Of a journal that is not there, or cannot be read."""


def measures(connection: sqlite3.Connection) -> Measures:
    """Return the numbers of one moment. Raises sqlite3.Error, also for what is no number."""
    with soundness.understanding("a number"):
        return _measures(connection)


def _measures(connection: sqlite3.Connection) -> Measures:
    connection.execute("BEGIN")
    try:
        counts = {
            (str(broker), State(state)): int(count)
            for broker, state, count in connection.execute(_COUNTS).fetchall()
        }
        (arrived,) = connection.execute(_LAST).fetchone() or (0,)
        found = holds(connection)
        on_hold = {one.hold.name for one in found if one.hold.kind is HoldKind.BROKER}
        held: Counter[str] = Counter()
        for kind, one in ((hold.hold.kind, row) for hold in found for row in hold.held):
            # What is for a broker that is held is counted once, whatever else keeps a part of it.
            if kind is HoldKind.BROKER or one.broker not in on_hold:
                held[one.broker] += one.number
        return Measures(
            counts,
            _oldest_ready(connection, counts, on_hold, {one.hold.id for one in found}),
            held,
            _oldest_moving(connection),
            counters.read(connection),
            int(arrived),
            tallies.last_sent(connection),
        )
    finally:
        connection.execute("ROLLBACK")


def _oldest_ready(
    connection: sqlite3.Connection,
    counts: Mapping[tuple[str, State], int],
    on_hold: set[str],
    active: set[int],
) -> dict[str, int]:
    waiting = {broker for (broker, state), n in counts.items() if state is State.READY and n}
    waiting -= on_hold
    released = [number for number in keeping(connection.execute) if number not in active]
    found = {}
    for broker in waiting:
        rows = connection.execute(_OLDEST_READY, (broker,)).fetchall()
        for number in released:
            rows += connection.execute(_OLDEST_RELEASED, (number, broker)).fetchall()
        for batch in connection.execute(_OVERDUE, (broker, time.time_ns())).fetchall():
            rows += connection.execute(_OLDEST_OF_BATCH, batch).fetchall()
        if rows:
            found[broker] = min(int(arrived) for (arrived,) in rows)
    return found


def _oldest_moving(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    moves = {
        number: (os.fsdecode(source), os.fsdecode(root))
        for number, source, root in connection.execute(_MOVES).fetchall()
    }
    found = {}
    for number, move in {None: OTHER_MOVES, **moves}.items():
        row = connection.execute(_OLDEST_MOVING, (number,)).fetchone()
        if row:
            found[move] = int(row[0])
    return found
