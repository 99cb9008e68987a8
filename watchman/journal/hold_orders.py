"""Ordering holds, and releasing them: what commands do, with or without a daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from watchman.journal.held import ALL, HoldCounts, holds, read_hold
from watchman.journal.operator_writes import writing
from watchman.model import Hold, HoldKind

Named = tuple[HoldKind, str]
"""What a hold is for."""


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

    Raises JournalError as :func:`hold`.
    """
    named = None if wanted is None else set(wanted)
    with writing(state_dir) as connection:
        connection.execute("BEGIN IMMEDIATE")
        gone = [
            one
            for one in holds(connection)
            if named is None or (one.hold.kind, one.hold.name) in named
        ]
        numbers = [(one.hold.id,) for one in gone]
        connection.executemany("DELETE FROM holds WHERE id = ?", numbers)
        connection.executemany("DELETE FROM held WHERE hold = ?", numbers)
        connection.execute("COMMIT")
        return gone
