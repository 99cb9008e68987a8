"""The pid file: a lock first, and a number for people second.

The daemon holds a lock on the file's first byte for its whole life, so a file that is stale,
empty, or names a process that got the number since, is told from a real one by asking the
kernel. The second byte guards the moments in which the file is claimed or removed: without it,
one process could remove the file that another has just opened.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from watchman import record_locks
from watchman.errors import AlreadyRunning

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_LONGEST = 32
"""Bytes in a pid file at the most."""
_NUMBER = re.compile(rb"[\s\0]*-?\d*[\s\0]*")


class PidFile:
    """A pid file that this process holds."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def remove(self) -> None:
        """Remove the file, if the path still leads to ours, and let go of it."""
        record_locks.wait_for(self._descriptor)
        if _leads_to(self.path, self._descriptor):
            with contextlib.suppress(OSError):  # a directory that has become read-only
                os.unlink(self.path)
        os.close(self._descriptor)


def claim(path: str) -> PidFile:
    """Make the pid file, or take a left-over one over, and hold it.

    Raises AlreadyRunning if another process holds it, OSError if it cannot be written, or is
    another file: a setting may name anything.
    """
    while True:
        descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "it is no regular file")
            with _guarded(descriptor):
                if not _leads_to(path, descriptor):
                    continue  # removed since it was opened, by whoever held it
                if not record_locks.take(descriptor):
                    pid = record_locks.holder(descriptor)
                    if pid is None:
                        continue
                    raise AlreadyRunning(f"already running with {record_locks.who(pid)}")
                if not _is_left_over(descriptor):
                    raise OSError(0, "it holds something else than the number of a process")
                os.ftruncate(descriptor, 0)
                os.write(descriptor, b"%d\n" % os.getpid())
                claimed, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return PidFile(path, claimed)


def clear(path: str) -> bool:
    """Remove a pid file that nobody holds; say whether there was one."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        with _guarded(descriptor):
            if record_locks.holder(descriptor) is not None or not _leads_to(path, descriptor):
                return False
            if not _is_left_over(descriptor):
                return False
            os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _guarded(descriptor: int) -> Iterator[None]:
    record_locks.wait_for(descriptor)
    try:
        yield
    finally:
        record_locks.let_go(descriptor)


def _is_left_over(descriptor: int) -> bool:
    """Say whether a file may be the pid file of an earlier process: it is empty, or a number.

    Zeros are what some file systems have after a power cut.
    """
    content = os.pread(descriptor, _LONGEST + 1, 0)
    return len(content) <= _LONGEST and _NUMBER.fullmatch(content) is not None


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False
