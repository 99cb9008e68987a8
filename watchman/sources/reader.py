"""A thread that does nothing but take bytes out of the kernel's queue, before it overflows."""

from __future__ import annotations

import array
import collections
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import zlib
from collections.abc import Iterator

_EVENT = struct.Struct("iIII")
_HEADER = _EVENT.size

CHUNK = 256 * 1024
"""Bytes asked for in one read(2)."""

PAUSE = 0.003
"""Seconds between two reads while the consumer still has bytes to parse. The kernel holds 16,384
events: at 100,000 events a second a pause fills 2 % of that, and it saves a wake-up an event."""

PLAIN = 4 * 1024 * 1024
"""Bytes held here beyond which chunks are packed: a burst of a million files is 100 MB of events,
which are much alike, and a fast compression leaves a sixth or less."""

LONGEST_PAUSE = 0.016
"""Seconds between two reads while nothing but writes comes. Meanwhile the kernel merges them: an
upload of 100 MB/s would otherwise be a thousand events a second, each with two wake-ups."""

LIMIT = 32 * 1024 * 1024
"""Bytes held here at the most; beyond, the kernel's queue may overflow, which is an ordinary hint
to scan, and memory stays bounded."""


def parse(chunk: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (watch, mask, cookie, name) for each event of a chunk, as inotify(7) lays them out.

    Names are padded with null bytes; empty for the watched directory itself.
    """
    unpack = _EVENT.unpack_from
    offset, end = 0, len(chunk)
    while offset < end:
        wd, mask, cookie, length = unpack(chunk, offset)
        offset += _HEADER
        yield wd, mask, cookie, chunk[offset : offset + length]
        offset += length


class EventReader:
    """Reads an inotify descriptor into chunks of whole events, from a thread of its own."""

    def __init__(self, descriptor: int, *, packs: bool = False, patient_with: int = 0) -> None:
        """``packs``: pack what waits; for who never calls :meth:`drain`, which unpacks it all.

        ``patient_with``: the mask of events that are not read one by one while no others come.
        """
        self._descriptor = descriptor
        self._packs = packs
        self._patient_with = patient_with
        self._pause = 0.0
        self._chunks: collections.deque[tuple[bytes, int]] = collections.deque()
        """(bytes, 0), or (packed bytes, their number when they are unpacked)"""
        self._held = 0
        self._total = 0
        self._condition = threading.Condition()
        self._reading = threading.Lock()
        self._woken = False
        self._stopping = False
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="inotify-reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was read before stays available."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        os.write(self._stop_write, b"x")
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def wake(self) -> None:
        """Make :meth:`take` return at once, with or without bytes."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def take(self, timeout: float | None, most: int = LIMIT + CHUNK) -> list[bytes]:
        """Return the chunks read so far, waiting up to ``timeout`` seconds for the first.

        What is beyond ``most`` bytes is left for the next call. Raises whatever ended the thread.
        """
        with self._condition:
            if not self._chunks and not self._woken and self.error is None:
                self._condition.wait(timeout)
            self._woken = False
            if self.error is not None:
                raise self.error
            # Unpacked below, without the lock: the reader is not to wait for that.
            found: list[tuple[bytes, int]] = []
            taken = 0
            while self._chunks and taken < most:
                found.append(self._chunks.popleft())
                taken += found[-1][1] or len(found[-1][0])
                self._held -= len(found[-1][0])
            self._condition.notify_all()
        return [zlib.decompress(data) if packed else data for data, packed in found]

    def mark(self) -> int:
        """Return how many bytes will have been read with every event that has happened so far."""
        # Under the lock, so that no bytes are on their way from the kernel to the total.
        with self._reading:
            return self._total + self._waiting()

    def drain(self) -> list[bytes]:
        """Return every event that the kernel has queued up to now."""
        with self._reading:
            end = self._total + self._waiting()
            while self._total < end and self._read():
                pass
        return self.take(0, sys.maxsize)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        try:
            while not self._stopping:
                poll.poll()
                # Held for the read alone: drain() reads in the consumer's thread, and two reads
                # that cross would put chunks out of order.
                with self._reading:
                    chunk = self._read()
                with self._condition:
                    # A consumer that is behind gains nothing from many small chunks.
                    self._condition.wait_for(self._may_read, PAUSE)
                    self._condition.wait_for(self._has_room)
                    if self._patient_with:
                        self._be_patient(chunk)
        except BaseException as error:  # noqa: BLE001 — handed to the consumer, which raises it
            with self._condition:
                self.error = error
                self._condition.notify_all()

    def _be_patient(self, chunk: bytes) -> None:
        """Pause, ever longer, from the second chunk of nothing but writes in a row on."""
        if not self._is_only_writes(chunk):
            self._pause = 0.0
            return
        if self._pause:
            self._condition.wait_for(lambda: self._stopping, self._pause)
        self._pause = min(self._pause * 2 or PAUSE / 4, LONGEST_PAUSE)

    def _is_only_writes(self, chunk: bytes) -> bool:
        return all(mask == self._patient_with for _, mask, _, _ in parse(chunk))

    def _may_read(self) -> bool:
        return self._stopping or not self._chunks

    def _has_room(self) -> bool:
        return self._stopping or self._held < LIMIT

    def _waiting(self) -> int:
        waiting = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return waiting[0]

    def _read(self) -> bytes:
        """Read what there is, up to a chunk, and return it."""
        if not self._waiting():
            return b""
        chunk = os.read(self._descriptor, CHUNK)
        packed = self._packs and self._held > PLAIN
        data = zlib.compress(chunk, 1) if packed else chunk
        with self._condition:
            self._chunks.append((data, len(chunk) if packed else 0))
            self._held += len(data)
            self._total += len(chunk)
            self._condition.notify_all()
        return chunk
