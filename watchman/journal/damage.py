"""What happens to a journal that is damaged: set aside, and begun anew with what can be read.

One whose file somebody removed or replaced while it was open is written down anew, all of it.

A crash at any instant leaves one of these behind, and the next start goes on from it:

==============================  ==================================================================
found                           what is true, and done
==============================  ==================================================================
``journal.db.making``           half-made: removed; the journal's damage is found again. Where the
                                file had been removed nothing is left of it
``journal.db.fresh``            whole and durable: what is left of the old one is set aside, in
                                the order log, index of the log, file; then this takes its place
neither                         nothing was under way
==============================  ==================================================================

A log (``-wal``) is never left beside a file that it does not belong to: SQLite would play it back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from watchman import queued_logging
from watchman.journal import arguments, schema

log = logging.getLogger("watchman.journal")

EVERY_WATCH = b""
"""In the table of watches: all that are configured when the journal is opened next. A first run
would take what is there for old; after damage it may as well have come while nobody looked."""

_DAMAGE = frozenset({11, 26})
"""SQLITE_CORRUPT and SQLITE_NOTADB."""
SUFFIXES = ("-wal", "-shm", "")
_PART = 10_000

# Types are not enforced by SQLite: a row that was read off a broken page may hold anything.
_DELIVERIES = """SELECT * FROM deliveries NOT INDEXED WHERE typeof(seq) = 'integer'
    AND typeof(task_id) = 'text' AND typeof(source) = 'blob' AND typeof(final) IN ('blob', 'null')
    AND typeof(device) = 'integer' AND typeof(inode) = 'integer' AND typeof(size) = 'integer'
    AND typeof(mtime_ns) = 'integer' AND typeof(arrived_ns) = 'integer'
    AND typeof(broker) IN ('text', 'null') AND typeof(route) IN ('integer', 'null')
    AND typeof(kind) = 'text' AND state BETWEEN 1 AND 6 ORDER BY seq {0}"""
_DIRECTORIES = "SELECT * FROM directories NOT INDEXED ORDER BY id {0}"
_KNOWN = """SELECT * FROM known WHERE typeof(directory) = 'integer' AND typeof(name) = 'blob'
    AND typeof(seq) = 'integer' ORDER BY directory {0}, name {0}"""


class _Saved(NamedTuple):
    deliveries: int
    complete: bool


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is broken."""
    code = getattr(error, "sqlite_errorcode", None)  # Python 3.11
    if code is not None:
        return code & 0xFF in _DAMAGE
    return str(error) in ("file is not a database", "database disk image is malformed")


class _Unsound(sqlite3.DatabaseError):
    sqlite_errorcode = 11


def check(connection: sqlite3.Connection) -> None:
    """Read the whole file. Raises sqlite3.DatabaseError if it is damaged."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _Unsound(" ".join(str(found).split()))


def is_suspect(path: str) -> bool:
    """Whether the file was not closed in order, or :func:`suspect` was called."""
    return any(os.path.exists(path + suffix) for suffix in ("-wal", ".suspect"))


def suspect(path: str) -> None:
    """Have the file checked at the next start."""
    with contextlib.suppress(OSError), open(path + ".suspect", "wb"):
        pass


def clear(path: str) -> None:
    """Take back :func:`suspect`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".suspect")


def finish(path: str) -> None:
    """Go on where a crash interrupted :func:`replace` or :func:`put_back`. Raises OSError."""
    for suffix in ("", *SUFFIXES[:2], "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.making{suffix}")
    if os.path.exists(path + ".fresh"):
        _exchange(path)


def replace(path: str, reason: str) -> None:
    """Begin a new journal at ``path`` with what can be read of the damaged one.

    Nobody may have it open. Raises sqlite3.Error and OSError where the new one cannot be made.
    """
    log.info("The journal %s is damaged: saving what can be read of it", path)
    queued_logging.start()  # it may take minutes
    fresh = schema.connect(path + ".making")
    try:
        schema.create(fresh)
        saved = _take_over(path, fresh)
    finally:
        fresh.close()  # merges its log
    os.rename(path + ".making", path + ".fresh")
    _sync(path)
    aside = _exchange(path)
    log.error(
        "The journal %s is damaged (%s). It is kept as %s, and a new one has been begun: %d "
        "deliveries could be read and are in it%s",
        path,
        reason,
        aside,
        saved.deliveries,
        ""
        if saved.complete
        else ". Not all could: whatever is in the watches and no longer known is sent, where it "
        "was sent before under the same task id. A file that had been moved and not yet announced "
        "may need 'notify match' and a task by hand. Check the disk",
    )


def put_back(path: str, journal: sqlite3.Connection, left: Iterable[str]) -> None:
    """Write a journal down anew whose file was removed or replaced while it was open.

    ``left`` are those of its files that are still there. A file that took its place stays; the
    journal is kept beside it then. Nobody may be writing. Raises sqlite3.Error and OSError.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    finish(path)
    fresh = schema.connect(path + ".making")
    try:
        journal.backup(fresh)
    finally:
        fresh.close()  # merges its log
    os.rename(path + ".making", path + ".fresh")
    _sync(path)
    for name in left:
        os.unlink(name)
    if os.path.exists(path):
        kept = f"{path}.replaced-{_stamp(time.time())}"
        os.rename(path + ".fresh", kept)
        log.error(
            "The journal %s was replaced while it was in use: what is there now is used, and what "
            "was in use is kept as %s. To go on with that: stop watchman, and put it back",
            path,
            kept,
        )
    else:
        os.rename(path + ".fresh", path)
        log.error(
            "The journal %s was removed while it was in use. It has been written anew, nothing is "
            "missing in it; let nothing clean up its directory",
            path,
        )
    _sync(path)


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.localtime(moment))


def _exchange(path: str) -> str:
    """Set the old file aside, put the fresh one in its place; return where the old one is."""
    aside = f"{path}.damaged-{_stamp(os.stat(path + '.fresh').st_mtime)}"
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    _sync(path)
    os.rename(path + ".fresh", path)
    _sync(path)
    return aside


def _sync(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Saving what can be read


def _take_over(path: str, fresh: sqlite3.Connection) -> _Saved:
    complete = False
    fresh.execute("BEGIN IMMEDIATE")
    # Read-only, so that not even its log is merged: what is set aside stays as it was found.
    with contextlib.suppress(sqlite3.Error):
        old = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True)
        old.text_factory = _text
        try:
            complete = _Rescue(old, fresh).all()
        finally:
            old.close()
    if not complete:
        fresh.execute("INSERT INTO watches VALUES (?, ?)", (EVERY_WATCH, time.time_ns()))
    (deliveries,) = fresh.execute("SELECT count(*) FROM deliveries").fetchone()
    fresh.execute("COMMIT")
    return _Saved(deliveries, complete)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


class _Rescue:
    """Copies tables, as far as each can be read from its beginning and from its end."""

    def __init__(self, old: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
        self._old = old
        self._fresh = fresh

    def all(self) -> bool:
        """Copy all tables; True if nothing is missing."""
        (version,) = self._old.execute("PRAGMA user_version").fetchone()
        if version != schema.SCHEMA_VERSION:
            return False
        complete = self._table("routes", "SELECT * FROM routes NOT INDEXED ORDER BY id {0}")
        complete &= self._drop_strange_routes()
        complete &= self._table("deliveries", _DELIVERIES)
        complete &= self._drop_without_route()
        complete &= self._table(
            "directories", "SELECT * FROM directories NOT INDEXED ORDER BY id {0}"
        )
        known = self._table("known", _KNOWN)
        if not complete:
            # A version is known because a delivery deals with it: no delivery, not known.
            self._fresh.execute(
                "DELETE FROM known WHERE seq > 0 AND seq NOT IN (SELECT seq FROM deliveries)"
            )
        watches = self._table("watches", "SELECT * FROM watches ORDER BY path {0}")
        return complete and known and watches

    def _table(self, name: str, query: str) -> bool:
        for direction in ("", "DESC"):
            try:
                self._copy(name, query.format(direction))
            except sqlite3.DatabaseError:
                continue
            return direction == ""
        return False

    def _copy(self, name: str, query: str) -> None:
        cursor = self._old.execute(query)
        marks = ",".join("?" * len(cursor.description))
        insert = f"INSERT OR IGNORE INTO {name} VALUES ({marks})"  # noqa: S608 — our own names
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
        strange = []
        for number, broker, task, text in self._fresh.execute("SELECT * FROM routes").fetchall():
            try:
                arguments.decode(broker, task, text)
            except (ValueError, TypeError, json.JSONDecodeError):
                strange.append((number,))
        self._fresh.executemany("DELETE FROM routes WHERE id = ?", strange)
        return not strange

    def _drop_without_route(self) -> bool:
        dropped = self._fresh.execute(
            "DELETE FROM deliveries WHERE route NOT IN (SELECT id FROM routes)"
        )
        return dropped.rowcount == 0
