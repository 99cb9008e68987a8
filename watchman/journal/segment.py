"""A segment of the archive: finished deliveries in a SQLite file that is never changed again.

::

    deliveries   one row each, by seq
    folders      the directories of sources and final paths, numbered in the order of their bytes:
                 a directory with all below it is a range of numbers
    kinds        what many rows have in common (state, broker, task …), with how many and when;
                 rare ones have positive numbers
    blocks       for each 500 rows when they arrived: a time is looked for in these only
    extensions   what stands behind the last dots of names; null for too many to be told
    by_name      hash of a name, seq
    by_folder    number of a directory, seq
    by_id        hash of a task id, seq
    by_kind      number of a rare kind, seq

The last four are the indexes: tables of two small numbers. Rows hold differences rather than
times: they are exact to the nanosecond, as the journal's, since scripts compare ``mtime_ns``, and
six bytes instead of eight. Of a version there is only size and mtime: nobody asks an ended delivery
for more. A row takes 78 bytes, each index of hashes 13 more, that of directories 10, twice where
files are moved.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from watchman.journal.question import extension, split

FORMAT = 1
"""``user_version`` of the files."""
BLOCK = 500
RARE = 16
"""A kind that less than this part of the rows has is indexed: any other is met by walking."""
MOST_EXTENSIONS = 1000
MOST_ROWS = 1 << 20
_SCHEMA = """
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    folder INTEGER NOT NULL,
    name BLOB NOT NULL,
    task_id NOT NULL,
    arrived INTEGER NOT NULL,
    noted INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    final_folder INTEGER,
    final_name BLOB,
    reason TEXT
);
CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL);
CREATE TABLE kinds (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    broker TEXT,
    task TEXT,
    unit TEXT NOT NULL,
    discarded INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first_arrived_ns INTEGER NOT NULL,
    last_arrived_ns INTEGER NOT NULL,
    last_noted_ns INTEGER NOT NULL
);
CREATE TABLE blocks (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL
);
CREATE TABLE whole (
    rows INTEGER NOT NULL,
    folders INTEGER NOT NULL,
    base INTEGER NOT NULL,
    last_noted_ns INTEGER NOT NULL
);
CREATE TABLE extensions (extension BLOB);
CREATE TABLE by_name (hash INTEGER, seq INTEGER, PRIMARY KEY (hash, seq)) WITHOUT ROWID;
CREATE TABLE by_folder (folder INTEGER, seq INTEGER, PRIMARY KEY (folder, seq)) WITHOUT ROWID;
CREATE TABLE by_id (hash INTEGER, seq INTEGER, PRIMARY KEY (hash, seq)) WITHOUT ROWID;
CREATE TABLE by_kind (kind INTEGER, seq INTEGER, PRIMARY KEY (kind, seq)) WITHOUT ROWID;
"""


class SealedRow(NamedTuple):
    """A finished delivery, as the journal has it."""

    seq: int
    task_id: str
    source: bytes
    final: bytes | None
    """None where it is not moved."""
    size: int
    mtime_ns: int
    arrived_ns: int
    broker: str | None
    task: str | None
    unit: str
    """``files`` or ``directories``."""
    state: int
    discarded: bool
    noted_ns: int
    reason: str | None


_KindKey = tuple[int, "str | None", "str | None", str, bool]


def hashed(value: bytes) -> int:
    """Return the hash that the indexes have of a name or a task id, in four bytes."""
    return zlib.crc32(value) - (1 << 31)


def packed(task_id: str) -> bytes | str:
    """Return a task id as it is stored: sixteen bytes where it is a uuid as Celery writes them."""
    if len(task_id) == 36 and task_id.isascii():
        try:
            number = uuid.UUID(task_id)
        except ValueError:
            return task_id
        if str(number) == task_id:
            return number.bytes
    return task_id


def wrapped(number: int) -> int:
    """Return a difference of two times in 64 bits; what is added to it comes back the same way."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def write(path: str, rows: Callable[[], Iterable[SealedRow]]) -> None:
    """Write the segment that ``rows()`` are, at most :data:`MOST_ROWS` by seq, to a new file.

    They are asked for twice; what is new the second time is left out. The file is on disk when
    this returns. Raises sqlite3.Error and OSError.
    """
    draft = f"{path}-draft"
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA cache_size = -8000")
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT};")
        _Writing(connection).write(rows)
        connection.execute("COMMIT")
        # Packs the pages: filled in order, they take a twentieth more.
        connection.execute("VACUUM INTO ?", (path,))
    finally:
        connection.close()
    os.unlink(draft)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Writing:
    """Fills one segment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._folders: dict[bytes, int] = {}
        self._kinds: dict[_KindKey, int] = {}
        self._seen: dict[_KindKey, list[int]] = {}
        """By kind: how many, first and last arrival, last noting."""
        self._base = 0
        self._seqs: list[int] = []
        # Hash or number, and where in ``_seqs`` the seq is: one integer instead of a tuple.
        self._names: list[int] = []
        self._in_folders: list[int] = []
        self._ids: list[int] = []
        self._rare: list[int] = []
        self._extensions: set[bytes] = set()
        self._blocks: list[list[int]] = []

    def write(self, rows: Callable[[], Iterable[SealedRow]]) -> None:
        """Fill all tables."""
        self._survey(rows())
        self._connection.executemany(
            "INSERT INTO folders VALUES (?, ?)", ((n, path) for path, n in self._folders.items())
        )
        self._connection.executemany(
            "INSERT INTO deliveries VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", self._stored(rows())
        )
        self._write_indexes()
        too_many = len(self._extensions) > MOST_EXTENSIONS
        self._connection.executemany(
            "INSERT INTO extensions VALUES (?)",
            ((one,) for one in ([None] if too_many else sorted(self._extensions))),
        )
        self._connection.executemany("INSERT INTO blocks VALUES (?,?,?,?)", self._blocks)
        self._connection.executemany(
            "INSERT INTO kinds VALUES (?,?,?,?,?,?,?,?,?,?)",
            ((self._kinds[kind], *kind, *seen) for kind, seen in self._seen.items()),
        )
        last_noted = max((seen[3] for seen in self._seen.values()), default=0)
        self._connection.execute(
            "INSERT INTO whole VALUES (?,?,?,?)",
            (len(self._seqs), len(self._folders), self._base, last_noted),
        )

    def _survey(self, rows: Iterable[SealedRow]) -> None:
        """Number the directories and the kinds."""
        folders: set[bytes] = set()
        kinds: dict[_KindKey, int] = {}
        earliest, latest, count = 1 << 63, -(1 << 63), 0
        for row in rows:
            folders.add(split(row.source)[0])
            if row.final is not None:
                folders.add(split(row.final)[0])
            kind = _kind(row)
            kinds[kind] = kinds.get(kind, 0) + 1
            earliest, latest = min(earliest, row.arrived_ns), max(latest, row.arrived_ns)
            count += 1
        # In SQL times are compared as they are stored.
        self._base = earliest if count and latest - earliest < 1 << 63 else 0
        self._folders = {path: number for number, path in enumerate(sorted(folders))}
        common = rare = 0
        for kind, number in kinds.items():
            if number * RARE < count:
                rare += 1
                self._kinds[kind] = rare
            else:
                self._kinds[kind] = common
                common -= 1

    def _stored(self, rows: Iterable[SealedRow]) -> Iterator[tuple[object, ...]]:
        for row in rows:
            kind, (above, name) = _kind(row), split(row.source)
            number, folder = self._kinds.get(kind), self._folders.get(above)
            if number is None or folder is None or len(self._seqs) >= MOST_ROWS:
                continue
            final_folder, final_name = self._final(row, name)
            if final_folder == -1:
                continue
            task_id = packed(row.task_id)
            self._note(row, kind, {folder, final_folder}, {name, final_name}, task_id)
            yield (
                row.seq,
                number,
                folder,
                name,
                task_id,
                row.arrived_ns - self._base,
                wrapped(row.noted_ns - row.arrived_ns),
                row.size,
                wrapped(row.mtime_ns - row.arrived_ns),
                final_folder,
                final_name,
                row.reason,
            )

    def _final(self, row: SealedRow, name: bytes) -> tuple[int | None, bytes | None]:
        """Return the directory of the final path, -1 for a new one, and its name if it differs."""
        if row.final is None:
            return None, None
        above, final_name = split(row.final)
        return self._folders.get(above, -1), None if final_name == name else final_name

    def _note(
        self,
        row: SealedRow,
        kind: _KindKey,
        folders: set[int | None],
        names: set[bytes | None],
        task_id: bytes | str,
    ) -> None:
        """Remember for the indexes where a row is."""
        place = len(self._seqs)
        self._seqs.append(row.seq)
        if len(self._extensions) <= MOST_EXTENSIONS:
            endings = (extension(name) for name in names if name is not None)
            self._extensions.update(ending for ending in endings if ending is not None)
        self._names += (hashed(name) << 20 | place for name in names if name is not None)
        self._in_folders += (folder << 20 | place for folder in folders if folder is not None)
        value = task_id.encode() if isinstance(task_id, str) else task_id
        self._ids.append(hashed(value) << 20 | place)
        if self._kinds[kind] > 0:
            self._rare.append(self._kinds[kind] << 20 | place)
        arrived, noted = row.arrived_ns, row.noted_ns
        seen = self._seen.setdefault(kind, [0, arrived, arrived, noted])
        seen[:] = seen[0] + 1, min(seen[1], arrived), max(seen[2], arrived), max(seen[3], noted)
        stored = arrived - self._base
        if place % BLOCK == 0:
            self._blocks.append([row.seq, row.seq, stored, stored])
        block = self._blocks[-1]
        block[1:] = row.seq, min(block[2], stored), max(block[3], stored)

    def _write_indexes(self) -> None:
        for table, entries in (
            ("by_name", self._names),
            ("by_folder", self._in_folders),
            ("by_id", self._ids),
            ("by_kind", self._rare),
        ):
            entries.sort()
            self._connection.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES (?, ?)",  # noqa: S608 — one of these four
                ((entry >> 20, self._seqs[entry & MOST_ROWS - 1]) for entry in entries),
            )
            entries.clear()


def _kind(row: SealedRow) -> _KindKey:
    return row.state, row.broker, row.task, row.unit, row.discarded
