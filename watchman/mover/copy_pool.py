"""The threads that copy to other file systems, so that a large file holds up nobody else.

What came of a copy is handed in for the destination's own thread. A finished copy keeps its claim
until it is noted: until then nobody else may touch what it has left beside the file.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from watchman import hanging
from watchman.model import Delivery, Move
from watchman.mover import claims
from watchman.mover.claims import FinalPaths
from watchman.mover.copy import CopyProgress
from watchman.mover.destination_status import RunningCopy
from watchman.mover.move_log import MoveLog, MoverContext
from watchman.mover.obstacles import WHOLE, Obstacles
from watchman.mover.outcomes import Cancelled, Postponed, SourceChanged
from watchman.mover.transfer import transfer

LARGE = 64 << 20
"""Bytes from which on a file may not take the last free thread."""


class CopyResult(NamedTuple):
    """What came of one copy: the moved row, or what was raised."""

    row: Delivery
    error: BaseException | None


class CopyPool:
    """The copying threads of one MOVES entry; each is started when it is needed.

    Where there are two or more, one is kept for files that are not large.

    ``handed_in`` is what the destination's own thread waits for: :attr:`results` are put and taken
    with it held.
    """

    def __init__(
        self,
        move: Move,
        context: MoverContext,
        obstacles: Obstacles,
        move_log: MoveLog,
        final_paths: FinalPaths,
        handed_in: threading.Condition,
    ) -> None:
        self._move = move
        self._context = context
        self._obstacles = obstacles
        self._move_log = move_log
        self._final_paths = final_paths
        self._handed_in = handed_in
        self.results: deque[CopyResult] = deque()
        self._claims: dict[int, Delivery] = {}
        """Rows that were copied and whose TEMP and MARKER are not removed yet, by seq."""
        self._over = False
        """Whether the destination's own thread has ended, and takes no more results."""
        self._count = max(1, context.copies)
        self._ready = threading.Condition()
        self._small: deque[Delivery] = deque()
        self._large: deque[Delivery] = deque()
        self._large_running = 0
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._running: dict[int, CopyProgress] = {}
        self._stations: set[hanging.Station] = set()

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

    def running(self) -> tuple[RunningCopy, ...]:
        """Return the copies in progress."""
        with self._ready:
            copies = list(self._running.values())
        now = time.monotonic()
        return tuple(
            RunningCopy(copy.source, copy.final, copy.done, copy.total, now - copy.began)
            for copy in copies
        )

    def wake(self) -> None:
        """Make the idle threads see that they have been told to stop."""
        with self._ready:
            self._ready.notify_all()

    @property
    def threads(self) -> list[threading.Thread]:
        """All threads."""
        with self._ready:
            return list(self._threads)

    def stations(self) -> list[hanging.Station]:
        """Return where the threads work."""
        with self._ready:
            return list(self._stations)

    # What was copied and is not noted: called by the destination's own thread

    def copied(self) -> list[Delivery]:
        """Return the rows that were copied and are not noted yet."""
        with self._handed_in:
            return list(self._claims.values())

    def release(self, row: Delivery) -> None:
        """Give the claim of a copied row back: it is noted."""
        with self._handed_in:
            self._claims.pop(row.seq, None)
        claims.release(row)

    def end_claims(self) -> None:
        """Leave what was copied and is not noted to the next mover of this process."""
        with self._handed_in:
            # Under the lock: a copy that ends from now on gives its claim back itself.
            self._over = True
            ended, self._claims = list(self._claims.values()), {}
        self._leave(ended)

    def _leave(self, copied: list[Delivery]) -> None:
        """Give the claims of finished copies back; the next mover is told whose the copies are."""
        # In this order: who gets the claim must find the path.
        self._final_paths.add(copied)
        for row in copied:
            claims.release(row)

    # The threads

    def _queued(self) -> int:
        return len(self._small) + len(self._large)

    def _take(self) -> tuple[Delivery, bool] | None:
        if self._small:
            return self._small.popleft(), False
        if self._large and self._large_running < max(1, self._count - 1):
            return self._large.popleft(), True
        return None

    def _run(self) -> None:
        stop = self._context.stop
        while True:
            with self._ready:
                self._idle += 1
                while not stop.is_set() and (job := self._take()) is None:
                    self._ready.wait()
                self._idle -= 1
                if stop.is_set() or job is None:
                    return
                row, large = job
                self._large_running += large
                progress = CopyProgress(row.source, row.final, stop)
                self._running[row.seq] = progress
            try:
                self._copy(row, progress)
            finally:
                with self._ready:
                    del self._running[row.seq]
                    self._large_running -= large
                    self._ready.notify()

    def _copy(self, row: Delivery, progress: CopyProgress) -> None:
        """Do one copy, and hand in what comes of it."""
        error: BaseException | None = None
        try:
            if self._obstacles.blocking(WHOLE, time.monotonic()):
                raise Postponed
            claims.claim(row)
        except (Postponed, SourceChanged, claims.ClaimedError) as failure:
            self._hand_in(row, failure)
            return
        try:
            with self._at_work(), self._context.open_directories(self._move) as directories:
                row = transfer(row, directories, self._move_log, progress)
        except Cancelled:
            claims.release(row)  # the row stays as it is in the journal
            return
        except BaseException as failure:  # noqa: BLE001 — whatever it is, it must be heard of
            claims.release(row)
            error = failure
        self._hand_in(row, error)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Have it noticed where this copy hangs, for as long as it takes."""
        station = hanging.Station([self._move.subject], [*self._move])
        with self._ready:
            self._stations.add(station)
        try:
            with station:
                yield
        finally:
            with self._ready:
                self._stations.discard(station)

    def _hand_in(self, row: Delivery, error: BaseException | None) -> None:
        """Give a result to the destination; a finished copy keeps its claim until it is noted."""
        with self._handed_in:
            if error is None and self._over:
                self._leave([row])
            elif error is None:
                self._claims[row.seq] = row
            self.results.append(CopyResult(row, error))
            self._handed_in.notify()
