"""The table ``partial``: complete files that do not meet their criteria, and since when.

A row is a memory and no more: a file without one is judged anew, and one that is known, or gone,
needs none. So it is written and dropped in commits of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from watchman.journal import rescue
from watchman.journal.database import Database
from watchman.model import Version
from watchman.text import PATHS

_SELECT = f"""SELECT path, device, inode, size, mtime_ns, changed_ns, since_ns, reason FROM partial
    WHERE {rescue.SOUND_PARTIAL}"""  # noqa: S608 — our own words
_BELOW = f"{_SELECT} AND path >= ? AND path < ?"
_AT = f"{_SELECT} AND path = ?"
_NAMED = f"{_SELECT} AND substr(path, -?) = ? LIMIT ?"


class PartialFile(NamedTuple):
    """A row."""

    path: str
    version: Version
    since_ns: int
    """Since when it is as it is."""
    reason: str
    """Why it is not whole, or what is missing of its companions."""


class PartialTable:
    """The table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def below(self, directory: str) -> list[PartialFile]:
        """Return what is below a directory."""
        blob = directory.rstrip("/").encode(*PATHS)
        # All paths that begin with "directory/": "0" is the character behind "/".
        rows = self._database.reader.execute(_BELOW, (blob + b"/", blob + b"0"))
        return list(map(_file, rows))

    def note(self, files: Sequence[PartialFile]) -> None:
        """Take note of files, also of those that are in it already."""
        rows = [
            (one.path.encode(*PATHS), *one.version, one.since_ns, _storable(one.reason))
            for one in files
        ]
        query = "INSERT OR REPLACE INTO partial VALUES (?,?,?,?,?,?,?,?)"
        self._database.write_each(
            rows, lambda connection, part: connection.executemany(query, part), lambda *_: None
        )

    def forget(self, paths: Iterable[str]) -> None:
        """Drop files; they need not be in it."""
        rows = [(path.encode(*PATHS),) for path in paths]
        if rows:
            query = "DELETE FROM partial WHERE path = ?"
            self._database.write(lambda connection: connection.executemany(query, rows))


def at(connection: sqlite3.Connection, path: str) -> PartialFile | None:
    """Return what is remembered of the file at a path; None for most.

    It means nothing where the file is another by now, or known.
    """
    row = connection.execute(_AT, (path.encode(*PATHS),)).fetchone()
    return None if row is None else _file(row)


def named(connection: sqlite3.Connection, name: str, most: int) -> list[PartialFile]:
    """Return the files of one name, in any directory."""
    blob = b"/" + name.encode(*PATHS)
    return list(map(_file, connection.execute(_NAMED, (len(blob), blob, most)).fetchall()))


def _file(row: Sequence[Any]) -> PartialFile:
    path, *version, since_ns, reason = row
    return PartialFile(path.decode(*PATHS), Version(*version), since_ns, reason)


def _storable(text: str) -> str:
    """Return a text as UTF-8 can hold it: names in it may be of any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
