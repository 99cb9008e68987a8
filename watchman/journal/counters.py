"""The table ``counters``: what has happened since the journal was begun, for those who monitor it.

Nothing in it is ever counted down. It changes in the transaction in which the thing itself is
recorded, and so survives whatever that survives; of a damaged journal, what can be read of it. That
costs some 20 µs for a file that comes alone, and half a dozen rows for a burst's page of 2,000.
"""

from __future__ import annotations

import bisect
import sqlite3
from collections import Counter
from collections.abc import Mapping

ARRIVED, UNMATCHED, DISCARDED = "arrived", "unmatched", "discarded"
INCOMPLETE = "incomplete"
"""Names of counters; the others are those of the states in which a delivery ends."""
LATENCY, LATENCY_SUM = "latency", "latency_us"
"""How many took how long from arrival to the broker's answer, by bound; and all of it, in µs."""

BOUNDS_MS = (
    *(5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000),
    *(60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000),
)
"""Up to how many ms each bucket of the latency reaches."""
BEYOND = 0
"""The bound of what took longer than all of them."""

TABLE = """
CREATE TABLE counters (
    name TEXT NOT NULL,
    broker TEXT NOT NULL,
    bound INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (name, broker, bound)
) WITHOUT ROWID;
"""
_ADD = """INSERT INTO counters VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET count = count + excluded.count"""

Key = tuple[str, str, int]
"""(name, broker, bound); the broker is empty where there is none, the bound 0 but for latencies."""


def add(connection: sqlite3.Connection, counts: Mapping[Key, int]) -> None:
    """Count what happened, within a transaction."""
    rows = [(*key, count) for key, count in counts.items() if count]
    if rows:
        connection.executemany(_ADD, rows)


def latencies(broker: str, arrived: Mapping[int, int], now_ns: int) -> dict[Key, int]:
    """Return how long deliveries have taken up to now: by time of arrival in ns, how many."""
    found: Counter[Key] = Counter()
    for arrived_ns, number in arrived.items():
        # A clock that was set back says nothing.
        taken_ns = max(0, now_ns - arrived_ns)
        place = bisect.bisect_left(BOUNDS_MS, taken_ns / 1e6)
        bound = BOUNDS_MS[place] if place < len(BOUNDS_MS) else BEYOND
        found[LATENCY, broker, bound] += number
        found[LATENCY_SUM, broker, 0] += number * taken_ns // 1000
    return dict(found)


def read(connection: sqlite3.Connection) -> dict[Key, int]:
    """Return all counters. Raises ValueError, TypeError for what is none."""
    rows = connection.execute("SELECT name, broker, bound, count FROM counters").fetchall()
    return {(str(name), str(broker), int(bound)): int(count) for name, broker, bound, count in rows}
