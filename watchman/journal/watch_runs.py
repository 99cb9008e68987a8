"""The table ``watches``: on which watch roots a run has seen all that was there."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable

from watchman.journal.database import Database
from watchman.journal.rescue import EVERY_WATCH


class WatchRuns:
    """The journal's part for first runs, by the paths of watch roots."""

    _database: Database

    def first_runs(self, paths: Iterable[str]) -> set[str]:
        """Return those watch roots that no run has scanned to the end yet."""
        rows = self._database.reader.execute(
            "SELECT path FROM watches WHERE first_run_ns > 0 AND typeof(path) = 'blob'"
        )
        return set(paths) - {os.fsdecode(path) for (path,) in rows.fetchall()}

    def begin_first_runs(self, paths: Iterable[str], now_ns: int) -> dict[str, int]:
        """Return when the first run began on each of these roots: now, unless one was cut short.

        What came after that moment is an arrival, also where the run that should have seen it
        was killed before its first scan was over.
        """
        rows = [(os.fsencode(path), -now_ns) for path in paths]
        if not rows:
            return {}
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO watches VALUES (?,?)", rows
            )
        )
        query = "SELECT first_run_ns FROM watches WHERE path = ?"
        reader = self._database.reader
        begun = [(path, *reader.execute(query, (path,))[0]) for path, _ in rows]
        return {os.fsdecode(path): -negative for path, negative in begun}

    def note_first_run(self, paths: Iterable[str]) -> None:
        """Note that the first run on these watch roots has seen all that was there."""
        now = time.time_ns()
        rows = [(os.fsencode(path), now) for path in paths]
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO watches VALUES (?,?)", rows
            )
        )

    def resume(self, paths: Iterable[str]) -> None:
        """Begin a run on these watch roots; to be called before :meth:`first_runs`.

        In a journal that was begun anew after damage no root's run counts as the first: what is
        there and not known may have come at any time, and is to be sent rather than lost.
        """
        query = "SELECT first_run_ns FROM watches WHERE path = ?"
        row = self._database.reader.execute(query, (EVERY_WATCH,)).fetchone()
        if row is None:
            return
        rows = [(os.fsencode(path), abs(row[0])) for path in paths]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO watches VALUES (?,?)", rows)
            connection.execute("DELETE FROM watches WHERE path = ?", (EVERY_WATCH,))

        self._database.write(work)
