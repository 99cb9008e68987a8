"""Whole directories: walked, copied, compared and removed through descriptors only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from watchman.file_access import DIRECTORY_FLAGS, FILE_FLAGS, Seen, look
from watchman.model import State
from watchman.mover.copy import SECTOR, CopyProgress, copy_attributes, copy_file, same_bytes
from watchman.mover.outcomes import SourceChanged, Terminal
from watchman.mover.syscalls import status_of

DEEPEST = 100
"""Levels of directories that are followed: each costs descriptors."""

# How inexactly a file system may keep times: the coarsest (FAT), and the finest that does so.
_TICK_NS = 2_000_000_000
_FINEST_NS = 100
_CANNOT_SEE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES})


def same_time(wanted_ns: int, found_ns: int) -> bool:
    """Compare an mtime with that of a copy, whose file system may keep it less exactly.

    FAT keeps even seconds, NTFS 100 ns, ext3 and others whole seconds.
    """
    if wanted_ns == found_ns:
        return True
    return found_ns % _FINEST_NS == 0 and abs(wanted_ns - found_ns) < _TICK_NS


@contextmanager
def opened(name: str, directory: int) -> Iterator[int]:
    """Open a directory entry that must be a real directory, for reading."""
    descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _entries(directory: int) -> list[tuple[str, os.stat_result]]:
    found = ((name, status_of(name, directory)) for name in sorted(os.listdir(directory)))
    return [(name, status) for name, status in found if status is not None]


def busy(name: str, directory: int, depth: int = 0) -> bool:
    """Say whether anybody has a file in the tree open for writing, as far as can be seen."""
    try:
        with opened(name, directory) as here:
            return any(_is_busy(entry, status, here, depth) for entry, status in _entries(here))
    except OSError as error:
        if error.errno in _CANNOT_SEE:
            return False
        raise


def _is_busy(entry: str, status: os.stat_result, here: int, depth: int) -> bool:
    if stat.S_ISREG(status.st_mode):
        return look(entry, here).seen is Seen.BUSY
    return stat.S_ISDIR(status.st_mode) and depth < DEEPEST and busy(entry, here, depth + 1)


def room_for(name: str, directory: int, depth: int = 0) -> tuple[int, int]:
    """Return the size of a tree's files in bytes, and how much of it needs room: not its holes.

    Raises Terminal for what cannot be copied.
    """
    if depth > DEEPEST:
        raise Terminal(State.FAILED, f"deeper than {DEEPEST} directories: cannot be copied")
    total = stored = 0
    with opened(name, directory) as here:
        for entry, status in _entries(here):
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
                stored += min(status.st_size, status.st_blocks * SECTOR)
            elif stat.S_ISDIR(status.st_mode):
                below, stored_below = room_for(entry, here, depth + 1)
                total, stored = total + below, stored + stored_below
            elif not stat.S_ISLNK(status.st_mode):
                raise Terminal(
                    State.FAILED,
                    "holds a FIFO, socket or device, which is not copied to another file system",
                )
    return total, stored


def copy_tree(
    name: str, directory: int, new: str, new_directory: int, progress: CopyProgress
) -> None:
    """Copy a directory to a name that must not exist, and make every part of it durable."""
    os.mkdir(new, 0o700, dir_fd=new_directory)
    with opened(name, directory) as here, opened(new, new_directory) as there:
        for entry, status in _entries(here):
            _copy_entry(entry, status, here, there, progress)
        copy_attributes(here, os.fstat(here), there)
        os.fsync(there)


def _copy_entry(
    entry: str, status: os.stat_result, here: int, there: int, progress: CopyProgress
) -> None:
    if stat.S_ISDIR(status.st_mode):
        copy_tree(entry, here, entry, there, progress)
    elif stat.S_ISREG(status.st_mode):
        copy_file(entry, here, entry, there, progress)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(entry, dir_fd=here), entry, dir_fd=there)
        os.utime(
            entry,
            ns=(status.st_atime_ns, status.st_mtime_ns),
            dir_fd=there,
            follow_symlinks=False,
        )
    else:
        raise SourceChanged  # room_for() refused such a thing: it came in since


def same_file(
    name: str, directory: int, other: str, other_directory: int, check: Callable[[], None]
) -> bool:
    """Read two regular files and say whether they are equal and were left alone meanwhile."""
    try:
        ours = os.open(name, FILE_FLAGS, dir_fd=directory)
    except BlockingIOError:
        raise SourceChanged from None  # another program's write lease
    try:
        try:
            theirs = os.open(other, FILE_FLAGS, dir_fd=other_directory)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            raise SourceChanged from None
        try:
            before = os.fstat(ours)
            return (
                stat.S_ISREG(before.st_mode)
                and before.st_size == os.fstat(theirs).st_size
                and same_bytes(ours, theirs, before.st_size, check)
                and os.fstat(ours).st_ctime_ns == before.st_ctime_ns
            )
        finally:
            os.close(theirs)
    finally:
        os.close(ours)


def same_tree(
    name: str,
    directory: int,
    other: str,
    other_directory: int,
    check: Callable[[], None],
    *,
    read: bool,
) -> bool:
    """Say whether two trees have the same names, types, sizes, link targets and contents.

    Without ``read`` only files whose times differ are read. They may have been written to, or the
    file system of one tree cannot keep the time (ext4 none after 2446 or before 1901). ``check`` is
    called before each piece and may raise to stop half-way.
    """
    with opened(name, directory) as here, opened(other, other_directory) as there:
        ours, theirs = _entries(here), dict(_entries(there))
        if [entry for entry, _ in ours] != sorted(theirs):
            return False
        return all(
            _same_entry(entry, status, theirs[entry], here, there, check, read=read)
            for entry, status in ours
        )


def _same_entry(
    entry: str,
    ours: os.stat_result,
    theirs: os.stat_result,
    here: int,
    there: int,
    check: Callable[[], None],
    *,
    read: bool,
) -> bool:
    if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode):
        return False
    if stat.S_ISDIR(ours.st_mode):
        return same_tree(entry, here, entry, there, check, read=read)
    if stat.S_ISLNK(ours.st_mode):
        return os.readlink(entry, dir_fd=here) == os.readlink(entry, dir_fd=there)
    if ours.st_size != theirs.st_size:
        return False
    same = not read and same_time(ours.st_mtime_ns, theirs.st_mtime_ns)
    return same or same_file(entry, here, entry, there, check)


def remove_tree(name: str, directory: int, check: Callable[[], None] = lambda: None) -> None:
    """Remove a tree, or a file, of our own; it may be gone already.

    ``check`` is called before each directory and may raise to stop half-way.
    """
    check()
    try:
        with opened(name, directory) as here:
            for entry, status in _entries(here):
                if stat.S_ISDIR(status.st_mode):
                    remove_tree(entry, here, check)
                else:
                    os.unlink(entry, dir_fd=here)
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=directory)
