"""Known versions: what has been dealt with, so that a scan does not report it again."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from watchman.file_access import version_of
from watchman.identity import Comparison, Evidence, compare
from watchman.journal.database import Database, ReadConnection
from watchman.model import Version
from watchman.text import PATHS

WHOLE = 20_000
"""A directory with up to so many known names is read in one go when it is scanned."""
FORGOTTEN = 5000
"""Names forgotten in one commit, where directories are gone: 10 ms of the writer's lock."""
_CACHED = 4096
_MOST_LOADED = 200_000
_DIRECTORIES = "SELECT path, id FROM directories WHERE typeof(path) = 'blob'"
_BELOW = "SELECT id FROM directories WHERE path = ? OR (path >= ? AND path < ?) LIMIT ?"
_NTH = "SELECT name FROM known WHERE directory = ? ORDER BY name LIMIT 1 OFFSET ?"
_COUNT = "SELECT count(*) FROM directories"
_LENGTHS = (1, 10, 100, 400)
"""Names in one query: a few lengths, so that SQLite finds its prepared statement again; two
parameters each, of which old versions of SQLite take 999."""

# An upsert takes half the time of INSERT OR REPLACE, which would look for what to delete first.
_REMEMBER = """INSERT INTO known (directory, name, device, inode, size, mtime_ns, changed_ns, seq)
    VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (directory, name) DO UPDATE SET
    device = excluded.device, inode = excluded.inode, size = excluded.size,
    mtime_ns = excluded.mtime_ns, changed_ns = excluded.changed_ns, seq = excluded.seq"""
# One query for names in many directories. CROSS JOIN: SQLite must not begin with the large table.
_SOME = {
    length: f"""WITH wanted (directory, name) AS (VALUES {",".join(["(?,?)"] * length)})
    SELECT directory, name, device, inode, size, mtime_ns, changed_ns, seq
    FROM wanted CROSS JOIN known USING (directory, name)"""  # noqa: S608 — question marks only
    for length in _LENGTHS
}
_NAMES = """SELECT name FROM known WHERE directory = ? AND name > ? AND typeof(name) = 'blob'
    ORDER BY name LIMIT ?"""
# What a damaged page shows instead of a name is not known, and so an arrival.
_ALL = """SELECT name, device, inode, size, mtime_ns, changed_ns FROM known WHERE directory = ?
    AND typeof(name) = 'blob'"""


class Known(NamedTuple):
    """What is remembered of a name in a directory."""

    version: Version
    seq: int
    """The delivery that announced this version; 0 where it was only noted."""


class KnownVersions:
    """The tables ``directories`` and ``known``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[bytes, int] = {}
        self._whole: dict[bytes, int] | None = None
        """``_ids`` while it holds every directory, so that a missing one needs no query. Told by
        the dict itself: other threads may replace it at any time."""
        database.on_rollback.append(self._drop_ids)

    def load_directories(self) -> None:
        """Read all directories' numbers, for the time of a scan of everything."""
        if self._whole is not None:
            return
        if self._database.reader.execute(_COUNT).fetchone()[0] <= _MOST_LOADED:
            rows = self._database.reader.execute(_DIRECTORIES)
            self._ids = self._whole = dict(rows)

    def unload_directories(self) -> None:
        """Give the memory back."""
        if len(self._ids) > _CACHED:
            self._drop_ids()

    def _drop_ids(self) -> None:
        self._whole = None
        self._ids = {}

    def remember(
        self, connection: sqlite3.Connection, items: Iterable[tuple[bytes, Sequence[int], int]]
    ) -> None:
        """Make versions known, (path, version, seq) each, within a transaction."""
        ids = self._ids
        rows = []
        for path, version, seq in items:
            directory, _, name = path.rpartition(b"/")
            number = ids.get(directory) or self._make_id(connection, directory)
            rows.append((number, name, *version, seq))
        connection.executemany(_REMEMBER, rows)

    def _make_id(self, connection: sqlite3.Connection, directory: bytes) -> int:
        connection.execute("INSERT OR IGNORE INTO directories (path) VALUES (?)", (directory,))
        return self._cache(directory, connection)

    def _id(self, directory: bytes) -> int:
        """Return the number of a directory; 0 if nothing was ever known there."""
        ids = self._ids
        number = ids.get(directory, 0)
        if number or ids is self._whole:
            return number
        return self._cache(directory, self._database.reader)

    def _cache(self, directory: bytes, connection: sqlite3.Connection | ReadConnection) -> int:
        query = "SELECT id FROM directories WHERE path = ?"
        row = connection.execute(query, (directory,)).fetchone()
        if row is None:
            return 0
        if len(self._ids) >= _CACHED and self._ids is not self._whole:
            self._ids = {}
        number = self._ids[directory] = int(row[0])
        return number

    def knows(self, directory: str) -> bool:
        """Whether anything was ever known in a directory."""
        return self._id(os.fsencode(directory)) != 0

    def lookup(self, directory: str, names: Iterable[str]) -> dict[str, Known]:
        """Return what is remembered of ``names`` in a directory."""
        number = self._id(os.fsencode(directory))
        if not number:
            return {}
        rows = self._rows([(number, os.fsencode(name)) for name in names])
        return {os.fsdecode(name): known for _, name, known in rows}

    def versions(self, paths: Iterable[str]) -> dict[str, Version]:
        """Return the known versions of those paths that have one."""
        wanted: dict[tuple[int, bytes], str] = {}
        for path in paths:
            directory, _, name = path.encode(*PATHS).rpartition(b"/")
            number = self._ids.get(directory) or self._id(directory)
            if number:
                wanted[number, name] = path
        return {
            wanted[number, name]: known.version for number, name, known in self._rows([*wanted])
        }

    def _rows(self, wanted: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Known]]:
        """Yield (directory, name, what is remembered) for those pairs that are known."""
        for start in range(0, len(wanted), _LENGTHS[-1]):
            part = wanted[start : start + _LENGTHS[-1]]
            length = next(length for length in _LENGTHS if length >= len(part))
            # What is asked for twice is answered twice, and is still one answer.
            part += part[:1] * (length - len(part))
            rows = self._database.reader.execute(_SOME[length], list(itertools.chain(*part)))
            for number, name, *version, seq in rows:
                yield number, name, Known(Version(*version), seq)

    def scan(self, directory: str) -> Scan:
        """Begin to hold what is remembered of a directory against what is there."""
        return Scan(self, directory, self._database.reader, self._id(os.fsencode(directory)))

    def forget(self, paths: Iterable[str]) -> None:
        """Forget paths: the next look at one is an arrival."""
        keys = self.keys(paths)
        if keys:
            self._database.write(lambda connection: self.drop(connection, keys))

    def keys(self, paths: Iterable[str]) -> list[tuple[int, bytes]]:
        """Return what :meth:`drop` takes for those paths in whose directories anything is known."""
        keys = []
        for path in paths:
            directory, _, name = path.encode(*PATHS).rpartition(b"/")
            number = self._ids.get(directory) or self._id(directory)
            if number:
                keys.append((number, name))
        return keys

    def drop(self, connection: sqlite3.Connection, keys: Iterable[tuple[int, bytes]]) -> None:
        """Forget names, (directory's number, name) each, within a transaction."""
        connection.executemany("DELETE FROM known WHERE directory = ? AND name = ?", keys)

    def unlearn(self, connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        """Forget the versions that these deliveries announced, within a transaction."""
        marks = ",".join("?" * len(seqs))
        query = f"SELECT source, seq FROM deliveries WHERE seq IN ({marks})"  # noqa: S608 — see marks
        found = connection.execute(query, seqs).fetchall()
        self.unlearn_at(connection, [(source.decode(*PATHS), seq) for source, seq in found])

    def unlearn_at(
        self, connection: sqlite3.Connection, announced: Iterable[tuple[str, int]]
    ) -> None:
        """Do the same, where the paths of the deliveries are known: (source, seq) each."""
        keys = []
        for source, seq in announced:
            directory, _, name = source.encode(*PATHS).rpartition(b"/")
            keys.append((self._ids.get(directory) or self._id(directory), name, seq))
        connection.executemany(
            "DELETE FROM known WHERE directory = ? AND name = ? AND seq = ?", keys
        )

    def forget_below(self, *paths: str, most: int = FORGOTTEN) -> list[str]:
        """Forget names in directories that are gone, and in those below them.

        Up to ``most`` are forgotten, in one commit: there may be millions. Return the paths below
        which there are more.
        """
        numbers = [(path, number) for path in paths for number in self._below(path, most)]
        if not numbers:
            return []

        def work(connection: sqlite3.Connection) -> int:
            left = most
            for done, (_, number) in enumerate(numbers):
                left -= _forget_directory(connection, number, left)
                if left <= 0:
                    return done
            return len(numbers)

        done = self._database.write(work)
        self._drop_ids()
        return list(dict.fromkeys(path for path, _ in numbers[done:]))

    def _below(self, path: str, most: int) -> list[int]:
        """Return the numbers of a directory and of those below it."""
        blob = os.fsencode(path)
        # All paths that begin with "path/": "0" is the character behind "/".
        below = (blob, blob.rstrip(b"/") + b"/", blob.rstrip(b"/") + b"0", most)
        rows = self._database.reader.execute(_BELOW, below)
        return [number for (number,) in rows]

    def refresh(self, items: Iterable[tuple[str, Version]]) -> None:
        """Note that a known file's times or inode number changed and its content did not.

        A delivery that is still on its way takes the new version over; its task id stays.
        """
        rows = []
        for path, version in items:
            directory, _, name = path.encode(*PATHS).rpartition(b"/")
            rows.append((*version, self._id(directory), name))

        def work(connection: sqlite3.Connection, changes: Sequence[tuple[Any, ...]]) -> None:
            connection.executemany(
                "UPDATE deliveries SET device = ?, inode = ?, size = ?, mtime_ns = ?, "
                "changed_ns = ? WHERE state IN (1, 2) AND seq = "
                "(SELECT seq FROM known WHERE directory = ? AND name = ?)",
                changes,
            )
            connection.executemany(
                "UPDATE known SET device = ?, inode = ?, size = ?, mtime_ns = ?, changed_ns = ? "
                "WHERE directory = ? AND name = ?",
                changes,
            )

        # A time that cannot be written down leaves the version that is known.
        self._database.write_each(rows, work, lambda *_: None)


def _forget_directory(connection: sqlite3.Connection, number: int, most: int) -> int:
    """Forget up to ``most`` names of a directory; and the directory, if it had fewer."""
    beyond = connection.execute(_NTH, (number, most)).fetchone()
    if beyond is not None:
        query = "DELETE FROM known WHERE directory = ? AND name < ?"
        return connection.execute(query, (number, *beyond)).rowcount
    found = connection.execute("DELETE FROM known WHERE directory = ?", (number,)).rowcount
    connection.execute("DELETE FROM directories WHERE id = ?", (number,))
    return found


class Scan:
    """One directory's known names, while a scan of it is under way."""

    def __init__(
        self, versions: KnownVersions, directory: str, reader: ReadConnection, number: int
    ) -> None:
        self.directory = directory
        self._versions = versions
        self._reader = reader
        self._number = number
        self._matched = 0
        self._whole: dict[str, Version] | None = {}
        if number:
            rows = reader.execute(f"{_ALL} LIMIT ?", (number, WHOLE + 1)).fetchall()
            decode = os.fsdecode
            self._whole = (
                {decode(name): Version(*version) for name, *version in rows}
                if len(rows) <= WHOLE
                else None
            )

    def changed(self, found: Mapping[str, os.stat_result]) -> list[str]:
        """Return the names that are not as they are known, in the order given."""
        if self._whole is not None:
            if not self._whole:
                return list(found)
            pop = self._whole.pop
            return [
                name
                for name, status in found.items()
                if (known := pop(name, None)) is None
                or (known[1:] != _numbers(status) and _differs(known, status))
            ]
        remembered = self._versions.lookup(self.directory, list(found))
        self._matched += len(remembered)
        return [
            name
            for name, status in found.items()
            if (before := remembered.get(name)) is None
            or (before.version[1:] != _numbers(status) and _differs(before.version, status))
        ]

    def maybe_missing(self) -> Iterator[str]:
        """Yield names that are known and may be gone; to be asked after the last name was found."""
        if self._whole is not None:
            yield from self._whole
            return
        count = "SELECT count(*) FROM known WHERE directory = ?"
        if self._reader.execute(count, (self._number,)).fetchone()[0] > self._matched:
            last = b""
            while rows := self._reader.execute(_NAMES, (self._number, last, WHOLE)):
                for (last,) in rows:
                    yield os.fsdecode(last)


def _numbers(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _differs(known: Version, status: os.stat_result) -> bool:
    """Say whether a look has to decide what has changed."""
    seen = version_of(status)
    verdict = compare(known, seen, Evidence.SCAN)
    if verdict is Comparison.TOUCHED:
        # Neither a ctime that was never recorded nor a new number for an inode is worth a look.
        return bool(known.changed_ns) and known.inode == seen.inode
    return verdict is Comparison.NEW
