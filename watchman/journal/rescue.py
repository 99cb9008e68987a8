"""What can be read of a damaged journal, row by row, into a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import NamedTuple
from urllib.parse import quote

from watchman.journal import arguments, schema, tallies
from watchman.journal.sealed import archived
from watchman.journal.soundness import Unsound, check_tables, size

EVERY_WATCH = b""
"""In the table of watches: all that are configured when the journal is opened next. A first run
would take what is there for old; after damage it may as well have come while nobody looked."""

_PART = 10_000

# Types are not enforced by SQLite: a row that was read off a broken page may hold anything.
_DELIVERIES = """SELECT * FROM deliveries NOT INDEXED WHERE typeof(seq) = 'integer'
    AND typeof(task_id) = 'text' AND typeof(source) = 'blob' AND typeof(final) IN ('blob', 'null')
    AND typeof(device) = 'integer' AND typeof(inode) = 'integer' AND typeof(size) = 'integer'
    AND typeof(mtime_ns) = 'integer' AND typeof(arrived_ns) = 'integer'
    AND typeof(broker) IN ('text', 'null') AND typeof(route) IN ('integer', 'null')
    AND kind IN ('files', 'directories') AND typeof(noted_ns) = 'integer'
    AND typeof(reason) IN ('text', 'null') AND typeof(state) = 'integer'
    AND state BETWEEN 1 AND 6 AND {ctime} ORDER BY seq {order}"""
_ROUTES = """SELECT * FROM routes NOT INDEXED WHERE typeof(broker) = 'text'
    AND typeof(task) = 'text' AND typeof(arguments) = 'text' ORDER BY id {order}"""
_DIRECTORIES = """SELECT * FROM directories NOT INDEXED WHERE typeof(path) = 'blob'
    ORDER BY id {order}"""
_KNOWN = """SELECT * FROM known WHERE typeof(directory) = 'integer' AND typeof(name) = 'blob'
    AND typeof(seq) = 'integer' AND typeof(device) = 'integer' AND typeof(inode) = 'integer'
    AND typeof(size) = 'integer' AND typeof(mtime_ns) = 'integer' AND {ctime}
    ORDER BY directory {order}, name {order}"""
_CTIME = "typeof(changed_ns) = 'integer'"
"""In the journals since version 2."""
_WITHOUT_ROUTE = "FROM deliveries WHERE route NOT IN (SELECT id FROM routes)"
_TABLES = {
    "routes": _ROUTES,
    "deliveries": _DELIVERIES,
    "directories": _DIRECTORIES,
    "known": _KNOWN,
    "watches": """SELECT * FROM watches WHERE typeof(path) = 'blob'
        AND typeof(first_run_ns) = 'integer' ORDER BY path {order}""",
}


class Saved(NamedTuple):
    """What was copied."""

    deliveries: int
    complete: bool
    """Whether nothing is missing."""


def take_over(path: str, fresh: sqlite3.Connection, *, whole: bool) -> Saved:
    """Copy what can be read; ``whole`` says that what is there is all that was."""
    complete = False
    fresh.execute("BEGIN IMMEDIATE")
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        # SQLite removes the log beside an empty file.
        if size(path):
            complete = _read_old(path, fresh) and whole
    if not complete:
        fresh.execute("INSERT INTO watches VALUES (?, ?)", (EVERY_WATCH, time.time_ns()))
    fresh.execute(tallies.RECOUNT)
    (deliveries,) = fresh.execute("SELECT count(*) FROM deliveries").fetchone()
    fresh.execute("COMMIT")
    return Saved(deliveries, complete)


def _read_old(path: str, fresh: sqlite3.Connection) -> bool:
    # Read-only, so that not even its log is merged: what is set aside stays as it was found.
    old = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True)
    old.text_factory = _text
    try:
        return _Rescue(old, fresh, os.path.dirname(path)).all()
    finally:
        old.close()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def check_rows(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError for a row that :func:`take_over` would leave out.

    SQLite's own check says nothing of values.
    """
    for name, query in _TABLES.items():
        # Read to the end: a text that is no UTF-8 shows only then.
        good = sum(1 for _ in connection.execute(query.format(order="", ctime=_CTIME)))
        if good != _count(connection, name):
            raise Unsound(f"rows of {name} cannot be understood")
    strange = _strange_routes(connection)
    lost = connection.execute(f"SELECT count(*) {_WITHOUT_ROUTE}").fetchone()[0]
    if strange or lost:
        raise Unsound(f"{len(strange)} routes cannot be understood, {lost} are missing")


def _count(connection: sqlite3.Connection, name: str) -> int:
    query = f"SELECT count(*) FROM {name} NOT INDEXED"  # noqa: S608 — our own names
    return int(connection.execute(query).fetchone()[0])


def _strange_routes(connection: sqlite3.Connection) -> list[tuple[int]]:
    """Return the numbers of routes that cannot be decoded."""
    strange = []
    for number, broker, task, text in connection.execute("SELECT * FROM routes").fetchall():
        try:
            arguments.decode(broker, task, text)
        except (ValueError, TypeError, KeyError):
            strange.append((number,))
    return strange


class _Rescue:
    """Copies tables, as far as each can be read from its beginning and from its end."""

    def __init__(self, old: sqlite3.Connection, fresh: sqlite3.Connection, state_dir: str) -> None:
        self._state_dir = state_dir
        self._old = old
        self._fresh = fresh
        self._ctime = _CTIME

    def all(self) -> bool:
        """Copy all tables; True if nothing is missing.

        Raises sqlite3.DatabaseError where they are of another version, or none.
        """
        (version,) = self._old.execute("PRAGMA user_version").fetchone()
        self._ctime = "TRUE" if version == 1 else _CTIME
        if version not in (1, schema.SCHEMA_VERSION):
            check_tables(self._old)  # where it is the number that is damaged, they are all there
        complete = self._table("routes")
        complete &= self._drop_strange_routes()
        complete &= self._table("deliveries")
        complete &= self._drop_without_route()
        complete &= self._table("directories")
        known = self._table("known")
        if not complete:
            self._drop_known_without_delivery()
        watches = self._table("watches")
        return complete and known and watches

    def _drop_known_without_delivery(self) -> None:
        """Forget versions of which it cannot be told that a delivery deals with them, or has."""
        without = "seq > 0 AND seq NOT IN (SELECT seq FROM deliveries)"
        query = f"SELECT DISTINCT seq FROM known WHERE {without}"  # noqa: S608 — ours
        seqs = [seq for (seq,) in self._fresh.execute(query)]
        self._fresh.execute("CREATE TEMP TABLE archived (seq INTEGER PRIMARY KEY)")
        self._fresh.executemany(
            "INSERT INTO archived VALUES (?)", ((seq,) for seq in archived(self._state_dir, seqs))
        )
        self._fresh.execute(
            f"DELETE FROM known WHERE {without} AND seq NOT IN (SELECT seq FROM archived)"  # noqa: S608 — ours
        )
        self._fresh.execute("DROP TABLE archived")

    def _table(self, name: str) -> bool:
        for direction in ("", "DESC"):
            try:
                self._copy(name, _TABLES[name].format(order=direction, ctime=self._ctime))
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                continue
            # What is not of the types that it has to be was left out.
            return direction == "" and _count(self._old, name) == _count(self._fresh, name)
        return False

    def _copy(self, name: str, query: str) -> None:
        cursor = self._old.execute(query)
        # By name: a journal of version 1 has fewer columns.
        columns = ",".join(column for column, *_ in cursor.description)
        marks = ",".join("?" * len(cursor.description))
        insert = f"INSERT OR IGNORE INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608 — our own names
        rows = []
        try:
            for row in cursor:
                rows.append(row)
                if len(rows) >= _PART:
                    self._fresh.executemany(insert, rows)
                    rows.clear()
        finally:
            self._fresh.executemany(insert, rows)

    def _drop_strange_routes(self) -> bool:
        strange = _strange_routes(self._fresh)
        self._fresh.executemany("DELETE FROM routes WHERE id = ?", strange)
        return not strange

    def _drop_without_route(self) -> bool:
        return self._fresh.execute(f"DELETE {_WITHOUT_ROUTE}").rowcount == 0
