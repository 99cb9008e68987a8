"""The threads that copy to other file systems, so that a large file holds up nobody else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from watchman.model import Delivery
from watchman.mover.copy import Progress

LARGE = 64 << 20
"""Bytes from which on a file may not take the last free thread."""


class Copiers:
    """A pool for one MOVES entry, started when the first copy is needed.

    ``work`` gets the row and its progress and never raises; it is called in one of ``count``
    threads. As long as there are two or more, one is kept for files that are not large.
    """

    def __init__(
        self, count: int, stop: threading.Event, work: Callable[[Delivery, Progress], None]
    ) -> None:
        self._count = max(1, count)
        self._stop = stop
        self._work = work
        self._ready = threading.Condition()
        self._small: deque[Delivery] = deque()
        self._large: deque[Delivery] = deque()
        self._large_running = 0
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._running: dict[int, Progress] = {}

    def submit(self, row: Delivery) -> None:
        """Have ``row`` copied when a thread is free."""
        with self._ready:
            # A tree's size is not known without a walk: it counts as large.
            large = row.kind == "directories" or row.version.size >= LARGE
            (self._large if large else self._small).append(row)
            if len(self._threads) < self._count and self._idle <= self._queued():
                thread = threading.Thread(target=self._run, name="mover-copy", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._ready.notify()

    def running(self) -> list[Progress]:
        """Return the copies in progress."""
        with self._ready:
            return list(self._running.values())

    def wake(self) -> None:
        """Make the idle threads see that they have been told to stop."""
        with self._ready:
            self._ready.notify_all()

    @property
    def threads(self) -> list[threading.Thread]:
        """All threads."""
        with self._ready:
            return list(self._threads)

    def _queued(self) -> int:
        return len(self._small) + len(self._large)

    def _take(self) -> tuple[Delivery, bool] | None:
        if self._small:
            return self._small.popleft(), False
        if self._large and self._large_running < max(1, self._count - 1):
            return self._large.popleft(), True
        return None

    def _run(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                while not self._stop.is_set() and (job := self._take()) is None:
                    self._ready.wait()
                self._idle -= 1
                if self._stop.is_set() or job is None:
                    return
                row, large = job
                self._large_running += large
                progress = Progress(row.source, row.final, self._stop)
                self._running[row.seq] = progress
            try:
                self._work(row, progress)
            finally:
                with self._ready:
                    del self._running[row.seq]
                    self._large_running -= large
                    self._ready.notify()
