"""Copying one file's bytes and attributes to another file system, durably, and reading it back.

Sizes and return values have lied (two writers of one temporary name; network file systems), so copy
and source are compared before the copy gets its name: 0.13 s of CPU for a GiB from the page cache,
next to nothing of the time that the copy takes. What is a hole is neither copied nor read.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from watchman.file_access import FILE_FLAGS, Seen, look, release, version_of
from watchman.mover.outcomes import Cancelled, DirectoryError, SourceChanged
from watchman.text import printable, size, span

log = logging.getLogger("watchman.mover")

CHUNK = 8 << 20
"""Bytes in one call: what a stop or a look at the progress has to wait for."""
PIECE = 256 << 10
"""Bytes that are compared at once: two buffers of this size, and microseconds of the
interpreter's lock; it is let go while they are read."""
SYNC_EVERY = 256 << 20
"""Bytes between two flushes, so that the last one does not take minutes."""
REPORT_EVERY = 10.0
"""Seconds between two lines about a copy in progress."""

SECTOR = 512
"""Bytes of a block that stat counts (``st_blocks``)."""
# What copy_file_range(2) and sendfile(2) say where they cannot do it and read + write can.
_NEXT_METHOD = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}
)
# FS_IOC_GETFLAGS; FS_IMMUTABLE_FL and FS_APPEND_FL, from linux/fs.h.
_GET_FLAGS = 0x80086601
_CANNOT_BE_REMOVED = 0x10 | 0x20
_KEPT_ATTRIBUTES = ("user.", "system.posix_acl_")


class CopyProgress:
    """How far a copy is, in bytes. Written by the copying thread, read by any.

    By it the copying thread also learns that the mover has been told to stop.
    """

    def __init__(self, source: str, final: str, stop: threading.Event) -> None:
        self.source = source
        self.final = final
        self.total = 0
        self.done = 0
        self._stop = stop
        self.begin: Callable[[], None] = lambda: None
        """Called when there is room, before the first byte; of a tree more often."""
        self.began = self._said = time.monotonic()

    def check(self) -> None:
        """Raise Cancelled once the mover has been told to stop."""
        if self._stop.is_set():
            raise Cancelled

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes; raise Cancelled once the mover has been told to stop."""
        self.check()
        self.done += count
        now = time.monotonic()
        if now - self._said >= REPORT_EVERY:
            self._said = now
            rate = self.done / max(now - self.began, 1.0)
            log.info(
                "Copying %s to %s: %s of %s, %s/s, %s left",
                printable(self.source),
                printable(self.final),
                size(self.done),
                size(self.total),
                size(rate),
                span((self.total - self.done) / max(rate, 1.0)),
            )


class Copied(NamedTuple):
    """A whole copy that has no final name yet."""

    descriptor: int
    """Of the copy: what is placed is this inode."""
    source: os.stat_result
    """What the source was when its content was found to be equal to the copy's."""


@contextmanager
def copied(
    name: str, directory: int, new: str, new_directory: int, progress: CopyProgress
) -> Iterator[Copied]:
    """Copy a regular file to a name that must not exist; keep the copy open meanwhile.

    When it yields, content, holes, mode, times, owner (as root) and attributes are durable, and the
    content was found equal to the source's. Raises SourceChanged if the source is no regular file,
    or was changed or opened for writing meanwhile. What was written until then is left to the
    caller, also on OSError.
    """
    source = _open_source(name, directory)
    try:
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            raise SourceChanged
        _refuse_undeletable(source, before, directory, name)
        require_room(data_size(source, before.st_size), new_directory, progress.final)
        progress.begin()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(new, flags, 0o600, dir_fd=new_directory)
        try:
            _write_copy(source, before, target, progress)
            _verify(source, before, target, progress)
            _refuse_changed(name, directory, source, before)
            yield Copied(target, before)
        finally:
            # It was flushed and compared: an error of close(2) says nothing of it.
            release(target)
    finally:
        release(source)


def copy_file(
    name: str, directory: int, new: str, new_directory: int, progress: CopyProgress
) -> None:
    """Copy a regular file: :func:`copied` where nothing is done before the copy is closed."""
    with copied(name, directory, new, new_directory, progress):
        return


def _open_source(name: str, directory: int) -> int:
    try:
        return os.open(name, FILE_FLAGS, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError, BlockingIOError):
        raise SourceChanged from None  # gone, or another program's write lease is being recalled
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise SourceChanged from None
        raise


def _refuse_undeletable(source: int, status: os.stat_result, directory: int, name: str) -> None:
    """Raise DirectoryError or PermissionError where a file could not be removed after its copy.

    Its copy would lie in the destination without a task until somebody sees to it.
    """
    above = os.stat(".", dir_fd=directory)
    sticky = above.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid, above.st_uid)
    if sticky or _is_immutable(source):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        raise DirectoryError(errno.EACCES, os.strerror(errno.EACCES), name)


def _is_immutable(descriptor: int) -> bool:
    """Say whether ``chattr +i`` or ``+a`` keeps the file where it is (ioctl_iflags(2))."""
    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
    except OSError:
        return False  # a file system without such flags
    return bool(int.from_bytes(flags[:4], sys.byteorder) & _CANNOT_BE_REMOVED)


def _write_copy(source: int, status: os.stat_result, target: int, progress: CopyProgress) -> None:
    copy_bytes(source, target, status.st_size, progress)
    copy_attributes(source, status, target)
    os.fsync(target)


def _verify(source: int, status: os.stat_result, target: int, progress: CopyProgress) -> None:
    """Raise SourceChanged unless the copy has the size and the content of the source.

    Both are read: what the system calls returned is not relied on.
    """
    if os.fstat(target).st_size != status.st_size:
        raise SourceChanged
    if not same_bytes(source, target, status.st_size, progress.check):
        raise SourceChanged


def _refuse_changed(name: str, directory: int, source: int, before: os.stat_result) -> None:
    """Raise SourceChanged unless the file was left alone since ``before``.

    The ctime shows writes that the mtime can hide.
    """
    after = os.fstat(source)
    now = look(name, directory)
    if (
        now.seen not in (Seen.COMPLETE, Seen.UNTESTED)
        or now.version is None
        or now.version.inode != version_of(before).inode
        or after.st_ctime_ns != before.st_ctime_ns
        or after.st_size != before.st_size
    ):
        raise SourceChanged


class NoRoomError(OSError):
    """This file does not fit; smaller ones may."""


def require_room(size: int, target: int, final: str) -> None:
    """Raise NoRoomError where ``size`` bytes do not fit into the open directory's file system.

    A copy that cannot be finished would fill it to the brim.
    """
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    try:
        room = os.fstatvfs(readable)
    finally:
        os.close(readable)
    free = room.f_bavail * room.f_frsize
    if room.f_blocks and size > free:
        reason = f"{size} bytes needed, {free} free"
        raise NoRoomError(errno.ENOSPC, reason, final)


def copy_bytes(source: int, target: int, size: int, progress: CopyProgress) -> None:
    """Copy ``size`` bytes in chunks by the cheapest way that works, and leave holes out.

    Copying range by range keeps holes also where copy_file_range(2) would fill them; where the
    file system shares blocks (reflink), it shares those of the ranges.
    """
    methods: list[Callable[[int, int, int, int], int]] = [
        _by_range,
        _by_sendfile,
        _by_read_and_write,
    ]
    offset, flushed = 0, 0
    for start, end in data_ranges(source, size):
        progress.advance(start - offset)
        offset = start
        while offset < end:
            count = _copy_piece(methods, source, target, offset, min(CHUNK, end - offset))
            if count == 0:
                raise SourceChanged  # the file got shorter
            offset += count
            progress.advance(count)
            if offset - flushed >= SYNC_EVERY:
                os.fdatasync(target)
                flushed = offset
    if offset < size:
        os.ftruncate(target, size)  # it ends in a hole
        progress.advance(size - offset)


def _copy_piece(
    methods: list[Callable[[int, int, int, int], int]],
    source: int,
    target: int,
    offset: int,
    count: int,
) -> int:
    """Copy up to ``count`` bytes and return how many; drop a method that cannot do it."""
    while True:
        try:
            done = methods[0](source, target, offset, count)
        except OSError as error:
            if error.errno not in _NEXT_METHOD or len(methods) == 1:
                raise
            done = 0
        if done or len(methods) == 1:
            return done
        del methods[0]


def _by_range(source: int, target: int, offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count, offset, offset)


def _by_sendfile(source: int, target: int, offset: int, count: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, offset, count)


def _by_read_and_write(source: int, target: int, offset: int, count: int) -> int:
    data = os.pread(source, min(count, 1 << 20), offset)
    return os.pwrite(target, data, offset)


def copy_attributes(source: int, status: os.stat_result, target: int) -> None:
    """Give a copy the owner (where that is allowed), mode, attributes and times of its source."""
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.fchown(target, status.st_uid, status.st_gid)
    except OSError:
        mode &= 0o3777  # set-user-id would mean another user now
        try:
            os.fchown(target, -1, status.st_gid)
        except OSError:
            mode &= 0o1777
    os.fchmod(target, mode)
    _copy_extended(source, target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_extended(source: int, target: int) -> None:
    """Copy extended attributes as far as both file systems have them."""
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name.startswith(_KEPT_ATTRIBUTES):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                log.debug("Attribute %s is not kept: %s", printable(name), error.strerror)


# Holes: neither copied nor read


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is no hole in the first ``size`` bytes, in order.

    What lies between the ranges reads as zeros. Where the file system keeps no holes, or does not
    tell, there is one range. The descriptor's offset is moved.
    """
    if os.fstat(descriptor).st_blocks * SECTOR >= size:
        if size:
            yield 0, size  # nothing is missing: asking would walk the page cache on tmpfs
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end_of_data = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole up to the end
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            start, end_of_data = end, size
        if start >= size:
            return
        end = min(end_of_data, size)
        yield start, end


def data_size(descriptor: int, size: int) -> int:
    """Return how many of the first ``size`` bytes are no holes."""
    return sum(end - start for start, end in data_ranges(descriptor, size))


def same_bytes(one: int, other: int, size: int, check: Callable[[], None]) -> bool:
    """Read both files and say whether their first ``size`` bytes are equal.

    Where both have holes nothing is read. ``check`` is called before each piece and may raise.
    """
    piece = min(PIECE, size)
    ours, theirs = bytearray(piece), bytearray(piece)
    for start, end in _either(data_ranges(one, size), data_ranges(other, size)):
        for offset in range(start, end, PIECE):
            check()
            length = min(PIECE, end - offset)
            if not (_fill(one, ours, offset, length) and _fill(other, theirs, offset, length)):
                return False
            # Whole buffers: behind a shorter piece lies what was found equal before.
            if ours != theirs:
                return False
    return True


def _fill(descriptor: int, buffer: bytearray, offset: int, length: int) -> bool:
    """Read ``length`` bytes to the beginning of the buffer; False where the file ends before."""
    done = 0
    while done < length:
        count = os.preadv(descriptor, [memoryview(buffer)[done:length]], offset + done)
        if not count:
            return False
        done += count
    return True


def _either(
    ranges: Iterator[tuple[int, int]], others: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the union of two sorted sequences of ranges, in order and without overlap."""
    done = 0
    for start, end in heapq.merge(ranges, others):
        if end > done:
            yield max(start, done), end
            done = end
