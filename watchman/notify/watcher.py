"""The one loop over a source: live hints first, then a bounded piece of whatever else there is.

The watches on local file systems share one loop, in the daemon's main thread. Those that may hang
have a loop, a source and a thread of their own for each file system, so that they hold up nobody
else: all that looks at their files looks from there.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from watchman import hanging, status
from watchman.errors import JournalError
from watchman.journal import Journal
from watchman.model import Watch
from watchman.notify.catchup import CatchUp
from watchman.notify.intake import Intake
from watchman.notify.looking import hints_at
from watchman.notify.schedule import CHECK, Schedule
from watchman.router import Router
from watchman.sources.inotify import Source
from watchman.sources.nodes import Reason, Root
from watchman.text import printable

log = logging.getLogger("watchman.notify")


COUNT = 10.0
"""Seconds between two looks for files that have been open for long."""


class Watcher:
    """Watches that share a source, and what their hints become. Used from one thread.

    ``wake`` is told whom new deliveries concern. ``resumed``: this process has watched before.
    """

    def __init__(
        self,
        source: Source,
        journal: Journal,
        router: Router,
        wake: Callable[[Iterable[str | None]], None],
        *,
        resumed: bool,
    ) -> None:
        self._resumed = resumed
        self._journal = journal
        self._first_runs = journal.first_runs(root.watch.path for root in source.roots)
        self._changed: collections.deque[str] = collections.deque()
        self._next_check = 0.0
        self._next_count = 0.0
        self.source = source
        self.intake = Intake(journal, router, self.source, wake)
        self.catch_up = CatchUp(journal, self.source, self.intake, set(self._first_runs))
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        self._schedule = Schedule(self.source)

    def start(self) -> None:
        """Read events from now on; have everything scanned."""
        for root in self.source.roots:
            _say_adding(root.watch)
        self.source.start(self._first_reason)

    def add(self, watch: Watch) -> None:
        """Take another watch while it runs."""
        _say_adding(watch)
        first = self._journal.first_runs([watch.path])
        if first:
            self.catch_up.add(watch.path)
        root = self.source.add(watch, Reason.START if first else Reason.CATCH_UP)
        self._schedule.add(root, time.monotonic())

    def turn(self, at_most: float, at_work: hanging.Station | None = None) -> None:
        """Handle the live events first, then a bounded piece of whatever else there is to do.

        Waits for events until :meth:`is_check_due`, or ``at_most`` seconds; ``at_work`` is told
        when the waiting is over.
        """
        busy = self.catch_up.pending or bool(self._changed)
        timeout = 0.0 if busy else min(at_most, self._time_left())
        if at_work is not None:
            at_work.since = time.monotonic() + timeout
        self.intake.handle(self.source.wait(timeout))
        self._look_at_changed()
        self.intake.look_at_due(time.monotonic())
        self.catch_up.step()
        if not self.watching and not self.catch_up.pending:
            self.watching = True
            self._schedule.begin(time.monotonic())

    def is_check_due(self, now: float) -> bool:
        """Whether it is time for :meth:`check`."""
        return now >= self._next_check

    def check(self, now: float) -> None:
        """Look whether the roots are still there, and queue the scans that are due."""
        self._next_check = now + self._schedule.pace
        self.source.check_roots()
        self.intake.forget_vanished()
        if now >= self._next_count:
            self._next_count = now + COUNT
            self.intake.look_for_long_open(now)
        busy, unwatched = self.catch_up.pending, self.source.has_trouble
        self._schedule.check(now, busy=busy, unwatched=unwatched)

    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""
        self._schedule.ask()
        self.check_soon()

    def check_soon(self) -> None:
        """Have :meth:`check` called at once; from any thread, or a signal handler."""
        self._next_check = 0.0
        self.source.wake()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at files that are not what was recorded; from any thread."""
        self._changed.extend(paths)
        self.source.wake()

    def covers(self, watch: Watch) -> int:
        """Return how many directories it watches of a watch at the moment; from any thread."""
        roots = [root for root in self.source.roots if root.watch is watch]
        return sum(root.count() for root in roots if root.identity is not None)

    def _time_left(self) -> float:
        """Seconds until something is due."""
        due = self.intake.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic())

    def _look_at_changed(self) -> None:
        if self._changed:
            paths = [self._changed.popleft() for _ in range(len(self._changed))]
            self.intake.handle(hints_at(paths, self.source.find))

    def _first_reason(self, root: Root) -> Reason:
        """Return what the first walk of a root is for: what it finds may predate this run."""
        first = root.watch.path in self._first_runs
        return Reason.CATCH_UP if self._resumed and not first else Reason.START


def _say_adding(watch: Watch) -> None:
    handler = status.handler(watch)
    log.debug("Adding watch on %s, processed by %s", printable(watch.path), handler)


class WatcherThread:
    """A watcher in a thread of its own, for watches that may hang, all at the same time."""

    def __init__(self, watches: Sequence[Watch], watcher: Watcher, journal: Journal) -> None:
        self.watcher = watcher
        paths = [watch.path for watch in watches]
        self.station = hanging.Station(paths, paths)
        self.error: BaseException | None = None
        """What ended the thread."""
        self._journal = journal
        self._stopping = False
        name = f"watch-{os.path.basename(paths[0])}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def watching(self) -> bool:
        """Whether the first scan is over."""
        return self.watcher.watching

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""
        self.watcher.rescan()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at files that are not what was recorded; from any thread."""
        self.watcher.look_again(paths)

    def stop(self) -> None:
        """Ask the thread to end after what is in hand."""
        self._stopping = True
        self.watcher.source.wake()

    def join(self, timeout: float) -> bool:
        """Wait for its end; False where it hangs and was left.

        What it does when it comes back is too late: the journal does not hear of it.
        """
        if self._thread.ident is None:
            self.watcher.source.close()
            return True
        if hanging.join([self._thread], self.station.where, timeout):
            return True
        self._journal.shut_out(self._thread)
        hanging.leave([self._thread], self.station.where)
        return False

    def _run(self) -> None:
        watcher, station = self.watcher, self.station
        try:
            station.since = time.monotonic()
            if hanging.await_left(station.where, lambda: self._stopping):
                watcher.start()
            while not self._stopping:
                watcher.turn(CHECK, station)
                now = time.monotonic()
                if watcher.is_check_due(now):
                    watcher.check(now)
            watcher.intake.close()
        except JournalError as error:
            self.error = error  # told to stop while the disk is full, or shut out
        except BaseException as error:
            log.exception("Watching %s ended", printable(", ".join(station.subjects)))
            self.error = error
        finally:
            station.since = None
            watcher.source.close()
