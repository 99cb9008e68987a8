"""The one loop over a source: live hints first, then a bounded piece of whatever else there is.

The watches on local file systems share one loop, in the daemon's main thread. Those that may hang
have a loop, a source and a thread of their own for each file system, so that they hold up nobody
else: all that looks at their files looks from there.
"""

from __future__ import annotations

import collections
import logging
import os
import time
from collections.abc import Iterable, Sequence

from watchman import hanging, status
from watchman.journal import Journal
from watchman.model import Watch
from watchman.pipeline.files import Files
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.loop_thread import LoopThread
from watchman.pipeline.partial_files import PartialFiles
from watchman.pipeline.parts_listener import PartsListener
from watchman.pipeline.schedule import CHECK, Schedule
from watchman.pipeline.watch_scan import Scanner
from watchman.router import Router
from watchman.sources.source import Hints, Source
from watchman.sources.tree import Reason, Root
from watchman.text import printable

log = logging.getLogger("watchman.notify")


COUNT = 10.0
"""Seconds between two looks for files that have been open for long."""


class Watcher:
    """Watches that share a source, and what their hints become. Used from one thread.

    ``resumed``: this process has watched before.
    """

    def __init__(
        self,
        source: Source,
        journal: Journal,
        router: Router,
        listener: PartsListener,
        partial: PartialFiles | None = None,
        *,
        quarantine: str = "",
        resumed: bool,
    ) -> None:
        self._resumed = resumed
        self._first_runs = FirstRuns(journal, [root.watch.path for root in source.roots])
        self._changed: collections.deque[str] = collections.deque()
        """Files to look at again; other threads add to it."""
        self._next_check = 0.0
        self._next_count = 0.0
        self.source = source
        self.partial = partial
        self.files = Files(journal, router, self.source, listener.wake, partial, quarantine)
        self.scanner = Scanner(journal, self.source, self.files, self._first_runs)
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        self._schedule = Schedule(self.source)

    def start(self) -> None:
        """Read events from now on; have everything scanned."""
        for root in self.source.roots:
            say_adding(root.watch)
        self.files.load_partial()
        self.source.start(self._first_reason)

    def add(self, watch: Watch) -> None:
        """Take another watch while it runs."""
        say_adding(watch)
        self._first_runs.begin([watch.path])
        # Only in its first run may what is there be older than the watch.
        first = watch.path in self._first_runs
        root = self.source.add(watch, Reason.START if first else Reason.CATCH_UP)
        self._schedule.add(root, time.monotonic())

    def turn(self, at_most: float, station: hanging.Station | None = None) -> None:
        """Handle the live events first, then a bounded piece of whatever else there is to do.

        Waits for events until :meth:`is_check_due`, or ``at_most`` seconds; ``station`` is told
        when the waiting is over.
        """
        busy = self.scanner.pending or bool(self._changed)
        timeout = 0.0 if busy else min(at_most, self._time_left())
        if station is not None:
            # A time to come: waiting is no work.
            station.since = time.monotonic() + timeout
        self.files.handle(self.source.wait(timeout))
        self._look_at_changed()
        self.files.look_at_due(time.monotonic())
        self.files.look_at_partial()
        self.scanner.step()
        if not self.watching and not self.scanner.pending:
            self.watching = True
            self._schedule.begin(time.monotonic())

    def is_check_due(self, now: float) -> bool:
        """Whether it is time for :meth:`check`."""
        return now >= self._next_check

    def check(self, now: float) -> None:
        """Look whether the roots are still there, and queue the scans that are due."""
        self._next_check = now + self._schedule.pace
        self.source.check_roots()
        self.files.forget_vanished()
        if now >= self._next_count:
            self._next_count = now + COUNT
            self.files.look_for_long_open(now)
        busy, unwatched = self.scanner.pending, self.source.has_trouble
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

    def being_written(self, now: float, most: int) -> list[tuple[str, float]]:
        """Return some of the files that are being written, and for how many seconds; the oldest.

        ``now`` is of the monotonic clock. From any thread.
        """
        found = self.files.incomplete.oldest(most)
        return [(f"{node.path.rstrip('/')}/{name}", now - since) for (node, name), since in found]

    def _time_left(self) -> float:
        """Seconds until something is due."""
        due = self.files.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic())

    def _look_at_changed(self) -> None:
        if self._changed:
            paths = [self._changed.popleft() for _ in range(len(self._changed))]
            self.files.handle(self._hints_at(paths))

    def _hints_at(self, paths: Iterable[str]) -> Hints:
        """Return hints at files, as far as their directories are watched here."""
        hints: Hints = {}
        for path in paths:
            directory, name = os.path.split(path)
            node = self.source.find(directory)
            if node is not None:
                hints[node, name] = 0
        return hints

    def _first_reason(self, root: Root) -> Reason:
        """Return what the first walk of a root is for: what it finds may predate this run."""
        first = root.watch.path in self._first_runs
        return Reason.CATCH_UP if self._resumed and not first else Reason.START


def say_adding(watch: Watch) -> None:
    """Log that a watch begins."""
    handler = status.handler(watch)
    log.debug("Adding watch on %s, processed by %s", printable(watch.path), handler)


class WatcherThread(LoopThread):
    """A watcher in a thread of its own, for watches that may hang, all at the same time."""

    def __init__(self, watches: Sequence[Watch], watcher: Watcher, journal: Journal) -> None:
        paths = [watch.path for watch in watches]
        what = f"Watching {printable(', '.join(paths))} ended"
        super().__init__(f"watch-{os.path.basename(paths[0])}", what, watches, journal)
        self.watcher = watcher

    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""
        self.watcher.rescan()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at files that are not what was recorded; from any thread."""
        self.watcher.look_again(paths)

    def wake(self) -> None:
        """End the wait for events; from any thread, or a signal handler."""
        self.watcher.source.wake()

    def _begin(self) -> None:
        self.watcher.start()

    def _turn(self) -> None:
        self.watcher.turn(CHECK, self.station)
        self.watching = self.watcher.watching
        now = time.monotonic()
        if self.watcher.is_check_due(now):
            self.watcher.check(now)

    def _finish(self) -> None:
        self.watcher.files.close()

    def _close(self) -> None:
        self.watcher.source.close()
