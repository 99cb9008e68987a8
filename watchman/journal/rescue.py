"""What can be read of a damaged journal, row by row, into a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import NamedTuple
from urllib.parse import quote

from watchman.journal import activity, acts, arguments, bundles, schema, tallies
from watchman.journal.sealed import segments
from watchman.journal.soundness import Unsound, check_tables, size

EVERY_WATCH = b""
"""In the table of watches: all that are configured when the journal is opened next. A first run
would take what is there for old; after damage it may as well have come while nobody looked."""

_UNDER_WAY = ".under-way"
"""What follows the journal's path in the name of the file that :func:`save_moved` makes."""
_PART = 10_000
_TOGETHER = 2000
_LOST = "SELECT seq FROM lost WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"

# Types are not enforced by SQLite: a row that was read off a broken page may hold anything.
_SOUND = """typeof(seq) = 'integer'
    AND typeof(task_id) = 'text' AND typeof(source) = 'blob' AND typeof(final) IN ('blob', 'null')
    AND typeof(device) = 'integer' AND typeof(inode) = 'integer' AND typeof(size) = 'integer'
    AND typeof(mtime_ns) = 'integer' AND typeof(arrived_ns) = 'integer'
    AND typeof(broker) IN ('text', 'null') AND typeof(route) IN ('integer', 'null')
    AND kind IN ('files', 'directories') AND typeof(noted_ns) = 'integer'
    AND typeof(reason) IN ('text', 'null') AND typeof(state) = 'integer'
    AND state BETWEEN 1 AND 6 AND {ctime} AND {held}"""
_DELIVERIES = f"SELECT * FROM deliveries NOT INDEXED WHERE {_SOUND} ORDER BY seq {{order}}"  # noqa: S608 — our own words
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
_HELD = "typeof(held) = 'integer' AND typeof(bundle) = 'integer'"
_HOLDS_SINCE = 4
"""The first version whose journals have these, holds and bundles."""
# What a hold that is gone has kept is as if it had never been; what is kept is counted anew.
_RELEASED = """UPDATE deliveries SET held = 0
    WHERE held > 0 AND held NOT IN (SELECT id FROM holds)"""
_RECOUNT_HELD = """INSERT INTO held SELECT held, broker, count(*), min(arrived_ns) FROM deliveries
    WHERE state = 2 AND held > 0 GROUP BY 1, 2"""
_MOVED = f"""SELECT * FROM deliveries INDEXED BY deliveries_under_way
    WHERE state IN (1, 2) AND final IS NOT NULL AND {_SOUND}"""  # noqa: S608 — our own words
_WITHOUT_ROUTE = "FROM deliveries WHERE route NOT IN (SELECT id FROM routes)"
_UPLOADS = """SELECT * FROM uploads WHERE typeof(user) = 'text' AND typeof(host) = 'text'
        AND typeof(protocol) = 'text' AND typeof(size) = 'integer'
        AND typeof(seconds) IN ('real', 'null') AND typeof(ended_ns) = 'integer'
        AND typeof(noted_ns) = 'integer' ORDER BY seq {order}"""
SOUND_PARTIAL = """typeof(path) = 'blob' AND typeof(device) = 'integer'
    AND typeof(inode) = 'integer' AND typeof(size) = 'integer' AND typeof(mtime_ns) = 'integer'
    AND typeof(changed_ns) = 'integer' AND typeof(since_ns) = 'integer'
    AND typeof(reason) = 'text'"""
SOUND_POSITION = """typeof(path) = 'blob' AND typeof(device) = 'integer'
    AND typeof(inode) = 'integer' AND typeof("offset") = 'integer' AND "offset" >= 0
    AND typeof(head) = 'blob'"""
# Nothing is lost without these. A partial file is judged anew, and its time begins again; of a log
# without a position the last MiB is read; monitoring takes a counter that is less for a restart.
_MEMORIES = {
    "acts": acts.RESCUED,
    "uploads": _UPLOADS,
    "partial": f"SELECT * FROM partial WHERE {SOUND_PARTIAL} ORDER BY path {{order}}",  # noqa: S608 — our own words
    "transfer_logs": f"SELECT * FROM transfer_logs WHERE {SOUND_POSITION} ORDER BY path {{order}}",  # noqa: S608 — our own words
    "activity": f"""SELECT * FROM activity WHERE slot BETWEEN 0 AND {activity.SLOTS - 1}
        AND typeof(minute) = 'integer' AND typeof(recorded) = 'integer'
        AND typeof(sent) = 'integer' ORDER BY slot {{order}}""",  # noqa: S608 — our own number
    "counters": """SELECT * FROM counters WHERE typeof(name) = 'text' AND typeof(broker) = 'text'
        AND typeof(bound) = 'integer' AND typeof(count) = 'integer' AND count >= 0
        ORDER BY name {order}, broker {order}, bound {order}""",
}
_TABLES = {
    "routes": _ROUTES,
    "deliveries": _DELIVERIES,
    "directories": _DIRECTORIES,
    "known": _KNOWN,
    "holds": """SELECT * FROM holds NOT INDEXED WHERE typeof(name) = 'blob'
        AND kind IN ('broker', 'task', 'directory') AND typeof(since_ns) = 'integer'
        AND typeof(by) = 'text' ORDER BY id {order}""",
    "bundles": """SELECT * FROM bundles NOT INDEXED WHERE typeof(task_id) = 'text'
        AND kind IN ('set', 'batch') AND typeof(reason) IN ('text', 'null') ORDER BY id {order}""",
    "watches": """SELECT * FROM watches WHERE typeof(path) = 'blob'
        AND typeof(first_run_ns) = 'integer' ORDER BY path {order}""",
}


class Saved(NamedTuple):
    """What was copied."""

    deliveries: int
    complete: bool
    """Whether nothing is missing."""
    moved: bool
    """Whether no file is missing that was moved and had not been announced."""


def save_moved(path: str, journal: sqlite3.Connection) -> None:
    """Keep the deliveries under way whose files are, or may be, where no scan looks for them.

    ``journal`` is the connection that wrote them: its cache and the log that it has open have what
    it wrote last, whatever became of the file and of the log's name. As far as that goes: nothing
    is raised. :func:`take_over` finds it, also in another process.
    """
    making = f"{path}{_UNDER_WAY}.making"
    with contextlib.suppress(sqlite3.Error, OSError):
        forget_moved(path)
        kept = schema.connect(making)
        try:
            schema.create(kept)
            kept.execute("BEGIN")
            with contextlib.suppress(sqlite3.Error):
                _insert_all(kept, "routes", journal.execute("SELECT * FROM routes"))
                moved = _MOVED.format(ctime=_CTIME, held=_HELD)
                _insert_all(kept, "deliveries", journal.execute(moved))
                # Which says, in the whole of a database that nobody else reads, that it is whole.
                kept.execute("PRAGMA application_id = 1")
            # Last: hardly ever written, so that only the file may have them.
            for name in ("bundles", "holds"):
                with contextlib.suppress(sqlite3.Error):
                    _insert_all(kept, name, journal.execute(f"SELECT * FROM {name}"))  # noqa: S608 — our own names
            kept.execute("COMMIT")
        finally:
            kept.close()  # merges its log
        os.rename(making, path + _UNDER_WAY)


def forget_moved(path: str) -> None:
    """Remove what :func:`save_moved` made: it is in a journal that can be trusted by now."""
    for suffix in ("", ".making", ".making-wal", ".making-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{_UNDER_WAY}{suffix}")


def _take_moved(path: str, fresh: sqlite3.Connection) -> bool:
    """Copy what :func:`save_moved` kept; True if that was all there was.

    It is newer than what the file itself says of the same deliveries.
    """
    if not os.path.exists(path + _UNDER_WAY):
        return False
    kept = schema.connect(path + _UNDER_WAY, read_only=True)
    try:
        for name in ("routes", "bundles", "holds", "deliveries"):
            _insert_all(fresh, name, kept.execute(f"SELECT * FROM {name}"), "REPLACE")  # noqa: S608 — our own names
        _forget_moves(fresh)
        return bool(kept.execute("PRAGMA application_id").fetchone()[0])
    finally:
        kept.close()


def _forget_moves(fresh: sqlite3.Connection) -> None:
    """Leave it to the mover to find out by which MOVES entries they go."""
    fresh.execute("UPDATE deliveries SET move = NULL WHERE state = 1")


def _insert_all(
    into: sqlite3.Connection, name: str, rows: sqlite3.Cursor, otherwise: str = "IGNORE"
) -> None:
    """Insert rows into a table as far as they can be read; what is there already: ``otherwise``."""
    # By name: a journal of version 1 has fewer columns.
    columns = ",".join(column for column, *_ in rows.description)
    marks = ",".join("?" * len(rows.description))
    insert = f"INSERT OR {otherwise} INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608 — our own names
    part = []
    try:
        for row in rows:
            part.append(row)
            if len(part) >= _PART:
                into.executemany(insert, part)
                part.clear()
    finally:
        into.executemany(insert, part)


def take_over(path: str, fresh: sqlite3.Connection, *, whole: bool) -> Saved:
    """Copy what can be read; ``whole`` says that what is there is all that was."""
    complete = moved = False
    fresh.execute("BEGIN IMMEDIATE")
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        # SQLite removes the log beside an empty file.
        if size(path):
            complete = _read_old(path, fresh) and whole
    with contextlib.suppress(sqlite3.Error):
        moved = _take_moved(path, fresh)
    if not complete:
        fresh.execute("INSERT INTO watches VALUES (?, ?)", (EVERY_WATCH, time.time_ns()))
    for statement in (_RELEASED, *bundles.MEND, _RECOUNT_HELD, tallies.RECOUNT):
        fresh.execute(statement)
    (deliveries,) = fresh.execute("SELECT count(*) FROM deliveries").fetchone()
    fresh.execute("COMMIT")
    return Saved(deliveries, complete, complete or moved)


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
        good = sum(1 for _ in connection.execute(query.format(order="", ctime=_CTIME, held=_HELD)))
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
        self._types = {"ctime": _CTIME, "held": _HELD}

    def all(self) -> bool:
        """Copy all tables; True if nothing is missing.

        Raises sqlite3.DatabaseError where they are of another version, or none.
        """
        (version,) = self._old.execute("PRAGMA user_version").fetchone()
        newest = not 1 <= version < _HOLDS_SINCE  # where the number itself is damaged, too
        self._types = {
            "ctime": "TRUE" if version == 1 else _CTIME,
            "held": _HELD if newest else "TRUE",
        }
        if not 1 <= version <= schema.SCHEMA_VERSION:
            check_tables(self._old)  # where it is the number that is damaged, they are all there
        complete = self._table("routes")
        complete &= self._drop_strange_routes()
        complete &= self._table("deliveries")
        complete &= self._drop_without_route()
        _forget_moves(self._fresh)
        complete &= not newest or (self._table("holds") & self._table("bundles"))
        complete &= self._table("directories")
        known = self._table("known")
        if not complete:
            self._drop_known_without_delivery()
        watches = self._table("watches")
        for name, query in _MEMORIES.items():
            self._rows(name, query)  # which older journals do not have
        return complete and known and watches

    def _drop_known_without_delivery(self) -> None:
        """Forget versions of which it cannot be told that a delivery deals with them, or has."""
        # In a table and by pages: the archive has millions of them.
        self._fresh.execute("CREATE TEMP TABLE lost (seq INTEGER PRIMARY KEY)")
        self._fresh.execute(
            "INSERT OR IGNORE INTO lost SELECT seq FROM known "
            "WHERE seq > 0 AND seq NOT IN (SELECT seq FROM deliveries)"
        )
        for file, one in segments(self._state_dir):
            after = file.first - 1
            while page := self._fresh.execute(_LOST, (after, file.last, _TOGETHER)).fetchall():
                after = page[-1][0]
                there: set[int] = set()
                with contextlib.suppress(sqlite3.Error):  # as far as it can be read
                    there = one.holding([seq for (seq,) in page])
                self._fresh.executemany("DELETE FROM lost WHERE seq = ?", ((n,) for n in there))
        self._fresh.execute("DELETE FROM known WHERE seq IN (SELECT seq FROM lost)")
        self._fresh.execute("DROP TABLE lost")

    def _table(self, name: str) -> bool:
        return self._rows(name, _TABLES[name])

    def _rows(self, name: str, query: str) -> bool:
        for direction in ("", "DESC"):
            try:
                self._copy(name, query.format(order=direction, **self._types))
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                continue
            # What is not of the types that it has to be was left out.
            return direction == "" and _count(self._old, name) == _count(self._fresh, name)
        return False

    def _copy(self, name: str, query: str) -> None:
        _insert_all(self._fresh, name, self._old.execute(query))

    def _drop_strange_routes(self) -> bool:
        strange = _strange_routes(self._fresh)
        self._fresh.executemany("DELETE FROM routes WHERE id = ?", strange)
        return not strange

    def _drop_without_route(self) -> bool:
        return self._fresh.execute(f"DELETE {_WITHOUT_ROUTE}").rowcount == 0
