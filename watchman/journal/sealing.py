"""Sealing: the oldest finished deliveries of the journal are written into a segment.

A process of its own does it, the least urgent of the machine, while the daemon goes on: rows that
ended do not change any more. It only reads the journal, in small transactions, so that the log can
be merged meanwhile. The order that must hold, and what a crash between two steps leaves:

=====================  ============================================================================
done                   left where it ends here
=====================  ============================================================================
draft written          a draft, which whoever seals next removes
draft on disk          the same
renamed                a segment whose rows are in the journal as well: shown once
name on disk           the same
rows deleted           the rest is deleted by the next daemon, which first has the name on disk
=====================  ============================================================================

The daemon deletes (:mod:`watchman.journal.archiving`). Unlike the other companions this process is
started, not forked: there are threads by then, and it is needed for seconds, days apart. It ends
with the daemon; a lock on the directory keeps two from sealing, and it is told which segments the
daemon has cleared, so that it never seals what one before it has sealed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from watchman.journal import archive, segment
from watchman.journal.segment import SealedRow
from watchman.model import DISCARDED, State

ROWS = 200_000
"""Deliveries in one segment."""
SEALED, FEW, CHANGED, FAILED = "sealed", "few", "changed", "failed"
"""What a sealing says at its end, before a space and more about it."""

_PAGE = 2000
_NICE = 19
_PR_SET_PDEATHSIG = 1
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from watchman.journal.sealing import main; main(sys.argv[2:])"
)
_SELECT = """SELECT seq, task_id, source, final, size, mtime_ns, arrived_ns, deliveries.broker,
    routes.task, kind, state, noted_ns, reason
    FROM deliveries LEFT JOIN routes ON routes.id = deliveries.route
    WHERE seq > ? AND seq <= ? AND state IN (3, 5, 6) ORDER BY seq LIMIT ?"""
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE state IN (3, 5, 6) LIMIT ?)"
_TYPES: tuple[Any, ...] = (int, str, bytes, (bytes, type(None)), int, int, int)
_TEXTS = (str, type(None))


def start(state_dir: str, seen: str, keep: int, rows: int) -> subprocess.Popen[bytes]:
    """Have the oldest ``rows`` sealed if more than ``keep`` have ended. Raises OSError.

    ``seen`` is :func:`mark` of the segments all of whose rows have left the journal. What it says
    at its end is :func:`outcome`.
    """
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.Popen(
        [
            *(sys.executable, "-I", "-X", "utf8", "-c", _PROGRAM),
            *(top, os.path.abspath(state_dir), seen, str(keep), str(rows), str(os.getpid())),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
    )


def outcome(said: bytes) -> tuple[str, str]:
    """Return what a sealing said last: one of the words above, and more about it."""
    lines = said.decode(errors="backslashreplace").strip().splitlines()
    word, _, more = (lines or [""])[-1].partition(" ")
    if word in {SEALED, FEW, CHANGED, FAILED}:
        return word, more
    return FAILED, lines[-1] if lines else "it was ended"


def main(arguments: Sequence[str]) -> None:
    """Be the process that :func:`start` starts."""
    state_dir, seen, keep, rows, parent = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return
    os.nice(_NICE)
    try:
        said = seal(state_dir, seen, int(keep), int(rows))
    except (sqlite3.Error, OSError) as error:
        said = f"{FAILED} {error}"
    sys.stdout.write(said + "\n")


def mark(files: Iterable[archive.SegmentFile]) -> str:
    """Return what tells these segments from others."""
    return str(zlib.crc32("".join(sorted(os.path.basename(f.path) for f in files)).encode()))


def seal(state_dir: str, seen: str, keep: int, rows: int) -> str:
    """Seal as :func:`start` says; return one of the words above and more about it.

    Raises sqlite3.Error and OSError; there is no new segment then.
    """
    directory = archive.directory_of(state_dir)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        archive.sync(state_dir)
    with _alone(directory) as alone:
        if not alone:
            return f"{FAILED} another process is sealing"
        _remove_drafts(directory)
        # Whose daemon was killed may have been faster: its rows must not be sealed again.
        if mark(archive.files(state_dir)) != seen:
            return CHANGED
        with contextlib.closing(_read_only(os.path.join(state_dir, "journal.db"))) as connection:
            source = _EndedRows(connection, rows)
            if connection.execute(_COUNT, (keep + 1,)).fetchone()[0] <= keep or not source.last:
                return FEW
            try:
                return f"{SEALED} {_write(directory, source)}"
            finally:
                _remove_drafts(directory)


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[bool]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _remove_drafts(directory: str) -> None:
    for name in os.listdir(directory):
        if archive.DRAFT.fullmatch(name):
            os.unlink(os.path.join(directory, name))


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, isolation_level=None, timeout=60
    )


def _write(directory: str, source: _EndedRows) -> str:
    draft = os.path.join(directory, f"draft-{os.getpid()}")
    segment.write(draft, source.rows)
    number = 0
    while True:
        # What has this name holds other states of these rows, or cannot be read: it stays.
        name = archive.name_of(source.first, source.last, number)
        if not os.path.lexists(os.path.join(directory, name)):
            break
        number += 1
    os.rename(draft, os.path.join(directory, name))
    archive.sync(directory)
    return name


class _EndedRows:
    """The oldest finished deliveries of the journal, as often as one likes."""

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        self._connection = connection
        chosen = []
        for row in self._pages(0, (1 << 63) - 1):
            chosen.append(row.seq)
            if len(chosen) >= most:
                break
        self._chosen = frozenset(chosen)
        self.first, self.last = (chosen[0], chosen[-1]) if chosen else (0, 0)

    def rows(self) -> Iterator[SealedRow]:
        """Return them; what has ended since they were chosen is not among them."""
        for row in self._pages(self.first - 1, self.last):
            if row.seq in self._chosen:
                yield row

    def _pages(self, after: int, last: int) -> Iterator[SealedRow]:
        while True:
            # Read to its end at once: an open query would keep the log from being merged.
            page = self._connection.execute(_SELECT, (after, last, _PAGE)).fetchall()
            for raw in page:
                if _is_sane(raw):
                    yield _row(raw)
            if len(page) < _PAGE:
                return
            after = page[-1][0]


def _is_sane(raw: Sequence[Any]) -> bool:
    """Whether a row is as the journal writes them; any other stays there, where it is told of."""
    *_, broker, task, unit, _, noted_ns, reason = raw
    return (
        all(isinstance(value, kind) for value, kind in zip(raw, _TYPES, strict=False))
        and all(isinstance(text, _TEXTS) for text in (broker, task, reason))
        and isinstance(unit, str)
        and isinstance(noted_ns, int)
    )


def _row(raw: Sequence[Any]) -> SealedRow:
    *most, state, noted_ns, reason = raw
    discarded = state == State.VANISHED and (reason or "").startswith(DISCARDED)
    return SealedRow._make([*most, state, discarded, noted_ns, reason])
