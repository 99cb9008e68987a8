"""Ordering holds, and releasing them: what commands do, with or without a daemon."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator

from watchman.journal.failed_deliveries import writing
from watchman.journal.held import ALL, Held, HoldCounts, holds, read_hold
from watchman.journal.question import behind
from watchman.model import Hold, HoldKind

Named = tuple[HoldKind, str]
"""What a hold is for."""
LOOKED_AT = 5000
"""Ready deliveries of each broker, the newest, that are looked at for what no sender has come to:
some ms, for which the daemon waits."""
_BROKERS = "SELECT DISTINCT broker FROM tallies WHERE state = 2 AND count AND broker <> ''"
_FRESH = """SELECT count(*), coalesce(min(arrived_ns), 0) FROM (
    SELECT source, final, route, arrived_ns FROM deliveries INDEXED BY deliveries_ready
    WHERE state = 2 AND held = 0 AND broker = ? ORDER BY seq DESC LIMIT ?
) LEFT JOIN routes ON routes.id = route WHERE """
_OF_TASK = "task = ?"
_OF_DIRECTORY = "(source >= ? AND source < ?) OR (final >= ? AND final < ?)"


def hold(state_dir: str, wanted: Iterable[Named], by: str) -> list[Hold]:
    """Order a hold of each that is not held yet, and return those; durable when it returns.

    Raises JournalError where the journal cannot be written, or there is none yet.
    """
    now = time.time_ns()
    rows = [(kind.value, os.fsencode(name), now, by) for kind, name in wanted]
    insert = "INSERT OR IGNORE INTO holds (kind, name, since_ns, by) VALUES (?, ?, ?, ?)"
    with writing(state_dir) as connection:
        connection.execute("BEGIN IMMEDIATE")
        new = {row[:2] for row in rows if connection.execute(insert, row).rowcount}
        connection.execute("COMMIT")
        found = map(read_hold, connection.execute(ALL).fetchall())
        return [one for one in found if (one.kind.value, os.fsencode(one.name)) in new]


def release(state_dir: str, wanted: Iterable[Named] | None) -> list[HoldCounts]:
    """Release holds, all for None, and return those that there were with what they kept.

    What no sender has come to yet is counted too, of the newest that wait.
    Raises JournalError as :func:`hold`.
    """
    named = None if wanted is None else set(wanted)
    with writing(state_dir) as connection:
        connection.execute("BEGIN IMMEDIATE")
        gone = [
            one._replace(held=(*one.held, *_fresh(connection, one.hold)))
            for one in holds(connection)
            if named is None or (one.hold.kind, one.hold.name) in named
        ]
        numbers = [(one.hold.id,) for one in gone]
        connection.executemany("DELETE FROM holds WHERE id = ?", numbers)
        connection.executemany("DELETE FROM held WHERE hold = ?", numbers)
        connection.execute("COMMIT")
        return gone


def _fresh(connection: sqlite3.Connection, one: Hold) -> Iterator[Held]:
    """Yield what a hold means and no sender has marked yet, say since it was resent just now."""
    if one.kind is HoldKind.BROKER:
        return  # all that is ready for it is counted
    values: list[object]
    if one.kind is HoldKind.TASK:
        condition, values = _OF_TASK, [one.name]
    else:
        below = os.fsencode(one.name).rstrip(b"/") + b"/"
        condition, values = _OF_DIRECTORY, [below, behind(below)] * 2
    for (broker,) in connection.execute(_BROKERS).fetchall():
        query = _FRESH + condition
        number, oldest_ns = connection.execute(query, (broker, LOOKED_AT, *values)).fetchone()
        if number:
            yield Held(broker, number, oldest_ns)
