"""The one loop over a source: live hints first, then a bounded piece of whatever else there is.

The watches for files on local file systems share one loop, in the daemon's main thread. Those that
may hang have a loop, a source and a thread of their own for each file system, so that they hold up
nobody else: all that looks at their files looks from there. So have watches for whole directories:
to find out whether one has settled, all that is in it is looked at, which may take long.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

from watchman import hanging, status
from watchman.errors import JournalError
from watchman.journal import Journal
from watchman.model import Watch
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.notes import Notes
from watchman.pipeline.schedule import CHECK, Schedule
from watchman.sources.base_source import BaseSource
from watchman.sources.tree import Reason, Root
from watchman.text import printable

log = logging.getLogger("watchman.notify")

Hints = TypeVar("Hints")
HintsTaken_contra = TypeVar("HintsTaken_contra", contravariant=True)


class Handler(Protocol[HintsTaken_contra]):
    """What becomes of hints."""

    notes: Notes

    @property
    def last_arrival_ns(self) -> int:
        """When something was recorded last; 0 for never."""
        ...

    def handle(self, hints: HintsTaken_contra) -> None:
        """Look at what the hints name; what has arrived is on disk afterwards."""
        ...

    def look_at_due(self, now: float) -> None:
        """Look again at what waits and whose time has come."""
        ...

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at what is not what was recorded, as far as its directory is watched here."""
        ...

    def next_due(self) -> float | None:
        """When, by the monotonic clock, there is something to look at again."""
        ...


class ScanSteps(Protocol):
    """Handles what the source lists, a bounded piece at a time."""

    @property
    def pending(self) -> bool:
        """Whether there is something to list or to handle."""
        ...

    def step(self) -> None:
        """Do the next piece; note when all is done."""
        ...


class Watcher(Generic[Hints]):
    """Watches that share a source, and what their hints become. Used from one thread.

    ``resumed``: this process has watched before.
    """

    def __init__(
        self,
        source: BaseSource[Hints],
        handler: Handler[Hints],
        scanner: ScanSteps,
        first_runs: FirstRuns,
        *,
        resumed: bool,
    ) -> None:
        self.source = source
        self.handler = handler
        self.scanner = scanner
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        self._first_runs = first_runs
        self._resumed = resumed
        self._schedule = Schedule(source)
        self._next_check = 0.0
        self._changed: collections.deque[str] = collections.deque()
        """What to look at again; other threads add to it."""

    def start(self) -> None:
        """Read events from now on; have everything scanned."""
        for root in self.source.roots:
            _say_adding(root.watch)
        self.source.start(self._first_reason)

    def add(self, watch: Watch) -> None:
        """Take another watch while it runs."""
        _say_adding(watch)
        self._first_runs.begin([watch])
        # Only in its first run may what is there be older than the watch.
        first = watch in self._first_runs
        root = self.source.add(watch, Reason.START if first else Reason.CATCH_UP)
        self._schedule.add(root, time.monotonic())

    def remove(self, watch: Watch) -> None:
        """Give up a watch whose directory is gone."""
        for root in self.source.remove(watch):
            self._schedule.remove(root)

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
        self.handler.handle(self.source.wait(timeout))
        if self._changed:
            self.handler.look_again([self._changed.popleft() for _ in range(len(self._changed))])
        self.handler.look_at_due(time.monotonic())
        self.scanner.step()
        if not self.scanner.pending:
            self._scan_is_over()

    def is_check_due(self, now: float) -> bool:
        """Whether it is time for :meth:`check`."""
        return now >= self._next_check

    def check(self, now: float) -> None:
        """Look whether the roots are still there, and queue the scans that are due."""
        self._next_check = now + self._schedule.pace
        self.source.check_roots()
        busy, unwatched = self.scanner.pending, self.source.has_trouble
        self._schedule.check(now, busy=busy, unwatched=unwatched)

    def end(self) -> None:
        """Do what is left to be done when told to stop. What waits, the next scan finds."""

    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""
        self._schedule.ask()
        self.check_soon()

    def check_soon(self) -> None:
        """Have :meth:`check` called at once; from any thread, or a signal handler."""
        self._next_check = 0.0
        self.source.wake()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at what is not what was recorded, if it is in a watch of these; from any thread."""
        # Only then: a loop that hangs takes nothing of it, perhaps for days.
        prefixes = tuple(root.watch.prefix for root in self.source.roots)
        own = [path for path in paths if path.startswith(prefixes)]
        if own:
            self._changed.extend(own)
            self.source.wake()

    def _time_left(self) -> float:
        """Seconds until something is due."""
        due = self.handler.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic())

    def _first_reason(self, root: Root) -> Reason:
        """Return what the first walk of a root is for: what it finds may predate this run."""
        first = root.watch in self._first_runs
        return Reason.CATCH_UP if self._resumed and not first else Reason.START

    def _scan_is_over(self) -> None:
        if self._first_runs:
            there = [root for root in self.source.roots if root.identity is not None]
            self._first_runs.end(root.watch for root in there)
        if not self.watching:
            self.watching = True
            self._schedule.begin(time.monotonic())


def _say_adding(watch: Watch) -> None:
    handler = status.handler(watch)
    log.debug("Adding watch on %s, processed by %s", printable(watch.path), handler)


class WatcherThread:
    """A watcher in a thread of its own. Nothing runs before :meth:`start`; all methods are for
    other threads.
    """

    def __init__(self, watcher: Watcher[Any], journal: Journal) -> None:
        paths = [root.watch.path for root in watcher.source.roots]
        self.watcher = watcher
        self.station = hanging.Station(paths, paths)
        """Where it works, and since when it has not come back."""
        self.error: BaseException | None = None
        """What ended the thread."""
        self._journal = journal
        self._stopping = False
        name = f"watch-{os.path.basename(paths[0])}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after what is in hand."""
        self._stopping = True
        self.watcher.source.wake()

    def join(self, timeout: float) -> bool:
        """Wait for its end, in seconds; False where it hangs and was left.

        What it does when it comes back is too late: the journal does not hear of it.
        """
        if self._thread.ident is None:
            self.watcher.source.close()
            return True
        if hanging.join([self._thread], self.station.where, timeout):
            return True
        # In this order: it may come back at any moment.
        self._journal.shut_out(self._thread)
        hanging.leave([self._thread], self.station.where)
        return False

    def _run(self) -> None:
        watcher = self.watcher
        try:
            self.station.since = time.monotonic()
            # Who was left in the same mount by a pipeline before may still do what he was at.
            if hanging.await_left(self.station.where, lambda: self._stopping):
                watcher.start()
            while not self._stopping:
                watcher.turn(CHECK, self.station)
                now = time.monotonic()
                if watcher.is_check_due(now):
                    watcher.check(now)
            watcher.end()
        except JournalError as error:
            self.error = error  # told to stop while the disk is full, or shut out
        except BaseException as error:
            paths = ", ".join(self.station.subjects)
            log.exception("Watching %s ended", printable(paths))
            self.error = error
        finally:
            self.station.since = None
            watcher.source.close()
