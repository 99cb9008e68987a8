"""Connections to the journal's file: one that writes, and one to read for each thread.

What may come of any call, by what SQLite says:

===================================  =============================================================
busy, read-only, I/O error, full,    said once, tried again until it works
cannot open
a value or row that it does not      the row's own fault (:data:`ROW_ERRORS`): raised, so that the
take                                 caller leaves that row out
closed, or its file removed          JournalError: the thread ends, the pipeline is ending anyway
anything else                        JournalDamaged: a sound file does not say that. Every thread
                                     ends; the file is closed, checked, saved and opened again
===================================  =============================================================
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from watchman.errors import JournalDamaged, JournalError
from watchman.journal import repair, rescue, schema, soundness
from watchman.journal.opening import open_sound
from watchman.journal.write_retry import WriteRetry, can_be_cured, remedy
from watchman.soft_lock import soft_lock

T = TypeVar("T")
AnyRow = TypeVar("AnyRow")

ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)
"""What one row's values raise: a number beyond 64 bits, a text that is no UTF-8, one key twice."""
_STRANGE_MESSAGE = "SQLite's message about it is no UTF-8"
"""It quotes what it read off a broken page."""


class Rows(list[tuple[Any, ...]]):
    """The answer to a query, all of it."""

    def fetchone(self) -> Any:
        """Return the first row; None if there is none."""
        return self[0] if self else None

    def fetchall(self) -> Rows:
        """Return every row."""
        return self


class ReadConnection:
    """One thread's connection for reading, inside the daemon.

    An answer is read to its end at once: an error comes here and nowhere else, and no answer that
    is looked at slowly keeps the log from being merged.
    """

    def __init__(self, connection: sqlite3.Connection, database: Database) -> None:
        self._connection = connection
        self._database = database
        self._lock = threading.Lock()

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> Rows:
        """Return the rows of a query; where the disk fails, wait as who writes does.

        Raises JournalError.
        """
        try:
            return self._fetch(query, parameters)
        except sqlite3.Error as error:
            return self._database.insist(error, lambda: self._fetch(query, parameters))

    def _fetch(self, query: str, parameters: Sequence[Any]) -> Rows:
        with self._lock:
            try:
                return Rows(self._connection.execute(query, parameters).fetchall())
            except UnicodeDecodeError as error:
                raise soundness.Unsound(_STRANGE_MESSAGE) from error

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Return the answer to several queries, to be read to its end. Raises sqlite3.Error."""
        with self._lock:
            return question(self._connection)

    def close(self) -> None:
        """Close the connection, after the query that is under way."""
        with self._lock:
            self._connection.close()


class Database:
    """The file at ``path``, made with the journal's tables if it is missing.

    Readers never wait for the writer. A damaged file is set aside and begun anew with what can
    still be read of it (:mod:`watchman.journal.repair`). ``give_up()`` is asked whenever this has
    to wait: whether to stop. Raises JournalError where the file cannot be opened.
    """

    def __init__(self, path: str, give_up: Callable[[], bool]) -> None:
        self.path = path
        self.write_retry = WriteRetry(path)
        self.write_retry.give_up = give_up
        self.damage = ""
        """What a sound file would not have said; empty while nothing was."""
        self.on_damage: Callable[[], None] = lambda: None
        """Called when ``damage`` is found, by the thread that found it; must not wait."""
        # What waits for the disk in one transaction may be a query in the midst of it.
        self._lock = threading.RLock()
        self._local = threading.local()
        self.on_rollback: list[Callable[[], None]] = []
        """Called when a transaction failed: what was learnt in it is not true."""
        self._readers: dict[threading.Thread, ReadConnection] = {}
        self._closed = False
        self._opening = threading.Lock()
        """Held while a connection for reading is opened, or all are closed: none is left open."""
        self._shut_out: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        try:
            self._writer = open_sound(path, give_up)
            try:
                # By reading something the writer has made its log and the index of it.
                names = [path + suffix for suffix in soundness.SUFFIXES]
                self._files = {name: _identity(name) for name in names}
            except BaseException:
                self._writer.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"the journal {path} cannot be opened: {error}; check the directory's "
                "permissions and free space"
            ) from error

    @property
    def in_place(self) -> bool:
        """Whether the file is still there: somebody may have removed or replaced it."""
        try:
            return _identity(self.path) == self._files[self.path]
        except OSError:
            return True  # it cannot be told

    @property
    def reader(self) -> ReadConnection:
        """This thread's connection for reading. Raises JournalError if the file is gone."""
        try:
            return self._open_reader()
        except sqlite3.Error as error:
            return self.insist(error, self._open_reader)

    def _open_reader(self) -> ReadConnection:
        """Return this thread's connection for reading. Raises sqlite3.Error, JournalError."""
        reader: ReadConnection | None = getattr(self._local, "reader", None)
        if reader is not None:
            return reader
        with self._opening:
            # Each reload has new threads, and a connection is two descriptors.
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            if self._closed or not self.in_place:
                raise self._gone()
            reader = ReadConnection(schema.connect(self.path, read_only=True), self)
            self._local.reader = self._readers[threading.current_thread()] = reader
            return reader

    def read_once(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``question`` reads. Where that fails, raise JournalError and never wait."""
        try:
            return self._open_reader().ask(question)
        except sqlite3.Error as error:
            self._check_curable(error)
            raise JournalError(
                f"the journal {self.path} cannot be read: {error}; {remedy(error)}"
            ) from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction; what it did is on disk when this returns.

        Where the disk is full or fails, this waits until it works, and runs ``work`` again: it
        must change nothing but the database. Raises JournalError if told to give up meanwhile.
        """
        try:
            return self._write(work)
        except sqlite3.IntegrityError as error:
            self.found_damage(error)

    def write_each(
        self,
        rows: Sequence[AnyRow],
        work: Callable[[sqlite3.Connection, Sequence[AnyRow]], T],
        left_out: Callable[[AnyRow, Exception], None],
    ) -> list[T]:
        """Run ``work`` on all rows in one transaction, without those that SQLite does not take.

        Those are handed to ``left_out``. Rows come in their order; where one had to be left out,
        in several transactions. Return what ``work`` returned in each.
        """
        try:
            return [self._write(lambda connection: work(connection, rows))]
        except ROW_ERRORS as error:
            if len(rows) <= 1:
                for row in rows:
                    left_out(row, error)
                return []
            half = len(rows) // 2
            return self.write_each(rows[:half], work, left_out) + self.write_each(
                rows[half:], work, left_out
            )

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do as :meth:`write`; one of ROW_ERRORS, of which nothing is written, is raised."""
        with self._lock, self.write_retry:
            while True:
                if self._closed:
                    raise self._gone()
                if threading.current_thread() in self._shut_out:
                    raise JournalError("too late: somebody else does this by now")
                try:
                    return self._attempt(work)
                except ROW_ERRORS:
                    raise
                except UnicodeDecodeError:
                    self.found_damage(soundness.Unsound(_STRANGE_MESSAGE))
                except sqlite3.Error as error:
                    self._wait_after(error, "written")

    def insist(self, error: sqlite3.Error, attempt: Callable[[], T]) -> T:
        """Repeat what failed with ``error`` until it works. Raises JournalError."""
        with self._lock, self.write_retry:
            while True:
                self._wait_after(error, "read")
                try:
                    return attempt()
                except sqlite3.Error as again:
                    error = again

    def _check_curable(self, error: sqlite3.Error) -> None:
        """Raise JournalError for what another attempt cannot cure."""
        if self._closed:
            raise self._gone() from error
        if not can_be_cured(error):
            self.found_damage(error)

    def _wait_after(self, error: sqlite3.Error, what: str) -> None:
        self._check_curable(error)
        self.write_retry.wait_after(error, what)

    def found_damage(self, error: Exception) -> NoReturn:
        """Have the file closed and checked, for something that a sound one does not say."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if not self.damage:
            self.damage = reason
            certain = isinstance(error, sqlite3.Error) and soundness.is_damage(error)
            soundness.suspect(self.path, reason if certain else "")
            self.on_damage()
        raise JournalDamaged(f"the journal {self.path} is damaged: {reason}") from error

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            with soft_lock():
                result = work(self._writer)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                # SQLite may have rolled back by itself, and says so by an error.
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
            for forget in self.on_rollback:
                forget()
            raise
        return result

    def shut_out(self, thread: threading.Thread) -> None:
        """Let a thread write no more; what it is writing just now is done when this returns."""
        with self._lock:
            self._shut_out.add(thread)

    def suspect(self) -> None:
        """Have the file checked when it is opened next."""
        soundness.suspect(self.path)

    def close(self) -> None:
        """Close every connection, after what is just written or read; it cannot be used afterwards.

        Where its file was removed or replaced, all that was in it is written anew first; that waits
        as :meth:`write` does. Raises JournalError if it cannot be.
        """
        try:
            if not (self.in_place or self.damage):
                self._put_back()
        finally:
            self._closed = True  # who waits for the disk gives up
            with self._lock, self._opening:
                self._close_all()

    def _close_all(self) -> None:
        # A log that belongs to a damaged file is as it was left: it may be the sound part.
        with soundness.unmerged(self.path) if self.damage else contextlib.nullcontext():
            if self.damage:
                rescue.save_moved(self.path, self._writer)
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()
            self._writer.close()

    def _put_back(self) -> None:
        with self._lock, self.write_retry:
            # What is written from here on would not be in the new file.
            self._closed = True
            while True:
                try:
                    files = self._files.items()
                    left = [name for name, file in files if file and _identity(name) == file]
                    return repair.put_back(self.path, self._writer, left)
                except (sqlite3.Error, OSError) as error:
                    if isinstance(error, sqlite3.Error) and can_be_cured(error):
                        self.write_retry.wait_after(error, "written")
                        continue
                    raise JournalError(
                        f"{self._gone()}; a new one cannot be made: {error}"
                    ) from error

    def _gone(self) -> JournalError:
        if self.in_place:
            return JournalError(f"the journal {self.path} is closed")
        return JournalError(f"the journal {self.path} was removed or replaced while it was in use")


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells one file from all others; None if there is none. Raises OSError."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
