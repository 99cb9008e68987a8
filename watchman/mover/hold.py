"""Keeping writers out of a file for the microseconds of its rename."""

from __future__ import annotations

import fcntl
import os
import stat
from types import TracebackType

from watchman import mounts
from watchman.filesystem import FILE_FLAGS, GONE, Look, Seen, look, release, version_of
from watchman.identity import is_same_content
from watchman.model import Delivery, Version
from watchman.mover.syscalls import status_of


class Hold:
    """A look at a file that keeps the read lease until it is closed.

    Whoever opens the file for writing meanwhile waits in open(2), and :meth:`wanted` says so: the
    rename can then be undone before the writer goes on. Without a lease (``Seen.UNTESTED``) it
    is a look and nothing more. The process must ignore SIGIO.
    """

    __slots__ = ("_descriptor", "_directory", "_name", "_status")

    def __init__(self, name: str, directory: int) -> None:
        self._name = name
        self._directory = directory
        self._descriptor = -1
        self._status: os.stat_result | None = None
        try:
            descriptor = os.open(name, FILE_FLAGS, dir_fd=directory)
        except OSError:
            return
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self._status = os.fstat(descriptor)
        except OSError:
            release(descriptor)
            return
        self._descriptor = descriptor

    def look(self) -> Look:
        """Return what there is; without the lease, what there is now."""
        status = self._status
        if status is None:
            return look(self._name, self._directory)
        if status.st_nlink == 0 or not stat.S_ISREG(status.st_mode):
            return GONE
        return Look(Seen.COMPLETE, version_of(status))

    def is_beyond_doubt(self, row: Delivery) -> bool:
        """Say whether it is just as it was recorded: then :meth:`is_of` holds, without a doubt.

        So is nearly every file, and that is told in a third of the time.
        """
        status = self._status
        if (
            status is None
            or status.st_nlink == 0
            or not mounts.stability(status.st_dev).ctime_tells
        ):
            return False
        numbers = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return numbers == row.version[1:] and stat.S_ISREG(status.st_mode)

    def is_of(self, row: Delivery) -> bool:
        """Say whether it is the file that was recorded, and nobody is writing it."""
        status = self._status
        if status is None:
            found = self.look()
            return found.seen is not Seen.BUSY and same(row, found.version)
        return status.st_nlink > 0 and stat.S_ISREG(status.st_mode) and is_same(row, status)

    def wanted(self) -> bool:
        """Say whether somebody waits to write to the file."""
        if self._descriptor < 0:
            return False
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def close(self) -> None:
        """Give the lease back."""
        if self._descriptor >= 0:
            release(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_tree(row: Delivery) -> bool:
    """Say whether the delivery is a whole directory."""
    return row.kind == "directories"


def same(row: Delivery, version: Version | None) -> bool:
    """Say whether ``version`` is the one that was recorded.

    A directory is the same as long as its inode is: its size and mtime change with its entries.
    """
    if version is None:
        return False
    if is_tree(row):
        return version.inode == row.version.inode
    return is_same_content(row.version, version)


def is_same(row: Delivery, status: os.stat_result) -> bool:
    """Say whether a stat result is of the version that was recorded."""
    if (status.st_ino, status.st_size, status.st_mtime_ns) == row.version[1:4]:
        return True  # as nearly always
    return same(row, version_of(status))


def look_at(row: Delivery, name: str, directory: int) -> Look:
    """Look at an entry as the unit that the delivery is: a file or a directory."""
    if not is_tree(row):
        return look(name, directory)
    # Other errors are raised: what cannot be looked at has not vanished.
    status = status_of(name, directory)
    if status is None:
        return GONE
    if not stat.S_ISDIR(status.st_mode):
        return Look(Seen.OTHER)
    return Look(Seen.COMPLETE, version_of(status))
