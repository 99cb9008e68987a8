"""Finished directories: hints, judged and recorded, in a thread of their own.

The unit is a directory directly in the watch's path. With ``rec``, a directory that is no arrival
itself (there before the first run, or without a pattern and a move) is entered: it is a container,
and the directories in it are units. Nothing below a finished or an unfinished directory ever is.

As for files, a hint only says "look here"; a directory's identity (inode and birth time) stays the
same whatever changes inside, so that it is announced once. What is gone is forgotten: a directory
that is made anew, or renamed away and finished again later, is a new arrival.

:class:`Directories` says what becomes of a hint; :class:`DirectoryWatcher` is the loop that takes
hints from the kernel, from scans and from what waits.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from watchman import coverage, mounts, signals
from watchman.completeness import IncompleteFiles, Inside, UnfinishedDirectories
from watchman.coverage import LeftOut
from watchman.identity import is_same_content
from watchman.journal import Journal, Known, NewDelivery
from watchman.model import Noted, Version, Watch
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.loop_thread import LoopThread
from watchman.pipeline.notes import Notes, say_what_would_happen
from watchman.pipeline.parts_listener import PartsListener
from watchman.pipeline.schedule import CHECK
from watchman.pipeline.task_id import task_id
from watchman.pipeline.watcher import say_adding
from watchman.router import Router
from watchman.sources.containers import (
    CREATED,
    LEFT,
    MARKED,
    MOVED,
    UNASKED,
    Container,
    DirectorySource,
    Hint,
    Unit,
    is_there,
)
from watchman.sources.directory_version import identify, look_inside, walk_inside
from watchman.sources.listener import UnwatchedListener
from watchman.text import printable

log = logging.getLogger("watchman.notify")

FOUND, QUIET = "SCAN", "SETTLED"
"""What a hint comes from, besides the kernel: a scan, or nothing having changed for a while."""


class _Batch(NamedTuple):
    """What is recorded with one commit, and what was looked up for it."""

    new: list[NewDelivery]
    noted: list[tuple[str, Version, Noted]]
    gone: list[str]
    known: dict[str, Known]
    """By path: what the journal knows, and what this batch adds to it."""
    descriptors: dict[Container, int]
    """Of the containers that were opened; -1 for one that is gone."""


class Directories:
    """What becomes of hints at directories. Used from one thread."""

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: DirectorySource,
        listener: PartsListener,
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self._listener = listener
        self._unfinished: UnfinishedDirectories[Unit] = UnfinishedDirectories()
        self._markers: IncompleteFiles[Unit] = IncompleteFiles()
        """Units whose marker is there, and may still be written."""
        self.to_scan: dict[Container, bool] = {}
        """Containers to scan; True where what is there may predate the run."""
        self.notes = Notes()
        self.last_arrival_ns = 0

    def enter(
        self, container: Container, name: str, known: Known | None, *, may_predate: bool
    ) -> None:
        """Enter a directory that was never announced, with ``rec``: those in it are units."""
        announced = known is not None and known.seq > 0
        path = container.join(name)
        if coverage.is_entered(container.watch, path, self._router, announced=announced):
            self.to_scan.setdefault(self._source.enter(container, name), may_predate)

    def is_left_out(self, container: Container, name: str) -> bool:
        """Whether a directory is never a unit at the moment, whatever is in it."""
        return (
            coverage.asks_for_nothing(container.watch)
            or self._why_left_out(container, name) is not None
        )

    def _why_left_out(self, container: Container, name: str) -> LeftOut | None:
        return coverage.directory_left_out(container.watch, container.join(name), self._router)

    def due(self, now: float) -> list[Hint]:
        """Return hints at what waits and is to be looked at again now."""
        # What settles had its marker, if it needs one, already.
        hints = [Hint(*unit, QUIET, closed=True) for unit in self._unfinished.due(now)]
        return hints + [Hint(*unit, MARKED) for unit in self._markers.due(now)]

    def next_due(self) -> float | None:
        """Return when :meth:`due` has something to say again."""
        times = (self._unfinished.next_due(), self._markers.next_due())
        return min((time for time in times if time is not None), default=None)

    def handle(self, hints: Sequence[Hint]) -> None:
        """Look at what the hints name, in their order; what is finished is on disk afterwards."""
        names: dict[Container, list[str]] = {}
        for hint in hints:
            names.setdefault(hint.container, []).append(hint.name)
        with self.opened() as batch:
            for container, wanted in names.items():
                self.look_up(container, wanted, batch)
            for hint in hints:
                if not self.is_left_out(hint.container, hint.name):
                    self._judge(hint, batch)
                elif self._why_left_out(hint.container, hint.name) is LeftOut.UNFINISHED:
                    self._still_unfinished(hint)
            self.record(batch)

    def _still_unfinished(self, hint: Hint) -> None:
        """Log a directory whose name says that it is still being filled."""
        path = hint.container.join(hint.name)
        if hint.event in (CREATED, MOVED):
            log.info("1|%s EVENT: %s", hint.event, printable(path))
            log.info("2|NOTFINISHED: %s", printable(path))

    def _judge(self, hint: Hint, batch: _Batch) -> None:
        """Decide what a hint at a name means, by what has that name now."""
        container, name, event, closed = hint
        path, unit = container.join(name), (container, name)
        descriptor = self.open(container, batch)
        found = identify(name, descriptor) if descriptor >= 0 else None
        if found is None:
            self._forget(unit)
            if not self.is_under_way(batch.known.get(path)):
                batch.gone.append(path)
            return
        version, changed_ns = found
        known = batch.known.get(path)
        if known is not None and is_same_content(known.version, version):
            # Announced, or noted, before: whatever has changed inside it.
            self.enter(container, name, known, may_predate=False)
            return
        if event == LEFT:
            return  # another one came since, and an event of its own follows
        if event == UNASKED and unit not in self._unfinished:
            # The watch's mask leaves it out. It is made known, so that no scan takes it for new.
            batch.noted.append((path, version, Noted.UNASKED))
            batch.known[path] = Known(version, 0)
            self.enter(container, name, None, may_predate=False)
            return
        waited = unit in self._unfinished
        finished = self._finished(unit, descriptor, closed=closed)
        if waited and not finished:
            return  # which was said when the wait began
        log.info("1|%s EVENT: %s", event, printable(path))
        log.info("2|%s: %s", "FINISHED" if finished else "NOTFINISHED", printable(path))
        if finished:
            self._source.stop_waiting(unit)
            # Another hint of this batch may name it as well.
            batch.known[path] = Known(version, 0)
            self._arrived(unit, version, changed_ns, batch)

    def is_under_way(self, known: Known | None) -> bool:
        """Whether a directory is on its way: then it is no new arrival should it come back."""
        return known is not None and known.seq > 0 and self._journal.is_under_way(known.seq)

    def _forget(self, unit: Unit) -> None:
        self._unfinished.forget(unit)
        self._markers.forget(unit)
        self._source.stop_waiting(unit)

    def _finished(self, unit: Unit, descriptor: int, *, closed: bool) -> bool:
        """Ask for what the watch wants besides the name: the marker, and that nothing changes."""
        watch, name = unit[0].watch, unit[1]
        marked, inside = True, None
        if watch.marker is not None:
            # Watched first, and only then looked at: it cannot come in between.
            self._source.wait_for_marker(unit, descriptor)
            marker = look_inside(name, watch.marker, descriptor)
            marked = self._markers.complete(
                unit, marker, time.monotonic(), time.time_ns(), closed=closed, settle=0.0
            )
        if watch.settle and marked:
            found = walk_inside(name, descriptor)
            inside = Inside(found.entries, found.size, found.mtime_ns, found.ctime_ns, found.busy)
        return self._unfinished.finished(
            unit, time.monotonic(), marked=marked, settle=watch.settle or 0.0, inside=inside
        )

    # Arrivals

    def _arrived(self, unit: Unit, version: Version, changed_ns: int, batch: _Batch) -> None:
        path = unit[0].join(unit[1])
        route, (final, move) = self._router.route(path), self._router.move(path)
        if self._router.is_dry_run(path):
            # The lines of the system that the log comes from are the only ones, unless asked for.
            level = logging.INFO if self._router.only_tells else logging.DEBUG
            say_what_would_happen(path, final, route and route.task, level)
            batch.noted.append((path, version, Noted.DRY_RUN))
        elif route is None and final is None:
            batch.noted.append((path, version, Noted.UNASKED))
            if not unit[0].watch.rec:  # with it, such a one is entered: its directories are units
                self.notes.unasked(unit[0].watch, [path])
            self.enter(*unit, None, may_predate=False)
        else:
            # The ctime makes the task id another one if the same directory is finished again.
            number = task_id(path, version._replace(changed_ns=changed_ns))
            now_ns = time.time_ns()
            batch.new.append(
                NewDelivery(number, path, final, version, now_ns, route, "directories", move=move)
            )

    def record(self, batch: _Batch) -> None:
        """Put everything into the journal with one commit, and say who has something to do."""
        if batch.new or batch.noted or batch.gone:
            self._journal.record(batch.new, batch.noted, batch.gone)
        if not batch.new:
            return
        self.last_arrival_ns = batch.new[-1].arrived_ns
        signals.announce(signals.arrived, batch.new)
        moves = {new.move for new in batch.new if new.move is not None}
        brokers = {new.route.broker for new in batch.new if new.move is None and new.route}
        self._listener.wake(moves | brokers)

    # Looking

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Batch]:
        """Give a batch whose descriptors are closed at the end."""
        batch = _Batch([], [], [], {}, {})
        try:
            yield batch
        finally:
            for descriptor in batch.descriptors.values():
                if descriptor >= 0:
                    os.close(descriptor)

    def open(self, container: Container, batch: _Batch) -> int:
        """Return a descriptor of a container; -1 if it is gone."""
        if container not in batch.descriptors:
            try:
                batch.descriptors[container] = self._source.open(container)
            except OSError:
                batch.descriptors[container] = -1
        return batch.descriptors[container]

    def look_up(self, container: Container, names: Sequence[str], batch: _Batch) -> None:
        """Add what the journal knows of these names to the batch."""
        found = self._journal.known.lookup(container.path.rstrip("/"), names)
        batch.known.update((container.join(name), known) for name, known in found.items())


class DirectoryWatcher(LoopThread):
    """The loop of watches with ``kind='directories'``, in a thread of its own.

    Directories that changed before this was made are only noted in a watch's first run, unless
    ``resumed``.

    To make one opens an inotify instance, and writes to the journal when a first run began.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        journal: Journal,
        router: Router,
        listener: PartsListener,
        unwatched: UnwatchedListener,
        *,
        resumed: bool = False,
    ) -> None:
        super().__init__("directories", "Watching for finished directories ended", watches, journal)
        self._resumed = resumed
        paths = [watch.path for watch in watches]
        self._first_runs = FirstRuns(journal, paths)
        polled = [(watch, mounts.is_polled(watch)) for watch in watches]
        self._source = DirectorySource(polled, unwatched)
        self._directories = Directories(journal, router, self._source, listener)
        self._next_scan: dict[Container, float] = {}
        self._next_check = 0.0
        self._changed: collections.deque[str] = collections.deque()
        """Directories to look at again; other threads add to it."""
        self._rescan = False
        """Set by other threads: everything is to be scanned."""

    def start(self) -> None:
        """Begin to watch."""
        for root in self._source.roots:
            say_adding(root.watch)
            self._directories.to_scan[root] = not self._resumed or root.path in self._first_runs
        super().start()

    def wake(self) -> None:
        """End the wait for events; from any thread, or a signal handler."""
        self._source.wake()

    def rescan(self) -> None:
        """Catch up on every watch now; from any thread."""
        self._rescan = True
        self._source.wake()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at directories that are not what was recorded; from any thread."""
        self._changed.extend(paths)
        self._source.wake()

    def covers(self, watch: Watch) -> int:
        """Return how many directories it watches of a watch at the moment; from any thread."""
        return self._source.count(watch)

    @property
    def overflows(self) -> int:
        """How often events were lost, and everything was scanned therefore."""
        return self._source.overflows

    @property
    def last_arrival_ns(self) -> int:
        """When the last finished directory was recorded; 0 for never."""
        return self._directories.last_arrival_ns

    @property
    def notes(self) -> Notes:
        """What is to be said of the watches."""
        return self._directories.notes

    # The thread

    def _begin(self) -> None:
        self._source.start()

    def _finish(self) -> None:
        """Leave what waits: the next scan finds it."""

    def _close(self) -> None:
        self._source.close()

    def _turn(self) -> None:
        busy = bool(self._directories.to_scan or self._changed or self._rescan)
        timeout = 0.0 if busy else self._time_left()
        self.station.since = time.monotonic() + timeout
        # Live events first, then what waits or is to be looked at again, then a scan.
        hints = self._source.take(timeout)
        now = time.monotonic()
        hints += self._directories.due(now)
        while self._changed:
            hints += self._hint_at(self._changed.popleft())
        if hints:
            self._directories.handle(hints)
        if self._source.overflowed or self._rescan:
            # Before the scans: what is asked for from now on is another one.
            self._source.overflowed = self._rescan = False
            self._directories.to_scan |= dict.fromkeys(self._source.roots, False)
        if self._directories.to_scan:
            container = next(iter(self._directories.to_scan))
            self._scan(container, may_predate=self._directories.to_scan.pop(container))
        else:
            self._now_watching()
        if now >= self._next_check or self._source.root_left:
            self._check(now)

    def _time_left(self) -> float:
        due = self._directories.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic()) if self.watching else 0.0

    def _now_watching(self) -> None:
        """Note that the first scan is over, and whose first run."""
        self.notes.end_scan()
        self.watching = True
        if self._first_runs:
            there = [root.path for root in self._source.roots if root.identity is not None]
            self._first_runs.end(there)

    def _check(self, now: float) -> None:
        self._next_check = now + CHECK
        self._source.root_left = False
        changed = self._source.check_roots()
        self._directories.to_scan |= {root: root.path in self._first_runs for root in changed}
        for root in self._source.roots:
            period = root.watch.interval if root.polled else root.watch.rescan
            if period and now >= self._next_scan.setdefault(root, now + period):
                self._next_scan[root] = now + period
                self._directories.to_scan.setdefault(root, False)

    def _hint_at(self, path: str) -> list[Hint]:
        """Return a hint for a path in one of the containers."""
        above, _, name = path.rpartition("/")
        pending: list[Container] = [*self._source.roots]
        for container in pending:  # grows meanwhile
            if container.path.rstrip("/") == above:
                return [Hint(container, name, FOUND)]
            pending += container.children.values()
        return []

    # Scans

    def _scan(self, container: Container, *, may_predate: bool) -> None:
        """Look at everything in a container, and forget what it no longer has."""
        names = self._source.names(container)
        if names is None:
            return
        with self._directories.opened() as batch:
            descriptor = self._directories.open(container, batch)
            self._directories.look_up(container, names, batch)
            hints = []
            for name in names:
                if self._directories.is_left_out(container, name):
                    continue
                found = identify(name, descriptor)
                if found is None:
                    continue
                version, changed_ns = found
                path = container.join(name)
                known = batch.known.get(path)
                if known is not None and is_same_content(known.version, version):
                    self._directories.enter(container, name, known, may_predate=may_predate)
                elif may_predate and self._first_runs.is_only_noted(container.watch, changed_ns):
                    batch.noted.append((path, version, Noted.BEFORE))
                    self.notes.before(container.watch, [path])
                    self._directories.enter(container, name, None, may_predate=True)
                else:
                    hints.append((changed_ns, Hint(container, name, FOUND)))
            batch.gone.extend(self._missing(container, set(names), descriptor))
            self._directories.record(batch)
        if hints and not container.polled:
            # How one came that is new to the scan, its event tells, which may still be unread.
            self._directories.handle(self._source.drain())
        self._directories.handle([hint for _, hint in sorted(hints, key=lambda item: item[0])])

    def _missing(self, container: Container, names: set[str], descriptor: int) -> list[str]:
        known = self._journal.known.scan(container.path.rstrip("/")).maybe_missing()
        gone = [name for name in known if name not in names and not is_there(name, descriptor)]
        for name in container.children.keys() & set(gone):
            self._source.leave(container.children[name])
        above = container.path.rstrip("/")
        remembered = self._journal.known.lookup(above, gone)
        return [
            container.join(name)
            for name in gone
            if not self._directories.is_under_way(remembered.get(name))
        ]
