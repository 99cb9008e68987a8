"""Where a file has data and where it has holes; comparing two files without reading holes."""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Callable, Iterator

PIECE = 256 << 10
"""Bytes that are compared at once: two buffers of this size, and microseconds of the
interpreter's lock; it is let go while they are read."""

_SECTOR = 512


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is no hole in the first ``size`` bytes, in order.

    A file system that keeps no holes, or does not tell, has one range. The descriptor's offset is
    moved. What is between the ranges reads as zeros.
    """
    if os.fstat(descriptor).st_blocks * _SECTOR >= size:
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
            # What a shorter piece leaves in the buffers is of an earlier one, and equal.
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
    """Yield, in order and without overlap, what is in one of both."""
    done = 0
    for start, end in heapq.merge(ranges, others):
        if end > done:
            yield max(start, done), end
            done = end
