"""Connections to the journal's file: one that writes, and one to read for each thread."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

from watchman.errors import JournalError
from watchman.journal import damage, schema
from watchman.journal.patience import Patience
from watchman.turns import turn

T = TypeVar("T")


class Database:
    """The file at ``path``, made with the journal's tables if it is missing.

    Readers never wait for the writer. A damaged file is set aside and begun anew with what can
    still be read of it (:mod:`watchman.journal.damage`). Raises JournalError where the file
    cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.patience = Patience(path)
        self._lock = threading.Lock()
        self._local = threading.local()
        self.on_rollback: list[Callable[[], None]] = []
        """Called when a transaction failed: what was learnt in it is not true."""
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        try:
            self._writer = self._open()
            # By reading something the writer has made its log and the index of it.
            self._files = {path + suffix: _identity(path + suffix) for suffix in damage.SUFFIXES}
        except (sqlite3.Error, OSError) as error:
            self._close_connections()
            raise JournalError(
                f"the journal {path} cannot be opened: {error}; check the directory's "
                "permissions and free space"
            ) from error

    def _open(self) -> sqlite3.Connection:
        """Return the writing connection, to a sound file."""
        damage.finish(self.path)
        try:
            # The kernel's crash, not ours, damages files: but both leave the log behind, and a
            # check takes half a second for 300 MB.
            doubtful = damage.is_suspect(self.path)
            writer = self._connect()
            if doubtful:
                damage.check(writer)
            self._prepare(writer)
        except sqlite3.DatabaseError as error:
            if not damage.is_damage(error):
                raise
            self._close_connections()
            damage.replace(self.path, str(error))
            writer = self._connect()
            self._prepare(writer)
        damage.clear(self.path)
        # Who has to wait longer for another process is told so, and can still be stopped.
        writer.execute("PRAGMA busy_timeout = 2000")
        return writer

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = schema.connect(self.path, read_only=read_only)
        self._connections.append(connection)
        return connection

    def _prepare(self, writer: sqlite3.Connection) -> None:
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            schema.create(writer)
        elif version > schema.SCHEMA_VERSION:
            raise JournalError(
                f"the journal {self.path} has schema {version}, this watchman knows "
                f"{schema.SCHEMA_VERSION}; run the version of watchman that wrote it"
            )
        else:
            schema.migrate(writer, version)

    @property
    def in_place(self) -> bool:
        """Whether the file is still there: somebody may have removed or replaced it."""
        try:
            return _identity(self.path) == self._files[self.path]
        except OSError:
            return True  # it cannot be told

    @property
    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading. Raises JournalError if the file is gone."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            if not self.in_place:
                raise self._gone()
            connection = self._local.connection = self._connect(read_only=True)
        return connection

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction; what it did is on disk when this returns.

        Where the disk is full or fails, this waits until it works, and runs ``work`` again: it
        must change nothing but the database. Raises JournalError if told to give up meanwhile.
        """
        with self._lock, self.patience:
            while True:
                if self._closed:
                    raise self._gone()
                try:
                    return self._attempt(work)
                except sqlite3.OperationalError as error:
                    self.patience.wait_after(error)

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            with turn():
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

    def suspect(self) -> None:
        """Have the file checked when it is opened next."""
        damage.suspect(self.path)

    def close(self) -> None:
        """Close every connection; the database cannot be used afterwards.

        Where its file was removed or replaced, all that was in it is written anew first; that waits
        as :meth:`write` does. Raises JournalError if it cannot be.
        """
        try:
            if not self.in_place:
                self._put_back()
        finally:
            self._closed = True
            self._close_connections()

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _put_back(self) -> None:
        with self._lock, self.patience:
            # What is written from here on would not be in the new file.
            self._closed = True
            while True:
                try:
                    files = self._files.items()
                    left = [name for name, file in files if file and _identity(name) == file]
                    return damage.put_back(self.path, self._writer, left)
                except sqlite3.OperationalError as error:
                    self.patience.wait_after(error)
                except (sqlite3.Error, OSError) as error:
                    raise JournalError(
                        f"{self._gone()}; a new one cannot be made: {error}"
                    ) from error

    def _gone(self) -> JournalError:
        return JournalError(f"the journal {self.path} was removed or replaced while it was in use")


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells one file from all others; None if there is none. Raises OSError."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
