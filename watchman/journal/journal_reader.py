"""Reading the journal from outside the daemon, without changing a byte."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

from watchman.errors import JournalError, TimeLimitOver
from watchman.journal import activity, bundles, partial, schema, soundness, totals, uploads
from watchman.journal.activity import Minute
from watchman.journal.bundles import Membership
from watchman.journal.held import HoldCounts, holds
from watchman.journal.measures import Measures, measures
from watchman.journal.partial import PartialFile
from watchman.journal.question import Question
from watchman.journal.runs import Runs
from watchman.journal.tallies import Summary
from watchman.journal.time_limit import FOREVER, TimeLimit
from watchman.model import INCOMPLETE, Noted, State, Upload, Version


@contextlib.contextmanager
def open_reader(state_dir: str, limit: TimeLimit = FOREVER) -> Iterator[JournalReader]:
    """Open the journal for reading; one that is not there yet reads as empty.

    Raises JournalError where it cannot be read, TimeLimitOver where that takes too long.
    """
    path = os.path.join(state_dir, "journal.db")
    found = _FoundFile(path)
    try:
        with soundness.understanding("what it says of itself"):
            connection = _connect(path, idle=not found.has_log)
        try:
            limit.hold(connection)
            yield JournalReader(connection, state_dir, limit)
        finally:
            connection.close()
        if found.is_torn:
            raise _written(path)
    except sqlite3.Error as error:
        if limit.is_over:
            raise TimeLimitOver(
                f"this takes more than {limit.seconds:g} s: ask for less, such as one directory or "
                "one day"
            ) from error
        if found.is_torn or found.is_replaced:
            raise _written(path) from error
        raise unusable(path, error, "read") from error
    except BrokenPipeError:
        raise  # whoever read what is printed meanwhile has gone
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be read: {error.strerror}; try it as the user that "
            "watchman runs as"
        ) from error


class _FoundFile:
    """The journal's file as it was found, to tell later what is to be thought of an answer.

    Without a log beside it nobody has the journal open and the file alone is whole. SQLite takes
    no lock then, and nobody who begins to write waits for whoever reads.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Before the look for the log: whatever is merged later than that shows.
        self._found = _status(path)
        self.has_log = os.path.exists(f"{path}-wal")

    @property
    def is_torn(self) -> bool:
        """Whether what was read may be of several moments."""
        return not self.has_log and self._changed(lambda one: (one.st_size, one.st_mtime_ns))

    @property
    def is_replaced(self) -> bool:
        """Whether it is another file by now, of which what was read says nothing."""
        return self._changed(lambda one: (one.st_dev, one.st_ino))

    def _changed(self, part: Callable[[os.stat_result], tuple[int, int]]) -> bool:
        found, now = self._found, _status(self._path)
        if found is None or not found.st_size:
            return False  # nothing was read of it
        return now is None or part(now) != part(found)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _written(path: str) -> JournalError:
    return JournalError(
        f"the journal {path} was written while it was read: watchman was started meanwhile, or a "
        "command changed something; ask again"
    )


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


def _connect(path: str, *, idle: bool) -> sqlite3.Connection:
    soundness.check_presence(path)
    try:
        if not os.stat(path).st_size:
            return _nothing()
    except (FileNotFoundError, NotADirectoryError):
        return _nothing()
    readable = idle or os.path.exists(f"{path}-shm") or os.access(os.path.dirname(path), os.W_OK)
    if not readable:
        raise JournalError(
            f"the journal {path} cannot be read: {path}-shm is missing, and cannot be made here; "
            "start watchman, or ask where STATE_DIR can be written"
        )
    # Opened in the usual way, even for reading, SQLite would make a log, and leave it behind.
    # (https://www.sqlite.org/wal.html#read_only_databases)
    alone = "&immutable=1" if idle else ""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro{alone}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            soundness.check_blank(path, connection)
            connection.close()
            return _nothing()  # a daemon is just making it
        soundness.check_version(version)
        if version == schema.SCHEMA_VERSION:
            soundness.check_tables(connection)
        elif version < schema.SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} is of an older watchman (schema {version}) and is brought up "
                "to date when this one starts, which its log tells of; try again after that"
            )
        else:
            raise JournalError(
                f"the journal {path} has schema {version}, this watchman knows "
                f"{schema.SCHEMA_VERSION}; use the version of watchman that wrote it"
            )
    except BaseException:
        connection.close()
        raise
    return connection


class JournalReader:
    """The journal, opened for reading."""

    def __init__(self, connection: sqlite3.Connection, state_dir: str, limit: TimeLimit) -> None:
        self.connection = connection
        self.state_dir = state_dir
        self.limit = limit

    def summary(self) -> Summary:
        """Count the deliveries, those in the archive too."""
        with soundness.understanding("a count of deliveries"):
            return totals.summary(self.connection, self.state_dir)

    def count(self, question: Question) -> int | None:
        """Return how many deliveries are meant, where the counts tell; None where they do not."""
        with soundness.understanding("a count of deliveries"):
            return totals.count(self.connection, self.state_dir, question)

    def activity(self, now_ns: int) -> list[Minute]:
        """Return what was recorded and sent in each minute of the last day, the oldest first."""
        with soundness.understanding("what was done in a minute"):
            return activity.read(self.connection, now_ns)

    def holds(self) -> list[HoldCounts]:
        """Return the holds of now, the oldest first, with what they keep."""
        # A sender marks meanwhile: nothing is to be counted twice, or not at all.
        self.connection.execute("BEGIN")
        try:
            return holds(self.connection)
        finally:
            self.connection.execute("ROLLBACK")

    def measures(self) -> Measures:
        """Return what monitoring asks for, at a price that does not grow."""
        return measures(self.connection)

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

    def memberships(self, seqs: Sequence[int]) -> dict[int, Membership]:
        """Return how deliveries are announced together with others, by seq."""
        with soundness.understanding("a bundle"):
            return bundles.memberships(self.connection, seqs)

    def under_way_as(self, task_id: str, most: int) -> list[int]:
        """Return the deliveries, ``most`` of them, that a task with an id will announce."""
        with soundness.understanding("a bundle"):
            return bundles.under_way_as(self.connection, task_id, most)

    def uploads(self, seqs: Sequence[int]) -> dict[int, Upload]:
        """Return what transfer logs tell of the uploads that deliveries came by, by seq."""
        with soundness.understanding("an upload"):
            return uploads.read(self.connection, seqs)

    def partial(self, path: str) -> PartialFile | None:
        """Return what is remembered of a file that waits for its criteria; None for most.

        It means nothing where the file is another by now, or known.
        """
        return partial.at(self.connection, path)

    def incomplete(self, seqs: Sequence[int]) -> dict[int, str]:
        """Return which deliveries are of files that were not whole in time, and why not."""
        marks = ",".join("?" * len(seqs))
        query = f"SELECT seq, coalesce(told, reason) FROM deliveries WHERE seq IN ({marks})"  # noqa: S608 — question marks
        rows = self.connection.execute(query, tuple(seqs)).fetchall()
        with soundness.understanding("what was told of a file"):
            told = {int(seq): str(text) for seq, text in rows if text is not None}
        return {
            seq: text.removeprefix(INCOMPLETE)
            for seq, text in told.items()
            if text.startswith(INCOMPLETE)
        }

    def partial_with_name(self, name: str, most: int) -> list[PartialFile]:
        """Return files with a name that wait for their criteria."""
        return partial.named(self.connection, name, most)

    def known_version(self, directory: str, name: str) -> Version | None:
        """Return the known version of a name in a directory; None if it is not known."""
        row = self._known_row("device, inode, size, mtime_ns, changed_ns", directory, name)
        return None if row is None else Version(*row)

    def directories(self, most: int) -> list[str]:
        """Return the directories in which anything is or was known, the newest first."""
        rows = self.connection.execute(
            "SELECT path FROM directories ORDER BY id DESC LIMIT ?", (most,)
        ).fetchall()
        with soundness.understanding("a directory"):
            return [os.fsdecode(path) for (path,) in rows]

    def with_name(self, name: str, most: int) -> list[str]:
        """Return the known paths with a name, in the ``most`` newest directories."""
        # CROSS JOIN: a look into each directory, and never a walk through all that is known.
        rows = self.connection.execute(
            "SELECT path FROM (SELECT id, path FROM directories ORDER BY id DESC LIMIT ?) "
            "CROSS JOIN known ON directory = id AND name = ?",
            (most, os.fsencode(name)),
        ).fetchall()
        with soundness.understanding("a directory"):
            return [f"{os.fsdecode(path)}/{name}" for (path,) in rows]

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
        row = self._known_row("seq", directory, name)
        return None if row is None else row[0]

    def _known_row(self, columns: str, directory: str, name: str) -> tuple[int, ...] | None:
        """Return what is known of a name in a directory; None where it is not known."""
        row = self.connection.execute(
            f"SELECT {columns} FROM known WHERE name = ? "  # noqa: S608 — our own words
            "AND directory = (SELECT id FROM directories WHERE path = ?)",
            (os.fsencode(name), os.fsencode(directory)),
        ).fetchone()
        with soundness.understanding("a known version"):
            return None if row is None else tuple(map(int, row))

    def runs(self) -> Runs:
        """Return the runs that have seen, or begun to see, what was there before them."""
        rows = self.connection.execute("SELECT path, first_run_ns FROM watches").fetchall()
        with soundness.understanding("a watch"):
            return Runs({os.fsdecode(name): int(time_ns) for name, time_ns in rows})
