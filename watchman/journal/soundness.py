"""Whether the journal's file is the one that was there, whole and sound."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterator

from watchman.journal import schema
from watchman.text import printable

SUFFIXES = ("-wal", "-shm", "")
"""What the journal consists of, its file last."""
_DAMAGE = frozenset({11, 26})
"""SQLITE_CORRUPT and SQLITE_NOTADB."""
_SHORT_READ = 522
"""SQLITE_IOERR_SHORT_READ: the file, or its log, ends too early."""
_WORDS = (
    "file is not a database",
    "database disk image is malformed",
    "malformed database schema",
    "unsupported file format",
    "Could not decode to UTF-8",
)
_MOST_AHEAD = 20
"""No schema is so many versions ahead of this one: its number was read off a broken page."""
_OTHERS = ("heartbeat", "status.json")
"""What the running daemon keeps beside its journal, and makes after it."""

# https://www.sqlite.org/walformat.html: the header of the index, twice, then what was merged.
_INDEX = struct.Struct("=12xBBHII8x8s8x")
_MERGED = struct.Struct("=I")
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_LOG_HEADER = 32
# struct flock of fcntl(2), and the bytes of a database that whoever has it open holds a lock on.
_FLOCK = struct.Struct("hhqqi4x")
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class Unsound(sqlite3.DatabaseError):
    """The file is not what a journal is."""

    sqlite_errorcode = 11


class Lost(Unsound):
    """What is there may be whole, but something was there before that is missing now."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is broken."""
    code = getattr(error, "sqlite_errorcode", None)  # Python 3.11
    if code is not None and (code & 0xFF in _DAMAGE or code == _SHORT_READ):
        return True
    return str(error).startswith(_WORDS)


def check_header(path: str) -> None:
    """Raise sqlite3.DatabaseError for formats that SQLite would only read, or not know.

    Nobody in this process may have the file open: closing any descriptor gives up all its locks.
    """
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        header = file.read(20)
        if header.startswith(b"SQLite format 3\0") and not set(header[18:20]) <= {1, 2}:
            raise Unsound("its header names an impossible format")


@contextlib.contextmanager
def understanding(what: str) -> Iterator[None]:
    """Raise sqlite3.DatabaseError where ``what`` was read cannot be understood.

    SQLite's own messages may hold what it read off a broken page: they raise UnicodeDecodeError.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError) as error:
        raise Unsound(f"{what} in it cannot be understood: {error!r}") from error


def check(connection: sqlite3.Connection) -> None:
    """Read the whole file. Raises sqlite3.DatabaseError if it is damaged."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Unsound(" ".join(str(found).split()))


def check_version(version: int) -> None:
    """Raise sqlite3.DatabaseError for a number that no schema ever had."""
    if not 0 < version <= schema.SCHEMA_VERSION + _MOST_AHEAD:
        raise Unsound(f"its schema has the impossible number {version}")


def check_tables(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a table, a column or an index is missing."""
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        schema.create(model)
        missing = _shape(model) - _shape(connection)
    finally:
        model.close()
    if missing:
        raise Unsound(f"{', '.join(sorted(missing))} is missing in it")


def _shape(connection: sqlite3.Connection) -> set[str]:
    names = connection.execute(
        "SELECT type || ' ' || name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' UNION ALL "
        "SELECT 'column ' || m.name || '.' || c.name FROM sqlite_master AS m "
        "JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'"
    )
    return {name for (name,) in names}


def size(path: str) -> int:
    """Return a file's size in bytes; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def check_presence(path: str) -> None:
    """Raise sqlite3.DatabaseError if there is no file, or an empty one, although there was one."""
    try:
        empty = os.stat(path).st_size == 0
    except FileNotFoundError:
        _check_traces(path, "missing", SUFFIXES[:2])
    else:
        if empty:
            _check_traces(path, "empty", SUFFIXES[:2])


def check_blank(path: str, connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a database without a schema's number was a journal once."""
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise Unsound("its schema has no number")
    _check_traces(path, "without any table", ())


def _check_traces(path: str, how: str, suffixes: tuple[str, ...]) -> None:
    found = _traces(path, suffixes)
    if found:
        raise Lost(f"it is {how}, although {' and '.join(found)} beside it say that there was one")


def _traces(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return names of files beside the journal that no first run finds there."""
    directory, base = os.path.split(path)
    try:
        names = sorted(os.listdir(directory or "."))
    except OSError:
        return []
    kept = (f"{base}.damaged-", f"{base}.replaced-")
    own = {base + suffix for suffix in suffixes}
    return [name for name in names if name in _OTHERS or name in own or name.startswith(kept)]


class Log:
    """What the log held when the last process ended: its index outlives a process that is killed.

    To be made before the database is opened: SQLite leaves out, without a word, whatever it cannot
    read of the log. The index is never written to disk before the log itself, so what it counts
    was there.
    """

    def __init__(self, path: str) -> None:
        self._frames = self._merged = 0
        salt = b""
        with contextlib.suppress(OSError, struct.error), open(path + "-shm", "rb") as file:
            first, second = file.read(_INDEX.size), file.read(_INDEX.size)
            if first == second:
                whole, _, _, frames, _, salt = _INDEX.unpack(first)
                (self._merged,) = _MERGED.unpack(file.read(_MERGED.size))
                self._frames = frames if whole else 0
        header = b""
        with contextlib.suppress(OSError), open(path + "-wal", "rb") as file:
            header = file.read(_LOG_HEADER)
        self._readable = len(header) == _LOG_HEADER and header[:4] in _MAGIC
        if self._readable and header[16:24] != salt:
            self._frames = 0  # an index that was older than the log when the machine went down

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise sqlite3.DatabaseError if not all of it was found in the database."""
        if self._frames <= self._merged:
            return
        (_, found, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not self._readable or found < self._frames:
            raise Lost("the log beside it, with what was recorded last, is destroyed or cut off")


@contextlib.contextmanager
def unmerged(path: str) -> Iterator[None]:
    """Close the database in here, and its log stays as it is: the rest of the file may be damaged.

    Nobody else in this process may have it open: closing any descriptor gives up all its locks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        # SQLite merges the log when nobody else has the file open. This lock is no process's, so
        # that it looks to SQLite like somebody else's.
        wanted = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        yield
    finally:
        os.close(descriptor)


def was_closed(path: str) -> bool:
    """Whether whoever had the file open last closed it in order."""
    return not os.path.exists(path + "-wal")


def is_suspect(path: str) -> bool:
    """Whether :func:`suspect` was called."""
    return os.path.exists(path + ".suspect")


def suspect(path: str, damage: str = "") -> None:
    """Have the file checked at the next start; replaced, if ``damage`` says what was met in it."""
    with contextlib.suppress(OSError), open(path + ".suspect", "a", encoding="utf-8") as file:
        file.write(damage and printable(damage) + "\n")


def check_met(path: str) -> None:
    """Raise sqlite3.DatabaseError if damage was met in it: not every check finds all of it."""
    with contextlib.suppress(FileNotFoundError):
        with open(path + ".suspect", encoding="utf-8", errors="replace") as file:
            damage = file.readline().strip()
        if damage:
            raise Unsound(damage)


def clear(path: str) -> None:
    """Take back :func:`suspect`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".suspect")
