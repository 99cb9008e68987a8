"""Connections to the journal's file: one that writes, and one to read for each thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator

from watchman.errors import JournalError
from watchman.journal import schema


class Database:
    """The file at ``path``, made with the journal's tables if it is missing.

    Readers never wait for the writer. Raises JournalError where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._local = threading.local()
        self.on_rollback: list[Callable[[], None]] = []
        """Called when a transaction failed: what was learnt in it is not true."""
        self._connections: list[sqlite3.Connection] = []
        try:
            self._writer = self._connect()
            self._prepare()
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {path} cannot be opened: {error}; check the directory's "
                "permissions and free space"
            ) from error

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = schema.connect(self.path, read_only=read_only)
        self._connections.append(connection)
        return connection

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            schema.create(self._writer)
        elif version != schema.SCHEMA_VERSION:
            raise JournalError(
                f"the journal {self.path} has schema {version}, this watchman knows "
                f"{schema.SCHEMA_VERSION}; run the version of watchman that wrote it"
            )

    @property
    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect(read_only=True)
        return connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction; it is on disk when the block has ended."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                for forget in self.on_rollback:
                    forget()
                raise

    def close(self) -> None:
        """Close every connection; the database cannot be used afterwards."""
        for connection in self._connections:
            connection.close()
