"""The tables ``uploads`` and ``transfer_logs``: who uploaded what, and how far logs were read.

What a log tells of a delivery is written after a moment, many together: until then it is in memory,
where senders find it as well. After a crash the lines of the last minute are read again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from watchman.journal import rescue
from watchman.journal.database import Database
from watchman.model import Upload, Version, record_of

_COLUMNS = "seq, user, host, protocol, size, seconds, ended_ns"
_INSERT = f"INSERT OR REPLACE INTO uploads ({_COLUMNS}, noted_ns) VALUES (?,?,?,?,?,?,?,?)"  # noqa: S608 — our own words
_DROP_AFTER = """DELETE FROM uploads
    WHERE seq > max(?, (SELECT coalesce(max(seq), 0) FROM deliveries))"""
_COPY = """INSERT INTO uploads SELECT ?, user, host, protocol, size, seconds, ended_ns, ?
    FROM uploads WHERE seq = ?"""
_POSITION = f"""SELECT device, inode, "offset", head FROM transfer_logs
    WHERE {rescue.SOUND_POSITION} AND path = ?"""  # noqa: S608 — our own words
_LARGEST = (1 << 63) - 1
_TOGETHER = 500

LogPosition = tuple[int, int, int, bytes]
"""Device, inode, offset and a hash of the beginning."""


class Logged(Protocol):
    """What is known of the lines that were read."""

    def arrived(self, seq: int, path: bytes, version: Version) -> Upload | None:
        """Return what a log tells of a file that is being recorded, if it has done so already."""
        ...


class Uploads:
    """What transfer logs tell of deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.logged: Logged | None = None
        """Who is asked about each file that is recorded; None while no log is read."""
        self._lock = threading.Lock()
        self._unwritten: dict[int, Upload] = {}

    def drop_after(self, seq: int) -> None:
        """Forget what was noted of deliveries that were never recorded: their seqs come again.

        The last one is ``seq``, unless a command has made others since (``notify resend``).
        """
        self._database.write(lambda connection: connection.execute(_DROP_AFTER, (seq,)))

    def recorded(
        self, connection: sqlite3.Connection, deliveries: Iterable[Sequence[Any]], now: int
    ) -> None:
        """Ask about rows of ``deliveries`` that are being recorded, within their transaction."""
        if self.logged is None:
            return
        rows = []
        for seq, _, path, _, device, inode, size, mtime_ns, changed_ns, *_rest in deliveries:
            version = Version(device, inode, size, mtime_ns, changed_ns)
            upload = self.logged.arrived(seq, path, version)
            if upload is not None:
                rows.append(_row(seq, upload, now))
        connection.executemany(_INSERT, rows)

    @property
    def is_written(self) -> bool:
        """Whether all that was noted is on disk."""
        return not self._unwritten

    def note(self, seq: int, upload: Upload) -> None:
        """Take note of what a log tells of a delivery; :meth:`write` has it written."""
        with self._lock:
            self._unwritten[seq] = upload

    def write(self, positions: Mapping[str, LogPosition]) -> None:
        """Write what was noted, and how far each log was read, by its path."""
        now = time.time_ns()
        with self._lock:
            unwritten = dict(self._unwritten)
        rows = [_row(seq, upload, now) for seq, upload in unwritten.items()]
        logs = [(os.fsencode(path), *position) for path, position in positions.items()]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_INSERT, rows)
            connection.executemany("INSERT OR REPLACE INTO transfer_logs VALUES (?,?,?,?,?)", logs)

        if rows or logs:
            self._database.write(work)
        with self._lock:
            # Only now: somebody may have asked for them meanwhile. What was noted again since is
            # not in the table yet.
            for seq, upload in unwritten.items():
                if self._unwritten[seq] is upload:
                    del self._unwritten[seq]

    def of(self, seqs: Sequence[int]) -> dict[int, Upload]:
        """Return what logs tell of deliveries, by seq."""
        with self._lock:
            unwritten = {seq: self._unwritten[seq] for seq in seqs if seq in self._unwritten}
        # What was written since is in the table.
        return read(self._database.reader, seqs) | unwritten

    def position(self, path: str) -> LogPosition | None:
        """Return how far a log was read; None for one that is new."""
        row = self._database.reader.execute(_POSITION, (os.fsencode(path),)).fetchone()
        return None if row is None else tuple(row)


def copy(connection: sqlite3.Connection, seq: int, second: int, now: int) -> None:
    """Note what is told of a delivery of its second one as well, within a transaction."""
    # Of one that was never recorded, perhaps: its seq has come again.
    connection.execute("DELETE FROM uploads WHERE seq = ?", (second,))
    connection.execute(_COPY, (second, now, seq))


class Reads(Protocol):
    """A connection for reading, of the daemon or of a command."""

    def execute(self, query: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Run a query."""
        ...


def read(connection: Reads, seqs: Sequence[int]) -> dict[int, Upload]:
    """Return what transfer logs have told of deliveries, by seq."""
    found = {}
    for start in range(0, len(seqs), _TOGETHER):
        part = seqs[start : start + _TOGETHER]
        marks = ",".join("?" * len(part))
        query = f"SELECT {_COLUMNS} FROM uploads WHERE seq IN ({marks})"  # noqa: S608 — our own words
        for seq, *fields in connection.execute(query, part).fetchall():
            found[seq] = record_of(Upload, tuple(fields))
    return found


def _row(seq: int, upload: Upload, now: int) -> tuple[Any, ...]:
    # A log may claim any number.
    size, ended_ns = min(upload.size, _LARGEST), min(upload.ended_ns, _LARGEST)
    return seq, upload.user, upload.host, upload.protocol, size, upload.seconds, ended_ns, now
