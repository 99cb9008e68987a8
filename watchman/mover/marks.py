"""What a copy to another file system leaves beside itself until it is done.

TEMP (a second link of the finished copy) or, for trees and where there are no links, MARK (a file
that holds the copy's inode number) say that the entry at the final path is ours.
"""

from __future__ import annotations

import errno
import os
import stat

from watchman.filesystem import version_of
from watchman.model import Delivery
from watchman.mover.hold import is_tree
from watchman.mover.names import mark_name, temporary_name
from watchman.mover.syscalls import (
    remove,
    same_inode,
    status_at_destination,
    status_of,
    sync_directory,
)
from watchman.mover.tree import remove_tree, same_time


def is_placed(row: Delivery, final: str, target: int) -> bool:
    """Say whether the entry ``final`` is a complete copy that we put there.

    Raises OSError where this cannot be told: to copy again would make a second one.
    """
    there = status_at_destination(final, target)
    if there is None:
        return False
    temporary = status_of(temporary_name(row.task_id), target)
    if temporary is not None and not is_tree(row):
        return same_inode(there, temporary)
    return _read_mark(row, target) == str(there.st_ino)


def alike(row: Delivery, there: os.stat_result) -> bool:
    """Say whether an entry could be the copy, going by what a copy takes with it."""
    if not same_time(row.version.mtime_ns, version_of(there).mtime_ns):
        return False
    if is_tree(row):
        return stat.S_ISDIR(there.st_mode)
    return stat.S_ISREG(there.st_mode) and there.st_size == row.version.size


def _read_mark(row: Delivery, target: int) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(mark_name(row.task_id), flags, dir_fd=target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return ""  # none, or nothing of ours
        raise
    try:
        return os.read(descriptor, 32).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def write_mark(row: Delivery, target: int, copied: os.stat_result) -> None:
    """Record durably which inode our copy is, where a second link cannot say it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(mark_name(row.task_id), flags, 0o600, dir_fd=target)
    try:
        os.write(descriptor, f"{copied.st_ino}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(target)


def clean_up(row: Delivery, target: int) -> None:
    """Remove what is left of a finished or given-up copy in the destination directory."""
    if is_tree(row):
        remove_tree(temporary_name(row.task_id), target)
    else:
        remove(temporary_name(row.task_id), target)
    remove(mark_name(row.task_id), target)
