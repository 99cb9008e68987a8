"""The system calls that Python lacks, and the ones that must be made in a certain way."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable

_RENAME_NOREPLACE = 1
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS})
# Nothing of that name, also where a directory on the way has just been removed or replaced. Only
# these mean "gone" below a root: of any other error, ESTALE too, nobody knows.
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# What a file system says of a name that it cannot hold: too long, or of characters it refuses.
_NO_SUCH_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
# What link(2) says on a file system without hard links.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Return the C library's renameat2(2); None where it has none (glibc before 2.28)."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        function = library.renameat2
    except AttributeError:
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    function.restype = ctypes.c_int
    call: Callable[[int, bytes, int, bytes, int], int] = function
    return call


def rename_noreplace(
    old: str, old_directory: int, new: str, new_directory: int, *, tree: bool = False
) -> None:
    """Rename within one file system; never replace anything.

    ``tree`` says that ``old`` is a directory. Raises FileExistsError if ``new`` exists in any
    form, OSError EXDEV across file systems, and what rename(2) raises.
    """
    call = _renameat2()
    code = errno.ENOSYS
    if call is not None:
        if not call(
            old_directory, os.fsencode(old), new_directory, os.fsencode(new), _RENAME_NOREPLACE
        ):
            return
        code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), new)
    if tree:
        _rename_tree(old, old_directory, new, new_directory)
    else:
        _link_and_unlink(old, old_directory, new, new_directory)


def _link_and_unlink(old: str, old_directory: int, new: str, new_directory: int) -> None:
    """Rename a file where there is no renameat2(2), as on NFS.

    A crash in between leaves two names of one inode.
    """
    try:
        os.link(
            old,
            new,
            src_dir_fd=old_directory,
            dst_dir_fd=new_directory,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno in NO_LINKS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), new) from error
        raise
    unlink_if_same(old, old_directory, new, new_directory)


def unlink_if_same(old: str, old_directory: int, new: str, new_directory: int) -> None:
    """Remove the name ``old`` if it is still the same inode as ``new``."""
    there = os.stat(new, dir_fd=new_directory, follow_symlinks=False)
    here = os.stat(old, dir_fd=old_directory, follow_symlinks=False)
    if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        os.unlink(old, dir_fd=old_directory)


def _rename_tree(old: str, old_directory: int, new: str, new_directory: int) -> None:
    """Rename a directory where there is no renameat2(2): over an empty one of our own.

    rename(2) refuses if somebody has put something into that meanwhile.
    """
    os.mkdir(new, 0o700, dir_fd=new_directory)
    try:
        os.rename(old, new, src_dir_fd=old_directory, dst_dir_fd=new_directory)
    except OSError:
        os.rmdir(new, dir_fd=new_directory)
        raise


def status_of(name: str, directory: int) -> os.stat_result | None:
    """Return the lstat of an entry of an open directory, None if there is none.

    Raises OSError where this cannot be told: what cannot be looked at is not absent.
    """
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise


def status_at_destination(name: str, directory: int) -> os.stat_result | None:
    """Return the lstat of an entry, None also if the file system can never hold such a name.

    Raises OSError where this cannot be told.
    """
    try:
        return status_of(name, directory)
    except OSError as error:
        if error.errno in _NO_SUCH_NAME:
            return None
        raise


def exists(name: str, directory: int) -> bool:
    """Say whether a destination has an entry of this name, be it a dangling symlink.

    Raises OSError where this cannot be told.
    """
    return status_at_destination(name, directory) is not None


def same_inode(one: os.stat_result, other: os.stat_result | None) -> bool:
    """Say whether two stat results are of one inode; they must be of the same moment."""
    return other is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def link_descriptor(descriptor: int, new: str, directory: int) -> None:
    """Give the open file a name: this inode, whatever its other names lead to by now.

    Raises FileExistsError if ``new`` exists in any form; FileNotFoundError where the file has
    lost its last name meanwhile; and what link(2) raises.
    """
    os.link(f"/proc/self/fd/{descriptor}", new, dst_dir_fd=directory, follow_symlinks=True)


def remove(name: str, directory: int) -> None:
    """Unlink a file; it may be gone already."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def sync_directory(descriptor: int) -> None:
    """Make the entries of a directory durable. ``descriptor`` may be an ``O_PATH`` one."""
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    except PermissionError:
        os.sync()  # may be written but not read: nothing smaller can be synced
        return
    except FileNotFoundError:
        return  # the directory was removed meanwhile, and its entries with it
    try:
        os.fsync(readable)
    finally:
        os.close(readable)
