"""Reading the journal from outside the daemon, without changing a byte."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from watchman.errors import JournalError
from watchman.journal import schema, soundness
from watchman.journal.tallies import Summary
from watchman.journal.totals import summary
from watchman.model import Noted, State, Version


@contextlib.contextmanager
def reading(state_dir: str) -> Iterator[Reading]:
    """Open the journal for reading; one that is not there yet reads as empty.

    Raises JournalError where it cannot be read.
    """
    path = os.path.join(state_dir, "journal.db")
    try:
        with soundness.understanding("what it says of itself"):
            connection = _connect(path)
        try:
            yield Reading(connection, state_dir)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise unusable(path, error, "read") from error
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be read: {error.strerror}; try it as the user that "
            "watchman runs as"
        ) from error


def unusable(path: str, error: sqlite3.Error, what: str) -> JournalError:
    """Return what is to be said where the journal cannot be "read" or "written"."""
    if not soundness.is_damage(error):
        return JournalError(
            f"the journal {path} cannot be {what}: {error}; try it as the user that watchman runs "
            "as, and check the free space"
        )
    if not isinstance(error, soundness.Lost):
        # Where this user may not write there, it is found only by who reads the broken part.
        soundness.suspect(path, str(error))
    return JournalError(
        f"the journal {path} is damaged ({error}): 'notify restart' has a new one begun with what "
        "can be read of it, and keeps the old one; then try this again"
    )


def _nothing() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    return connection


def _connect(path: str) -> sqlite3.Connection:
    soundness.check_presence(path)
    try:
        if not os.stat(path).st_size:
            return _nothing()
    except (FileNotFoundError, NotADirectoryError):
        return _nothing()
    # Without a log beside it nobody has the journal open and the file alone is whole. Opened in
    # the usual way, even for reading, SQLite would make one, and leave it behind.
    # (https://www.sqlite.org/wal.html#read_only_databases)
    idle = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=ro{idle}", uri=True, isolation_level=None, timeout=60
    )
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            soundness.check_blank(path, connection)
            connection.close()
            return _nothing()  # a daemon is just making it
        soundness.check_version(version)
        if version == schema.SCHEMA_VERSION:
            soundness.check_tables(connection)
        else:
            raise JournalError(
                f"the journal {path} has schema {version}, this watchman knows "
                f"{schema.SCHEMA_VERSION}; use the version of watchman that wrote it"
            )
    except BaseException:
        connection.close()
        raise
    return connection


class Reading:
    """The journal, opened for reading."""

    def __init__(self, connection: sqlite3.Connection, state_dir: str) -> None:
        self.connection = connection
        self.state_dir = state_dir

    def summary(self) -> Summary:
        """Count the deliveries, those in the archive too."""
        with soundness.understanding("a count of deliveries"):
            return summary(self.connection, self.state_dir)

    def counts(self) -> Mapping[tuple[str, State], tuple[int, int]]:
        """Return ``summary().counts``."""
        return self.summary().counts

    def known(self, directory: str) -> dict[str, Version]:
        """Return the known version of every name in the directory at a path."""
        rows = self.connection.execute(
            "SELECT name, device, inode, size, mtime_ns, changed_ns FROM known "
            "WHERE directory = (SELECT id FROM directories WHERE path = ?)",
            (os.fsencode(directory.rstrip("/")),),
        )
        with soundness.understanding("a known version"):
            return {os.fsdecode(name): Version(*map(int, version)) for name, *version in rows}

    def is_announced(self, path: str) -> bool:
        """Say whether what is known at a path is or was a delivery, and not only noted."""
        number = self._number(path)
        return number is not None and number > 0

    def noted(self, path: str) -> Noted | None:
        """Return why what is known at a path has no delivery; None if it has, or is not known."""
        number = self._number(path)
        if number is None or number > 0:
            return None
        return Noted(number) if number in list(Noted) else Noted.UNKNOWN

    def _number(self, path: str) -> int | None:
        directory, _, name = path.rpartition("/")
        row = self.connection.execute(
            "SELECT seq FROM known WHERE name = ? "
            "AND directory = (SELECT id FROM directories WHERE path = ?)",
            (os.fsencode(name), os.fsencode(directory)),
        ).fetchone()
        with soundness.understanding("a known version"):
            return None if row is None else int(row[0])

    def first_runs(self, paths: Iterable[str]) -> set[str]:
        """Return those watch roots that no run has scanned to the end yet."""
        rows = self.connection.execute("SELECT path FROM watches WHERE first_run_ns > 0").fetchall()
        with soundness.understanding("a watch"):
            return set(paths) - {os.fsdecode(path) for (path,) in rows}
