"""A thread's connection to the journal for reading, inside the daemon."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

from watchman.journal import soundness

STRANGE_MESSAGE = "SQLite's message about it is no UTF-8"
"""It quotes what it read off a broken page."""


class Rows(list[tuple[Any, ...]]):
    """The answer to a query, all of it."""

    def fetchone(self) -> Any:
        """Return the first row; None if there is none."""
        return self[0] if self else None

    def fetchall(self) -> Rows:
        """Return every row."""
        return self


class Reader:
    """One thread's connection for reading.

    An answer is read to its end at once: an error comes here and nowhere else, and no answer that
    is looked at slowly keeps the log from being merged.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        insist: Callable[[sqlite3.Error, Callable[[], Rows]], Rows],
    ) -> None:
        """``insist`` is called with an error and what is to be tried again."""
        self._connection = connection
        self._insist = insist
        self._lock = threading.Lock()

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> Rows:
        """Return the rows of a query; where the disk fails, wait as who writes does.

        Raises JournalError.
        """
        try:
            return self._fetch(query, parameters)
        except sqlite3.Error as error:
            return self._insist(error, lambda: self._fetch(query, parameters))

    def _fetch(self, query: str, parameters: Sequence[Any]) -> Rows:
        with self._lock:
            try:
                return Rows(self._connection.execute(query, parameters).fetchall())
            except UnicodeDecodeError as error:
                raise soundness.Unsound(STRANGE_MESSAGE) from error

    def close(self) -> None:
        """Close the connection, after the query that is under way."""
        with self._lock:
            self._connection.close()
