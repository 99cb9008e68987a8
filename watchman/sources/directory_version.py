"""What is inside a directory, and whether it changes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from watchman.file_access import (
    DIRECTORY_FLAGS,
    GONE,
    GONE_ERRNOS,
    Look,
    Seen,
    cannot_tell,
    look,
)

_NOT_COUNTED = GONE_ERRNOS | {errno.EACCES, errno.EPERM}
DEEPEST = 100
"""Levels of directories that are followed: each costs a descriptor."""


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
