"""The journal's part for deliveries that ended and go into the archive."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from watchman.journal import tallies
from watchman.journal.database import Database

_WINDOW = 2000
"""Rows that are looked at for one page: among those that wait there may be few that ended."""

_COUNTED = f"""SELECT seq, state, noted_ns, coalesce(broker, ''), {tallies.IS_DISCARDED}, arrived_ns
    FROM deliveries"""  # noqa: S608 — our own words

Ended = tuple[int, int, int]
"""(seq, state, noted_ns) of a delivery that ended."""


class EndedDeliveries:
    """Reads and deletes rows by seq, a bounded number at a time."""

    _database: Database

    def ended(self) -> int:
        """Return how many deliveries that ended are in the journal."""
        query = "SELECT coalesce(sum(count), 0) FROM tallies WHERE state IN (3, 5, 6)"
        return int(self._database.reader.execute(query)[0][0])

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

    def reasons(self, seqs: Sequence[int]) -> dict[int, str]:
        """Return why deliveries are in their state, by seq, where that is known."""
        marks = ",".join("?" * len(seqs))
        query = f"SELECT seq, reason FROM deliveries WHERE seq IN ({marks})"  # noqa: S608 — see marks
        rows = self._database.reader.execute(query, seqs)
        return {int(seq): str(reason) for seq, reason in rows if reason is not None}

    def drop_archived(self, rows: Sequence[Ended]) -> None:
        """Delete those of these rows that are still as they were archived."""
        archived = set(rows)
        marks = ",".join("?" * len(rows))
        query = f"{_COUNTED} WHERE seq IN ({marks}) ORDER BY seq"

        def work(connection: sqlite3.Connection) -> None:
            found = connection.execute(query, [seq for seq, _, _ in rows]).fetchall()
            dropped = [
                tallies.Dropped(seq, tallies.TallyKey(broker, state, bool(discarded)), arrived_ns)
                for seq, state, noted_ns, broker, discarded, arrived_ns in found
                if (seq, state, noted_ns) in archived
            ]
            tallies.drop(connection, dropped)

        self._database.write(work)
