"""The table ``tallies``: how many deliveries are in each state, so that nobody has to count them.

It changes in the transaction in which a delivery does, and a row of it stays when nothing is left
to be counted: it tells when the last one was there. The oldest that waits or failed is the first
in a partial index; where many for other brokers come before it there, these are passed over: 0.2 to
0.5 s a million.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from watchman import clock
from watchman.journal import activity, counters
from watchman.journal.bundles import OF_BUNDLE
from watchman.model import DISCARDED, State

IS_DISCARDED = f"(state = {int(State.VANISHED)} AND coalesce(reason, '') GLOB '{DISCARDED}*')"
"""In SQL: whether a delivery counts as given up by somebody."""

TABLE = """
CREATE TABLE tallies (
    broker TEXT NOT NULL,
    state INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    count INTEGER NOT NULL,
    oldest_ns INTEGER NOT NULL,
    latest_ns INTEGER NOT NULL,
    PRIMARY KEY (broker, state, discarded)
) WITHOUT ROWID;
"""
RECOUNT = f"""
INSERT OR REPLACE INTO tallies SELECT coalesce(broker, ''), state, {IS_DISCARDED}, count(*),
    min(arrived_ns), max(noted_ns) FROM deliveries GROUP BY 1, 2, 3;
"""  # noqa: S608 — our own words and numbers
"""Counts all there is: for a journal that was made of another one."""

_ADD = """INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    oldest_ns = iif(count > 0, min(oldest_ns, excluded.oldest_ns), excluded.oldest_ns),
    count = count + excluded.count, latest_ns = excluded.latest_ns"""
_TAKE = """UPDATE tallies SET count = count - ?
    WHERE broker = ? AND state = ? AND discarded = ?"""
_DROP = """UPDATE tallies SET count = count - ?, oldest_ns = max(oldest_ns, ?)
    WHERE broker = ? AND state = ? AND discarded = ?"""
_GROUPS = """SELECT coalesce(broker, ''), state, count(*), min(arrived_ns) FROM deliveries
    WHERE seq IN ({marks}) GROUP BY 1, 2"""
_OLDEST_MOVING = """SELECT seq, arrived_ns FROM deliveries INDEXED BY deliveries_moving
    WHERE state = 1 AND move IS ? AND broker IS ? ORDER BY seq LIMIT 1"""
_ENDED = {
    int(state): state.name.lower()
    for state in (State.SENT, State.FAILED, State.VANISHED, State.MOVED)
}
"""What is counted for good, by the counter's name."""
_OLDEST_FREE = """SELECT seq, arrived_ns FROM deliveries INDEXED BY deliveries_ready
    WHERE state = 2 AND held = 0 AND broker IS ? ORDER BY seq LIMIT 1"""
_OLDEST_HELD = """SELECT seq, arrived_ns FROM deliveries INDEXED BY deliveries_held
    WHERE state = 2 AND held > 0 AND held = ? AND broker IS ? ORDER BY seq LIMIT 1"""
_OLDEST_OPEN = f"""SELECT seq, arrived_ns FROM deliveries {OF_BUNDLE} ORDER BY seq LIMIT 1"""  # noqa: S608 — our own words
_FIRST_OPEN = "SELECT bundle FROM open_batches WHERE broker = ? ORDER BY due_ns LIMIT 1"
_NEXT_HELD = """SELECT held, held IN (SELECT id FROM holds) FROM deliveries
    INDEXED BY deliveries_held WHERE state = 2 AND held > 0 AND held > ? ORDER BY held LIMIT 1"""
_WAITING = (State.MOVING, State.READY, State.FAILED)


class TallyKey(NamedTuple):
    """What is counted together."""

    broker: str
    """Empty for deliveries without a task."""
    state: int
    discarded: bool = False


class Leaving(NamedTuple):
    """Deliveries that are about to change their state."""

    key: TallyKey
    number: int
    oldest_ns: int
    """When the first of them arrived."""


def leaving(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[Leaving]:
    """Return what deliveries are counted as, within the transaction that changes them."""
    marks = ",".join("?" * len(seqs))
    rows = connection.execute(_GROUPS.format(marks=marks), seqs).fetchall()
    return [
        Leaving(TallyKey(broker, state), number, oldest) for broker, state, number, oldest in rows
    ]


def add(
    connection: sqlite3.Connection,
    key: TallyKey,
    number: int,
    oldest_ns: int,
    now_ns: int,
    *,
    recorded: bool = False,
) -> None:
    """Count deliveries that are in a state from ``now_ns`` on; ``recorded``: and are new."""
    connection.execute(_ADD, (*key, number, oldest_ns, now_ns))
    if recorded:
        counters.add(connection, {(counters.ARRIVED, key.broker, 0): number})
        activity.add(connection, now_ns, recorded=number)
    if key.state in _ENDED:
        name = counters.DISCARDED if key.discarded else _ENDED[key.state]
        counters.add(connection, {(name, key.broker, 0): number})
    if key.state == State.SENT:
        activity.add(connection, now_ns, sent=number)


def take(connection: sqlite3.Connection, key: TallyKey, number: int) -> None:
    """Count deliveries no longer that have left a state."""
    connection.execute(_TAKE, (number, *key))


def move(
    connection: sqlite3.Connection,
    key: TallyKey,
    number: int,
    state: State,
    reason: str,
    first: int,
    now_ns: int,
) -> None:
    """Count deliveries in their new state that were counted as ``key``; ``first`` is a seq."""
    query = "SELECT arrived_ns FROM deliveries WHERE seq = ?"
    (oldest_ns,) = connection.execute(query, (first,)).fetchone() or (now_ns,)
    change(connection, [Leaving(key, number, oldest_ns)], state, reason, now_ns)


def change(
    connection: sqlite3.Connection,
    groups: Iterable[Leaving],
    state: State,
    reason: str,
    now_ns: int,
) -> None:
    """Count what :func:`leaving` has returned in its new state, with the reason for it."""
    discarded = state is State.VANISHED and reason.startswith(DISCARDED)
    for key, number, oldest_ns in groups:
        if key.state != state:
            take(connection, key, number)
            add(connection, TallyKey(key.broker, int(state), discarded), number, oldest_ns, now_ns)


class Dropped(NamedTuple):
    """A delivery that is dropped."""

    seq: int
    key: TallyKey
    arrived_ns: int


def drop(connection: sqlite3.Connection, dropped: Sequence[Dropped]) -> None:
    """Delete deliveries, by seq, and count them no longer."""
    connection.executemany("DELETE FROM deliveries WHERE seq = ?", [row[:1] for row in dropped])
    latest = {row.key: row.arrived_ns for row in dropped}
    for key, number in Counter(row.key for row in dropped).items():
        connection.execute(_DROP, (number, latest[key], *key))


class Summary(NamedTuple):
    """All deliveries, counted. The broker is empty for those that are only moved."""

    counts: Mapping[tuple[str, State], tuple[int, int]]
    """By (broker, state): how many, and when the oldest arrived, in ns. Of finished ones it may be
    the time of one that has been dropped since."""
    discarded: Mapping[str, tuple[int, int]]
    """Those that somebody gave up, by broker; they are not among the others."""
    latest: tuple[int, int]
    """When the last one arrived, and when the last one was sent, in ns; 0 for never."""


def summary(connection: sqlite3.Connection) -> Summary:
    """Return the counts; however many deliveries there are, it takes as long.

    Raises ValueError, TypeError for what is no count.
    """
    counts: dict[tuple[str, State], tuple[int, int]] = {}
    discarded: dict[str, tuple[int, int]] = {}
    for broker, number, by_hand, count, oldest, _ in connection.execute(
        "SELECT * FROM tallies"
    ).fetchall():
        state = State(number)
        if not int(count) > 0:
            continue
        if by_hand:
            discarded[str(broker)] = (int(count), int(oldest))
        else:
            since = _oldest(connection, broker, state) if state in _WAITING else oldest
            counts[str(broker), state] = (int(count), int(since))
    last = connection.execute("SELECT arrived_ns FROM deliveries ORDER BY seq DESC LIMIT 1")
    (arrived,) = last.fetchone() or (0,)
    return Summary(counts, discarded, (int(arrived), last_sent(connection)))


def last_sent(connection: sqlite3.Connection) -> int:
    """Return when the last delivery was sent, in ns; 0 for never.

    Raises ValueError and TypeError for what is no time.
    """
    rows = connection.execute("SELECT latest_ns FROM tallies WHERE state = 3").fetchall()
    # A broker may have got nothing since the clock was set back.
    return clock.latest([int(one) for (one,) in rows], time.time_ns())


def _oldest(connection: sqlite3.Connection, broker: str, state: State) -> int:
    """Return when the oldest of those arrived that are in one of the states with an index."""
    if state is State.MOVING:
        # That index is sorted by MOVES entry. Without its name SQLite would take the whole table.
        moves = [(None,), *connection.execute("SELECT id FROM moves").fetchall()]
        rows = [connection.execute(_OLDEST_MOVING, (*move, broker or None)) for move in moves]
        _, arrived = min((row for found in rows for row in found), default=(0, 0))
        return int(arrived)
    if state is State.READY:
        return _oldest_ready(connection, broker or None)
    # The number stands in the text: SQLite must see that the index is about it.
    query = (
        f"SELECT arrived_ns FROM deliveries WHERE state = {int(state)} "  # noqa: S608 — a number
        "AND broker IS ? ORDER BY seq LIMIT 1"
    )
    (arrived,) = connection.execute(query, (broker or None,)).fetchone() or (0,)
    return int(arrived)


def _oldest_ready(connection: sqlite3.Connection, broker: str | None) -> int:
    """Return when the oldest arrived that is to be sent; that is held, where all are."""
    found = connection.execute(_OLDEST_FREE, (broker,)).fetchall()
    # Of bundles these are the leaders, which came first; an open batch has none yet.
    for bundle in connection.execute(_FIRST_OPEN, (broker,)).fetchall():
        found += connection.execute(_OLDEST_OPEN, bundle).fetchall()
    kept: list[tuple[int, int]] = []
    row = connection.execute(_NEXT_HELD, (0,)).fetchone()
    while row is not None:
        number, active = row
        of_it = connection.execute(_OLDEST_HELD, (number, broker)).fetchall()
        (kept if active else found).extend(of_it)
        row = connection.execute(_NEXT_HELD, (number,)).fetchone()
    _, arrived = min(found or kept, default=(0, 0))
    return int(arrived)
