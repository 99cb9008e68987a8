"""Digests: what is among the journal's deliveries, by hash, and when they arrived.

An index of names would be written at a random place for each arrival. Instead, each 1024 seqs get a
digest, once, when all of them are given out: hashes of the names and their extensions, of the
directories with all that are above them, of the task ids, tasks and brokers, one after the other.
Whoever looks for one of those goes through the digests, 8 bytes a delivery, and looks only at
deliveries whose digest has its hash, or that have none yet. So a digest may have too much in it,
never too little: what changes in a delivery later is added in the same transaction (:func:`add`).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from watchman.journal.question import extension

TABLE = """
CREATE TABLE digests (
    block INTEGER PRIMARY KEY,
    earliest_ns INTEGER NOT NULL,
    latest_ns INTEGER NOT NULL,
    hashes BLOB NOT NULL
);
"""
BITS = 10
ROWS = 1 << BITS
"""Seqs of one digest: they are read and written in one transaction, 3 ms of the writer's lock."""


def seqs(block: int) -> tuple[int, int]:
    """Return the first and the last seq of a block."""
    return block << BITS, ((block + 1) << BITS) - 1


def digest(rows: Iterable[tuple[Any, ...]]) -> tuple[int, int, bytes]:
    """Return the digest of deliveries: first and last arrival, in ns, and hashes.

    ``rows`` have source, final path or None, task id, broker, task and arrival of each.
    """
    found: set[bytes] = set()
    directories: set[bytes] = set()
    routes: set[tuple[str | None, str | None]] = set()
    arrivals: list[int] = []
    for source, final, task_id, broker, task, arrived_ns in rows:
        for path in (source,) if final is None else (source, final):
            found.update(_of_path(path, directories))
        found.add(of_id(task_id))
        routes.add((broker, task))
        arrivals.append(arrived_ns)
    for broker, task in routes:
        found |= {of_broker(broker or ""), of_task(task or "")}
    return min(arrivals, default=0), max(arrivals, default=0), b"".join(sorted(found))


def _of_path(path: bytes, directories: set[bytes]) -> Iterator[bytes]:
    """Yield the hashes of a path, without those of directories that are seen already."""
    directory, _, name = path.rpartition(b"/")
    yield of_name(name)
    ending = extension(name)
    if ending is not None:
        yield of_extension(ending)
    while directory not in directories:
        directories.add(directory)
        yield of_directory(directory)
        directory = directory.rpartition(b"/")[0]


def of_name(name: bytes) -> bytes:
    """Return the hash of the name of a file, or of a directory that is a unit."""
    return zlib.crc32(name, 1).to_bytes(4, "big")


def of_extension(ending: bytes) -> bytes:
    """Return the hash of what stands behind the last dot of a name."""
    return zlib.crc32(ending, 6).to_bytes(4, "big")


def of_directory(directory: bytes) -> bytes:
    """Return the hash of a directory; of the root, that of nothing."""
    return zlib.crc32(directory, 2).to_bytes(4, "big")


def of_id(task_id: str) -> bytes:
    """Return the hash of a task id."""
    return zlib.crc32(task_id.encode(errors="surrogateescape"), 3).to_bytes(4, "big")


def of_broker(name: str) -> bytes:
    """Return the hash of a broker; of none, that of nothing."""
    return zlib.crc32(name.encode(), 4).to_bytes(4, "big")


def of_task(name: str) -> bytes:
    """Return the hash of a task; of none, that of nothing."""
    return zlib.crc32(name.encode(), 5).to_bytes(4, "big")


def add(connection: sqlite3.Connection, seq: int, path: bytes) -> None:
    """Take note of another path of a delivery, within the transaction that changes it."""
    hashes = b"".join(_of_path(path, set()))
    query = "UPDATE digests SET hashes = CAST(hashes || ? AS BLOB) WHERE block = ?"
    connection.execute(query, (hashes, seq >> BITS))


def add_ids(connection: sqlite3.Connection, ids: Iterable[tuple[int, str]]) -> None:
    """Take note of other task ids of deliveries, (seq, id) each, in the same way."""
    blocks: dict[int, set[bytes]] = {}
    for seq, task_id in ids:
        blocks.setdefault(seq >> BITS, set()).add(of_id(task_id))
    query = "UPDATE digests SET hashes = CAST(hashes || ? AS BLOB) WHERE block = ?"
    connection.executemany(query, ((b"".join(hashes), at) for at, hashes in blocks.items()))
