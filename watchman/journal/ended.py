"""The journal's part for deliveries that ended and go into the archive."""

from __future__ import annotations

from collections.abc import Sequence

from watchman.journal.database import Database

_WINDOW = 2000
"""Rows that are looked at for one page: among those that wait there may be few that ended."""

Ended = tuple[int, int, int]
"""(seq, state, noted_ns) of a delivery that ended."""


class EndedDeliveries:
    """Reads and deletes rows by seq, a bounded number at a time."""

    _database: Database
    _next_seq: int

    def ended_at_most(self) -> int:
        """Return a number that is not less than that of the deliveries that ended."""
        first = self._database.reader.execute("SELECT min(seq) FROM deliveries")[0][0]
        return 0 if first is None else self._next_seq - int(first)

    def page_ended(self, after: int, last: int, limit: int) -> tuple[list[Ended], int]:
        """Return up to ``limit`` that ended behind ``after``, and behind what to go on.

        That is ``last`` when there are no more of them. A page may be empty, and not the last one.
        """
        reader = self._database.reader
        window = reader.execute(
            "SELECT seq FROM deliveries WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1 OFFSET ?",
            (after, last, _WINDOW - 1),
        ).fetchone()
        end = last if window is None else int(window[0])
        rows = reader.execute(
            "SELECT seq, state, noted_ns FROM deliveries WHERE seq > ? AND seq <= ? "
            "AND state IN (3, 5, 6) ORDER BY seq LIMIT ?",
            (after, end, limit),
        ).fetchall()
        return list(rows), rows[-1][0] if len(rows) == limit else end

    def drop_archived(self, rows: Sequence[Ended]) -> None:
        """Delete those of these rows that are still as they were archived."""
        self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM deliveries WHERE seq = ? AND state = ? AND noted_ns = ?", rows
            )
        )
