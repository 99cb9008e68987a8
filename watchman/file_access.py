"""Looking at what uploaders made, without trusting it.

Directories are opened one component at a time with ``O_NOFOLLOW``, so that a directory which was
swapped for a symlink is an error and never a way out of the watched tree.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from typing import NamedTuple

from watchman.model import Version, Watch, record_of

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Seen(enum.Enum):
    """What a look at a path found."""

    COMPLETE = "complete"
    """A regular file that nobody has open for writing."""
    BUSY = "busy"
    """A regular file that somebody has open for writing; or nothing can be told at the moment."""
    UNTESTED = "untested"
    """A regular file on which the lease test cannot be made: the settle rule decides."""
    OTHER = "other"
    """A symlink, FIFO, socket, device or directory: never an arrival."""
    GONE = "gone"
    """Nothing there, or no longer reachable below the watch."""


class Look(NamedTuple):
    """The answer of :func:`look`; a file that is complete or untested has a ``version``."""

    seen: Seen
    version: Version | None = None
    error: int = 0
    """Where nothing can be told at the moment, the errno that says why."""

    @property
    def is_unseen(self) -> bool:
        """Whether it could not be looked at; not so where only another program's lease is on it."""
        return self.error not in (0, errno.EAGAIN)


_COMPLETE = Seen.COMPLETE  # for each file; Python 3.11 looks for an enum's member as long as 50 ns
GONE = Look(Seen.GONE)
OTHER = Look(Seen.OTHER)

# No entry, a component that is no directory (any more), or one that became a symlink.
GONE_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
# A single name that is too long is that of no file: one that was made of another's, say.
_NOT_THERE = GONE_ERRNOS | {errno.ENAMETOOLONG}
# A symlink, a socket, a device without a driver.
_OTHER_ERRNOS = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
# No descriptor or memory left; or another program's write lease, which this open has recalled.
LATER_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})

PATH_MAX = 4095
"""Bytes in the longest path that open(2) takes (limits.h, without the closing NUL)."""


_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
"""What SQLite can store. Times end in 1677 and 2262 there; uploaders set others (MFMT)."""


def version_of(status: os.stat_result) -> Version:
    """Return the version that a stat result describes.

    A time before 1677 or after 2262 is given as the nearest that can be stored.
    """
    mtime_ns, changed_ns = status.st_mtime_ns, status.st_ctime_ns
    if not (_LEAST <= mtime_ns <= _MOST and _LEAST <= changed_ns <= _MOST):
        mtime_ns, changed_ns = bounded(mtime_ns), bounded(changed_ns)
    inode = status.st_ino
    if inode > _MOST:
        inode = signed(inode)
    fields = status.st_dev, inode, status.st_size, mtime_ns, changed_ns
    version: Version = record_of(Version, fields)
    return version


def bounded(number: int) -> int:
    """Return the nearest number that fits into 64 bits with a sign."""
    return max(_LEAST, min(number, _MOST))


def signed(number: int) -> int:
    """Return an inode number, of 64 bits without a sign, as one with a sign."""
    return number if number <= _MOST else number - (1 << 64)


def cannot_tell(error: OSError | int) -> Look:
    """Return that something is there and cannot be looked at now, and why: look again later."""
    code = error if isinstance(error, int) else error.errno
    return Look(Seen.BUSY, None, code or errno.EIO)


def open_directory(root: str, relative: str) -> int:
    """Open ``root/relative`` and return an ``O_PATH`` descriptor of it.

    ``root`` comes from the configuration and may contain symlinks; in ``relative``, which
    uploaders control, no component may be one. An empty ``relative`` means the root.
    Raises OSError: ENOENT, ENOTDIR (also for a symlink), EACCES.
    """
    return open_below(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), relative)


def open_watch(watch: Watch) -> int:
    """Return an ``O_PATH`` descriptor of a watch's directory. Raises OSError, as above."""
    return open_directory(watch.top, relative_to(watch.top, watch.path))


def status_of_watch(watch: Watch) -> os.stat_result:
    """Return the status of a watch's directory, by a descriptor only where it matches a pattern.

    Raises OSError.
    """
    if watch.top == watch.path:
        return os.stat(watch.path)
    descriptor = open_watch(watch)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def open_below(descriptor: int, relative: str) -> int:
    """Return ``relative`` opened without following symlinks; ``descriptor`` is closed."""
    try:
        for component in filter(None, relative.split("/")):
            below = os.open(component, PATH_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def for_listing(descriptor: int) -> int:
    """Return a directory's ``O_PATH`` descriptor opened for reading; ``descriptor`` is closed."""
    try:
        return os.open(".", DIRECTORY_FLAGS, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def is_too_long(path: str) -> bool:
    """Say whether no program can open ``path`` as it is."""
    return len(path) > PATH_MAX // 4 and len(os.fsencode(path)) > PATH_MAX


def look(name: str, directory: int, *, closed: bool = False) -> Look:
    """Look at the entry ``name`` of the directory descriptor ``directory``.

    ``closed``: somebody has just closed it after writing, so that it is hardly anything but a
    file. Of other things not even the type is known, and opening a FIFO lets go a writer that
    waits for its reader, opening a device can do anything: their type is asked for first.

    A file counts as complete after the lease test: a read lease is only granted while nobody
    has the file open for writing, through any descriptor or live memory map (fcntl(2)). The
    lease is given back at once, so a writer that opens meanwhile waits for microseconds. The
    calling process must ignore SIGIO.
    """
    try:
        if not closed:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return OTHER
        descriptor = os.open(name, FILE_FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in _OTHER_ERRNOS:
            return OTHER
        if error.errno in GONE_ERRNOS:
            return GONE
        if error.errno in LATER_ERRNOS:
            return cannot_tell(error)
        return _look_without_opening(name, directory)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return OTHER
            seen = Seen.BUSY if error.errno == errno.EAGAIN else Seen.UNTESTED
            return Look(seen, version_of(status))
        # The version is read while the lease is held: nobody can be writing.
        status = os.fstat(descriptor)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return GONE if error.errno in GONE_ERRNOS else cannot_tell(error)
    finally:
        release(descriptor)
    if status.st_nlink == 0:
        return GONE
    complete: Look = record_of(Look, (_COMPLETE, version_of(status), 0))
    return complete


@contextlib.contextmanager
def ignoring_sigio() -> Iterator[None]:
    """Ignore SIGIO meanwhile, for :func:`look`: a lease that a writer breaks while we hold it."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGIO, before)


def release(descriptor: int) -> None:
    """Close a descriptor through which nothing was written.

    A file system of a program or another host that goes away answers close(2) with an error, as
    if something had not been written; the descriptor is given back all the same (close(2)).
    """
    try:
        os.close(descriptor)
    except OSError:
        return


def _look_without_opening(name: str, directory: int) -> Look:
    """What can be said of a file that may not be opened for reading."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        # Where the directory must not be searched, its files are not gone.
        return GONE if error.errno in _NOT_THERE else cannot_tell(error)
    if not stat.S_ISREG(status.st_mode):
        return OTHER
    return Look(Seen.UNTESTED, version_of(status))


def relative_to(root: str, path: str) -> str:
    """Return ``path`` below ``root`` without a leading slash; empty for the root itself.

    Raises ValueError if ``path`` is not below ``root``.
    """
    if path == root:
        return ""
    prefix = root.rstrip("/") + "/"
    if not path.startswith(prefix):
        raise ValueError(f"{path} is not below {root}")
    return path[len(prefix) :]
