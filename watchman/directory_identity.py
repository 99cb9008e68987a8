"""What tells a directory from another one that later stands under the same name."""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct
from typing import Any

from watchman.file_access import GONE_ERRNOS, bounded, signed
from watchman.model import Version

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_BTIME = struct.Struct("qI")
_BTIME_OFFSET = 80


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


def identity_at(path: str) -> Version | None:
    """Return the identity of the directory at a path; None if there is none. Raises OSError."""
    try:
        directory = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in GONE_ERRNOS:
            return None
        raise
    try:
        found = identify("", directory)
    finally:
        os.close(directory)
    return None if found is None else found[0]
