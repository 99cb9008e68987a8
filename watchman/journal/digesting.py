"""The daemon's side of the digests: it makes them, one at a time."""

from __future__ import annotations

import sqlite3

from watchman.journal.database import Database
from watchman.journal.digests import BITS, digest, seqs

_READ = """SELECT source, final, task_id, deliveries.broker, task, arrived_ns FROM deliveries
    LEFT JOIN routes ON routes.id = deliveries.route WHERE seq BETWEEN ? AND ?"""
_FIRST_AND_LAST = "SELECT (SELECT min(seq) FROM deliveries), (SELECT max(seq) FROM deliveries)"


class Digests:
    """The table ``digests``. Blocks get their digests in turn, none is left out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next: int | None = None
        """The block whose turn it is; None while nobody has looked."""

    def step(self, last_seq: int) -> bool:
        """Make one, if all its seqs up to ``last_seq`` are given out; say whether to go on."""
        before = self._next
        if self._is_due(last_seq):
            self._next = self._database.write(_make)
        # Where only the archive has numbers, there is nothing to make one of.
        return self._is_due(last_seq) and self._next != before

    def _is_due(self, last_seq: int) -> bool:
        return self._next is None or self._next < last_seq >> BITS


def _make(connection: sqlite3.Connection) -> int:
    """Make the next one, within a transaction; return the block that comes after it."""
    first, last = connection.execute(_FIRST_AND_LAST).fetchone()
    if first is None:
        return 0
    # What is in the archive has indexes of its own.
    connection.execute("DELETE FROM digests WHERE block < ?", (first >> BITS,))
    (newest,) = connection.execute("SELECT max(block) FROM digests").fetchone()
    block: int = first >> BITS if newest is None else newest + 1
    # What is on disk counts: a transaction that is under way may come to nothing.
    if block < last >> BITS:
        rows = connection.execute(_READ, seqs(block))
        connection.execute("INSERT INTO digests VALUES (?, ?, ?, ?)", (block, *digest(rows)))
        block += 1
    return block
