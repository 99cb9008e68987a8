"""Bringing a journal of an older version up to date, and saying how far that is.

Each step from one version to the next is one transaction: a process that is killed at any point
leaves the journal as the last step that was done, and the next start goes on from there. Nothing
but the schema, counts and what is under way is written, so the log stays small; what takes its
time is reading: 3,000,000 deliveries take 3.5 s from the page cache; from a disk, the time in which
it reads the file four times.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable

from watchman import queued_logging
from watchman.errors import JournalError
from watchman.journal import schema

log = logging.getLogger("watchman.journal")

_STEPS = {1: 43, 2: 3, 4: 7}
"""By the version that it starts from: how many steps SQLite takes for each delivery, about."""
_LOOK = 50_000
"""SQLite's steps between two looks at the clock and whether to stop: some ms."""
_QUIET = 1.0
"""Seconds for which the log's threads are not started: no process is forked from then on."""
_AGAIN = 5.0
"""Seconds between two lines of how far it is."""
_COUNT = """SELECT coalesce((SELECT max(seq) FROM deliveries) -
    (SELECT min(seq) FROM deliveries), 0) + 1"""
"""Not exact: counting would read the whole table."""


def migrate(
    path: str, connection: sqlite3.Connection, version: int, give_up: Callable[[], bool]
) -> None:
    """Bring the journal at ``path``, which is of an older version, up to date.

    ``give_up()`` is asked while it lasts: whether to stop. Raises JournalError then, and
    sqlite3.Error; the journal is as the last completed step left it.
    """
    log.info(
        "The journal %s is of an older watchman (schema %d) and is brought up to date (schema %d). "
        "With millions of deliveries that takes minutes; nothing is watched until then, and "
        "nothing is lost, also if it is stopped",
        path,
        version,
        schema.SCHEMA_VERSION,
    )
    progress = _MigrationProgress(path, connection, version, give_up)
    connection.set_progress_handler(progress.look, _LOOK)
    try:
        while version < schema.SCHEMA_VERSION:
            _step(connection, version)
            progress.has_done(version)
            version += 1
    except sqlite3.OperationalError as error:
        if progress.given_up:
            raise JournalError(
                f"stopped while the journal {path} was brought up to date; it is as it was, and "
                "the next start does it"
            ) from error
        raise
    finally:
        connection.set_progress_handler(None, _LOOK)
    log.info("The journal %s is up to date after %.0f s", path, progress.seconds)


def _step(connection: sqlite3.Connection, version: int) -> None:
    work, then = schema.MIGRATIONS[version], version + 1
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {work}; PRAGMA user_version = {then}; COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class _MigrationProgress:
    """Counts SQLite's steps, and says now and then how many of all they are."""

    def __init__(
        self, path: str, connection: sqlite3.Connection, version: int, give_up: Callable[[], bool]
    ) -> None:
        self._path = path
        self._give_up = give_up
        self.given_up = False
        (rows,) = connection.execute(_COUNT).fetchone()
        self._expected = {n: steps * int(rows) for n, steps in _STEPS.items() if n >= version}
        self._done = 0
        """Expected steps of the versions that are done."""
        self._version = version
        self._taken = 0
        self._begun = time.monotonic()
        self._due = self._begun + _AGAIN

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._begun

    def has_done(self, version: int) -> None:
        """Count the step from a version to the next as done."""
        self._done += self._expected.get(version, 0)
        self._version, self._taken = version + 1, 0

    def look(self) -> bool:
        """Be SQLite's progress handler: True stops the statement."""
        self._taken += _LOOK
        now = time.monotonic()
        if now >= self._begun + _QUIET:
            queued_logging.start()
        if now >= self._due:
            self._due = now + _AGAIN
            log.info(
                "The journal %s is brought up to date: about %d %% is done",
                self._path,
                self.percent,
            )
        self.given_up = self.given_up or self._give_up()
        return self.given_up

    @property
    def percent(self) -> int:
        """How much is done; 99 at the most, as the whole is an estimate."""
        taken = self._done + min(self._taken, self._expected.get(self._version, 0))
        return min(99, 100 * taken // max(1, sum(self._expected.values())))
