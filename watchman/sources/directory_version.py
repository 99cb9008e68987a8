"""What tells a directory from another one that later stands under the same name."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import struct
from dataclasses import dataclass
from typing import Any

from watchman.file_access import (
    DIRECTORY_FLAGS,
    GONE,
    GONE_ERRNOS,
    Look,
    Seen,
    bounded,
    cannot_tell,
    look,
    signed,
)
from watchman.model import Version

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_BTIME = struct.Struct("qI")
_BTIME_OFFSET = 80
_NOT_COUNTED = GONE_ERRNOS | {errno.EACCES, errno.EPERM}
DEEPEST = 100
"""Levels of directories that are followed: each costs a descriptor."""


@functools.cache
def _statx() -> Any:
    """Return the C library's statx(2), which Python has no function for; None if it has none."""
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


def birth_ns(name: str, directory: int) -> int:
    """Return when the entry ``name`` was made; 0 where the file system does not keep it.

    ext4, XFS, Btrfs and tmpfs do. The layout of ``struct statx`` is in statx(2). An empty name
    stands for the directory itself, here and in :func:`identify`.
    """
    statx = _statx()
    if statx is None:
        return 0
    buffer = ctypes.create_string_buffer(256)
    path = os.fsencode(name)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH
    if statx(directory, path, flags, _STATX_BTIME, buffer) != 0:
        return 0
    (mask,) = struct.unpack_from("I", buffer)
    if not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return int(seconds * 1_000_000_000 + nanoseconds)


def identify(name: str, directory: int) -> tuple[Version, int] | None:
    """Return a directory's identity and its ctime in ns; None if there is no directory.

    Raises OSError where that cannot be told.

    The identity is a Version that stays the same whatever changes inside: no size, and the time
    when the directory was made for an mtime. An inode number alone is soon used again. Both fit
    into 64 bits with a sign, whatever the file system says.
    """
    try:
        if name:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        else:
            status = os.fstat(directory)
    except OSError as error:
        if error.errno in GONE_ERRNOS:
            return None
        raise
    if not stat.S_ISDIR(status.st_mode):
        return None
    made_ns = bounded(birth_ns(name, directory))
    return Version(status.st_dev, signed(status.st_ino), 0, made_ns), bounded(status.st_ctime_ns)


def look_inside(name: str, marker: str, descriptor: int) -> Look:
    """Look at the file ``marker`` in the directory ``name``."""
    try:
        inside = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        return GONE if error.errno in GONE_ERRNOS else cannot_tell(error)
    try:
        return look(marker, inside)
    finally:
        os.close(inside)


@dataclass
class Contents:
    """What a walk below a directory found; equal while nothing there changes."""

    entries: int = 0
    size: int = 0
    """The sum of all sizes in bytes."""
    mtime_ns: int = 0
    """The newest modification below, or of the directory itself."""
    ctime_ns: int = 0
    busy: bool = False
    """Somebody has a file below open for writing."""

    def count(self, status: os.stat_result) -> None:
        """Add one entry."""
        self.entries += 1
        self.size += status.st_size
        self.mtime_ns = max(self.mtime_ns, status.st_mtime_ns)
        self.ctime_ns = max(self.ctime_ns, status.st_ctime_ns)


def walk_inside(name: str, directory: int) -> Contents:
    """Look at all that is below a directory, without following symlinks.

    What vanishes meanwhile changes its directory's mtime, which the next walk sees. What may not
    be read, or lies deeper than DEEPEST, does not count. Raises OSError where nothing can be told:
    that no descriptor is left does not mean that nothing changes.
    """
    inside = Contents()
    _walk(name, directory, inside, DEEPEST)
    return inside


def _walk(name: str, directory: int, inside: Contents, levels: int) -> None:
    try:
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in _NOT_COUNTED:
            return
        raise
    try:
        inside.count(os.fstat(descriptor))
        with os.scandir(descriptor) as found:
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    _count_file(entry, descriptor, inside)
                elif levels:
                    _walk(entry.name, descriptor, inside, levels - 1)
    finally:
        os.close(descriptor)


def _count_file(entry: os.DirEntry[str], directory: int, inside: Contents) -> None:
    try:
        inside.count(entry.stat(follow_symlinks=False))
        is_file = entry.is_file(follow_symlinks=False)
    except OSError as error:
        if error.errno in _NOT_COUNTED:
            return
        raise
    if is_file:
        found = look(entry.name, directory)
        if found.is_unseen and found.error not in _NOT_COUNTED:
            raise OSError(found.error, os.strerror(found.error))
        inside.busy |= found.seen is Seen.BUSY
