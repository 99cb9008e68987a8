"""Locks by which the kernel itself says who holds a file.

These are record locks (fcntl(2), F_SETLK): they end with the process however it ends, a child
made by fork does not have them, and F_GETLK names the holder without taking anything. So no
process id in a file has to be believed, and asking disturbs nobody. One thing must be kept in
mind: a process that closes *any* descriptor of the file loses its locks on it.
"""

from __future__ import annotations

import fcntl
import os
import struct

from watchman.errors import WatchmanError

LIFE = 0
"""The byte that a daemon holds for as long as it lives."""
GUARD = 1
"""The byte that is held for a moment while the file is made, claimed or removed."""
WAITING = 2
"""The byte that is held by who waits for the holder's end, to take its place."""

# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi")


def take(descriptor: int, byte: int = LIFE) -> bool:
    """Lock one byte of a file that is open for writing; False if another process holds it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def wait_for(descriptor: int, byte: int = GUARD) -> None:
    """Lock one byte, waiting for whoever holds it."""
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, byte)


def let_go(descriptor: int, byte: int = GUARD) -> None:
    """Give one byte back."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def holder(descriptor: int, byte: int = LIFE) -> int | None:
    """Return the id of the process that holds one byte; None if nobody does.

    0 where the kernel does not tell: the holder is in another container or on another host.
    """
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def holder_of(path: str, byte: int = LIFE) -> tuple[int, int] | None:
    """Return (process id, when the file was last written, in ns) of a locked file.

    None if it is not there or nobody holds it. Raises OSError where that cannot be found out.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        pid = holder(descriptor, byte)
        return None if pid is None else (pid, os.fstat(descriptor).st_mtime_ns)
    finally:
        os.close(descriptor)


def lock_of(state_dir: str) -> str:
    """Return the file that a watchman with this STATE_DIR has locked."""
    return os.path.join(state_dir, "lock")


def watchman_of(state_dir: str) -> tuple[int, int] | None:
    """Return (process id, since when in ns) of the watchman that runs with this STATE_DIR.

    None if none does. Raises WatchmanError where this user may not know.
    """
    lock = lock_of(state_dir)
    try:
        return holder_of(lock)
    except OSError as error:
        raise WatchmanError(
            f"whether watchman runs cannot be told: {lock}: {error.strerror}; try it as the user "
            "it runs as, or as root"
        ) from error


def who(pid: int) -> str:
    """Return how to name a holder in a message."""
    return f"process id {pid}" if pid else "a process in another container or on another host"
