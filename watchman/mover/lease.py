"""A read lease on a file for the microseconds of its rename, and what the recorded version is."""

from __future__ import annotations

import fcntl
import os
import stat

from watchman import mounts
from watchman.file_access import FILE_FLAGS, GONE, Look, Seen, look, release, version_of
from watchman.identity import is_same_content
from watchman.model import Delivery, Version
from watchman.mover.syscalls import status_of


class Lease:
    """A look at a file that keeps the read lease until it is closed. A context manager.

    Whoever opens the file for writing meanwhile waits in open(2), and :meth:`broken` says so: the
    rename can then be undone before the writer goes on. Where no lease can be had
    (``Seen.UNTESTED``) it is a look and nothing more. The process must ignore SIGIO.
    """

    __slots__ = ("_descriptor", "_directory", "_name", "_status")

    def __init__(self, name: str, directory: int) -> None:
        """Take the lease on ``name`` in the open ``directory``; never raises OSError."""
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
            # Under the lease: size and time cannot change behind it.
            self._status = os.fstat(descriptor)
        except OSError:
            release(descriptor)
            return
        self._descriptor = descriptor

    def look(self) -> Look:
        """Return what was found under the lease; without one, what is there now."""
        status = self._status
        if status is None:
            return look(self._name, self._directory)
        if status.st_nlink == 0 or not stat.S_ISREG(status.st_mode):
            return GONE
        return Look(Seen.COMPLETE, version_of(status))

    def is_unchanged(self, row: Delivery) -> bool:
        """Say whether the file is, by its ctime too, just what was recorded.

        Then :meth:`is_of` is true and no newer arrival can be meant. So is nearly every file, and
        this takes a third of the time. False says nothing.
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
            return found.seen is not Seen.BUSY and matches(row, found.version)
        return status.st_nlink > 0 and stat.S_ISREG(status.st_mode) and matches_status(row, status)

    def broken(self) -> bool:
        """Say whether somebody waits to write to the file."""
        if self._descriptor < 0:
            return False
        # The kernel shows the type it is breaking to: F_UNLCK once a writer waits (fcntl(2)).
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def close(self) -> None:
        """Give the lease back."""
        if self._descriptor >= 0:
            release(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_tree(row: Delivery) -> bool:
    """Say whether the delivery is a whole directory."""
    return row.kind == "directories"


def matches(row: Delivery, version: Version | None) -> bool:
    """Say whether ``version`` is the one that was recorded; None never is.

    A directory counts by its inode only: its size and mtime change with its entries.
    """
    if version is None:
        return False
    if is_tree(row):
        return version.inode == row.version.inode
    return is_same_content(row.version, version)


def matches_status(row: Delivery, status: os.stat_result) -> bool:
    """Say whether a stat result is of the version that was recorded: :func:`matches`."""
    if (status.st_ino, status.st_size, status.st_mtime_ns) == row.version[1:4]:
        return True  # as nearly always
    return matches(row, version_of(status))


def look_at(row: Delivery, name: str, directory: int) -> Look:
    """Look at an entry of an open directory as what the delivery is: a file or a directory.

    Raises OSError where a directory cannot be looked at.
    """
    if not is_tree(row):
        return look(name, directory)
    status = status_of(name, directory)
    if status is None:
        return GONE
    if not stat.S_ISDIR(status.st_mode):
        return Look(Seen.OTHER)
    return Look(Seen.COMPLETE, version_of(status))
