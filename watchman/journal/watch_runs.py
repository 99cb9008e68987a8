"""The table ``watches``: which runs have seen all that was there (``runs`` names them)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable

from watchman.journal.database import Database
from watchman.journal.rescue import EVERY_WATCH
from watchman.journal.runs import Runs, run_of
from watchman.model import Watch


class WatchRuns:
    """The journal's part for first runs, by their names."""

    _database: Database

    def runs(self) -> Runs:
        """Return all runs as they are now."""
        return Runs(self._times())

    def name_runs(self, watches: Iterable[Watch]) -> None:
        """Have what older versions noted for the paths of these watches mean what they cover.

        To be called before the others. It was the path alone; what that run has covered, nobody
        knows better than by what the watch is now.
        """
        times = self._times()
        found = [(run_of(watch), watch.path) for watch in watches if watch.path in times]
        if not found:
            return
        rows = [(os.fsencode(name), times[path]) for name, path in found]
        paths = [(os.fsencode(path),) for _, path in found]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR IGNORE INTO watches VALUES (?,?)", rows)
            connection.executemany("DELETE FROM watches WHERE path = ?", paths)

        self._database.write(work)

    def _times(self) -> dict[str, int]:
        rows = self._database.reader.execute(
            "SELECT path, first_run_ns FROM watches WHERE typeof(path) = 'blob'"
        )
        return {os.fsdecode(name): time_ns for name, time_ns in rows.fetchall()}

    def first_runs(self, names: Iterable[str]) -> set[str]:
        """Return those runs that have not seen to the end what was there."""
        over = {name for name, time_ns in self._times().items() if time_ns > 0}
        return set(names) - over

    def begin_first_runs(self, names: Iterable[str], now_ns: int) -> dict[str, int]:
        """Return when each of these first runs began: now, unless one was cut short.

        What came after that moment is an arrival, also where the run that should have seen it
        was killed before its first scan was over.
        """
        rows = [(os.fsencode(name), -now_ns) for name in names]
        if not rows:
            return {}
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO watches VALUES (?,?)", rows
            )
        )
        query = "SELECT first_run_ns FROM watches WHERE path = ?"
        reader = self._database.reader
        begun = [(name, *reader.execute(query, (name,))[0]) for name, _ in rows]
        return {os.fsdecode(name): -negative for name, negative in begun}

    def note_first_run(self, names: Iterable[str]) -> None:
        """Note that these first runs have seen all that was there."""
        now = time.time_ns()
        rows = [(os.fsencode(name), now) for name in names]
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO watches VALUES (?,?)", rows
            )
        )

    def resume(self, names: Iterable[str]) -> None:
        """Begin these runs; to be called before :meth:`first_runs`.

        In a journal that was begun anew after damage none of them counts as the first: what is
        there and not known may have come at any time, and is to be sent rather than lost.
        """
        query = "SELECT first_run_ns FROM watches WHERE path = ?"
        row = self._database.reader.execute(query, (EVERY_WATCH,)).fetchone()
        if row is None:
            return
        rows = [(os.fsencode(name), abs(row[0])) for name in names]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO watches VALUES (?,?)", rows)
            connection.execute("DELETE FROM watches WHERE path = ?", (EVERY_WATCH,))

        self._database.write(work)
