"""How an operator's command writes into the journal beside the daemon, and keeps what it did."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from watchman.errors import JournalError
from watchman.journal import answers, schema
from watchman.journal.journal_reader import open_reader, unusable
from watchman.journal.record import Record

_PAGE = 250
"""Rows read at once."""


@contextlib.contextmanager
def writing(state_dir: str) -> Iterator[sqlite3.Connection]:
    """Open the journal for an operator's command, beside the daemon. Raises JournalError."""
    path = os.path.join(state_dir, "journal.db")
    try:
        # Says what is wrong with it, and does not make one where there is none.
        with open_reader(state_dir):
            pass
        if not os.path.exists(path):
            raise JournalError(f"there is no journal at {path} yet: nothing has been recorded")
        connection = schema.connect(path)
        try:
            yield connection
        finally:
            connection.close()  # rolls back what was not committed
    except sqlite3.Error as error:
        raise unusable(path, error, "written") from error


class RecordTable:
    """Deliveries in a temporary table: there may be millions. It lasts as long as the connection.

    Yields them in the order of their arrival, read as they are taken.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = f"temp.{name}"
        connection.execute(
            f"CREATE TABLE {self._name} (seq INTEGER PRIMARY KEY, task_id, source, final, device, "
            "inode, size, mtime_ns, changed_ns, arrived_ns, broker, task, kind, state, noted_ns, "
            "reason)"
        )

    def add(self, records: Iterable[Record]) -> None:
        """Put deliveries into it, but for those that are in it already."""
        insert = f"INSERT OR IGNORE INTO {self._name} VALUES ({','.join('?' * 16)})"  # noqa: S608 — our own words
        self._connection.executemany(insert, map(_row_of, records))

    def __len__(self) -> int:
        query = f"SELECT count(*) FROM {self._name}"  # noqa: S608 — our own word
        return int(self._connection.execute(query).fetchone()[0])

    def __iter__(self) -> Iterator[Record]:
        after = 0
        query = f"SELECT * FROM {self._name} WHERE seq > ? ORDER BY seq LIMIT {_PAGE}"  # noqa: S608 — our own words
        while rows := self._connection.execute(query, (after,)).fetchall():
            yield from map(answers.record, rows)
            after = rows[-1][0]


def _row_of(record: Record) -> tuple[Any, ...]:
    """Return what :func:`answers.record` makes the same record of."""
    paths = os.fsencode(record.source), os.fsencode(record.final)
    about = record.arrived_ns, record.broker, record.task, record.kind
    noted = int(record.state), record.noted_ns, record.reason
    return (record.seq, record.task_id, *paths, *record.version, *about, *noted)
