"""The table ``activity``: how many deliveries were recorded and sent in each minute of a day.

It is a ring: the slot of a minute is the one that it had a day ago. So each transaction changes one
row of it, however many deliveries it is about, and nothing has to be removed. Seqs would tell what
arrived when, but nothing sorted tells when something was sent.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

SLOTS = 1500
"""Minutes that are kept: a day, and what is under way of it."""
_MINUTE = 60_000_000_000

TABLE = """
CREATE TABLE activity (
    slot INTEGER PRIMARY KEY,
    minute INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    sent INTEGER NOT NULL
);
"""
_ADD = """INSERT INTO activity VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    recorded = iif(minute = excluded.minute, recorded, 0) + excluded.recorded,
    sent = iif(minute = excluded.minute, sent, 0) + excluded.sent,
    minute = excluded.minute"""


class Minute(NamedTuple):
    """What was done in one minute."""

    start_ns: int
    recorded: int
    """Arrivals that became deliveries."""
    sent: int


def add(connection: sqlite3.Connection, now_ns: int, *, recorded: int = 0, sent: int = 0) -> None:
    """Count deliveries within the transaction that records them or notes that they were sent."""
    minute = now_ns // _MINUTE
    connection.execute(_ADD, (minute % SLOTS, minute, recorded, sent))


def read(connection: sqlite3.Connection, now_ns: int) -> list[Minute]:
    """Return the minutes in which something was done, up to ``now_ns``, the oldest first.

    Raises ValueError and TypeError for what is no count.
    """
    last = now_ns // _MINUTE
    rows = connection.execute(
        "SELECT minute, recorded, sent FROM activity WHERE minute > ? AND minute <= ? "
        "ORDER BY minute",
        (last - SLOTS, last),
    ).fetchall()
    return [Minute(int(minute) * _MINUTE, int(new), int(sent)) for minute, new, sent in rows]
