"""How a finished copy at the destination is known to be ours, also after a crash.

Beside it in the destination's directory lies TEMP, a second link of it, or MARKER, a file that
holds its inode number: for trees, and where there are no hard links. Both are removed when the
source is gone.
"""

from __future__ import annotations

import errno
import os
import stat

from watchman.file_access import version_of
from watchman.model import Delivery
from watchman.mover.copy_tree import remove_tree, same_time
from watchman.mover.lease import is_tree
from watchman.mover.names import marker_name, temporary_name
from watchman.mover.syscalls import (
    remove,
    same_inode,
    status_at_destination,
    status_of,
    sync_directory,
)


def is_copied(row: Delivery, final: str, target: int) -> bool:
    """Say whether the entry ``final`` of the open directory ``target`` is our finished copy.

    Raises OSError where this cannot be told: to copy again would make a second one.
    """
    there = status_at_destination(final, target)
    if there is None:
        return False
    temporary = status_of(temporary_name(row.task_id), target)
    if temporary is not None and not is_tree(row):
        return same_inode(there, temporary)
    return _read_marker(row, target) == str(there.st_ino)


def resembles(row: Delivery, there: os.stat_result) -> bool:
    """Say whether an entry could be the copy: by type, mtime and, of files, size."""
    if not same_time(row.version.mtime_ns, version_of(there).mtime_ns):
        return False
    if is_tree(row):
        return stat.S_ISDIR(there.st_mode)
    return stat.S_ISREG(there.st_mode) and there.st_size == row.version.size


def _read_marker(row: Delivery, target: int) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(marker_name(row.task_id), flags, dir_fd=target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return ""  # there is none, or what has its name is not ours
        raise
    try:
        return os.read(descriptor, 32).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def write_marker(row: Delivery, target: int, copied: os.stat_result) -> None:
    """Record durably which inode our copy is; ``copied`` is its stat result."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(marker_name(row.task_id), flags, 0o600, dir_fd=target)
    try:
        os.write(descriptor, f"{copied.st_ino}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(target)


def clean_up(row: Delivery, target: int) -> None:
    """Remove TEMP and MARKER from the open directory ``target``; they may be gone already."""
    if is_tree(row):
        remove_tree(temporary_name(row.task_id), target)
    else:
        remove(temporary_name(row.task_id), target)
    remove(marker_name(row.task_id), target)
