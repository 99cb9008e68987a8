"""Finished directories: from hints to the journal, in a thread of their own.

The unit is a directory directly in the watch's path. With ``rec``, a directory that is no arrival
itself (there before the first run, or without a pattern and a move) is entered, and the directories
in it are units. Nothing below a finished or an unfinished directory ever is.

As for files, a hint only says "look here"; a directory's identity (inode and birth time) stays the
same whatever changes inside, so that it is announced once. What is gone is forgotten: a directory
that is made anew, or renamed away and finished again later, is a new arrival.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from watchman import signals
from watchman.filesystem import Seen, look
from watchman.finished import Inside, Settling, is_unfinished
from watchman.journal import Journal, Known, NewDelivery
from watchman.model import Version, Watch
from watchman.notify.identity import task_id
from watchman.router import Router
from watchman.sources.directories import (
    CREATED,
    LEFT,
    MOVED,
    Container,
    DirectorySource,
    Hint,
    Unit,
    is_there,
)
from watchman.sources.identity import identify, walk_inside
from watchman.text import printable

log = logging.getLogger("watchman.notify")

CHECK = 2.0
"""Seconds between two checks that each watch's path is still the directory that is watched."""
PROCESSOR = "watchman.processors.FinishedDirectories"
FOUND, QUIET = "SCAN", "SETTLED"
"""What a hint comes from, besides the kernel: a scan, or nothing having changed for a while."""


class _Batch(NamedTuple):
    """What is recorded with one commit."""

    new: list[NewDelivery]
    noted: list[tuple[str, Version]]
    gone: list[str]
    known: dict[str, Known]
    descriptors: dict[Container, int]


class DirectoryWatcher:
    """Watches with ``kind='directories'``, (watch, polled) each.

    ``wake`` is told which brokers, and with None that the mover, have something to do. Directories
    that changed before ``started_ns`` are only noted in a watch's first run, unless ``resumed``.
    """

    def __init__(
        self,
        watches: Sequence[tuple[Watch, bool]],
        journal: Journal,
        router: Router,
        wake: Callable[[Iterable[str | None]], None],
        trouble: Callable[[str, OSError | None], None],
        *,
        started_ns: int,
        resumed: bool = False,
    ) -> None:
        self._journal = journal
        self._router = router
        self._wake = wake
        self._started_ns = started_ns
        self._resumed = resumed
        self._first_runs = journal.first_runs(watch.path for watch, _ in watches)
        self._source = DirectorySource(watches, trouble)
        self._settling: Settling[Unit] = Settling()
        self._scans: dict[Container, bool] = {}
        """Containers to scan; True where what is there may predate the run."""
        self._next_scan: dict[Container, float] = {}
        self._next_check = 0.0
        self._changed: collections.deque[str] = collections.deque()
        self._rescan = False
        self._stopping = False
        self.watching = threading.Event()
        """Set when the first scan is over: everything is watched."""
        self.last_arrival_ns = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="directories", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        for root in self._source.roots:
            log.debug("Adding watch on %s, processed by %s", printable(root.path), PROCESSOR)
            self._scans[root] = not self._resumed
        self._source.start()
        self._thread.start()

    def stop(self) -> None:
        """End after what is in hand."""
        self._stopping = True
        self._source.wake()
        self._thread.join()
        self._source.close()

    def rescan(self) -> None:
        """Catch up on every watch now; from any thread."""
        self._rescan = True
        self._source.wake()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at directories that are not what was recorded; from any thread."""
        self._changed.extend(paths)
        self._source.wake()

    def directories(self, watch: Watch) -> int:
        """Return how many directories a watch covers."""
        return self._source.count(watch)

    @property
    def overflows(self) -> int:
        """How often events were lost, and everything was scanned therefore."""
        return self._source.overflows

    # The thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            log.exception("Watching for finished directories ended")
            self.error = error

    def _turn(self) -> None:
        busy = bool(self._scans or self._changed or self._rescan)
        hints = self._source.take(0 if busy else self._time_left())
        now = time.monotonic()
        hints += [Hint(*unit, QUIET) for unit in self._settling.due(now)]
        while self._changed:
            hints += self._hint_at(self._changed.popleft())
        if hints:
            self._handle(hints)
        if self._source.overflowed or self._rescan:
            self._source.overflowed = self._rescan = False
            self._scans |= dict.fromkeys(self._source.roots, False)
        if self._scans:
            container = next(iter(self._scans))
            self._scan(container, may_predate=self._scans.pop(container))
        elif not self.watching.is_set():
            self._now_watching()
        if now >= self._next_check:
            self._check(now)

    def _time_left(self) -> float:
        due = self._settling.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic()) if self.watching.is_set() else 0.0

    def _now_watching(self) -> None:
        self._journal.note_first_run(self._first_runs)
        self._first_runs = set()
        self.watching.set()

    def _check(self, now: float) -> None:
        self._next_check = now + CHECK
        self._scans |= dict.fromkeys(self._source.check_roots(), False)
        for root in self._source.roots:
            period = root.watch.interval if root.polled else root.watch.rescan
            if period and now >= self._next_scan.setdefault(root, now + period):
                self._next_scan[root] = now + period
                self._scans.setdefault(root, False)

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
        with self._opened() as batch:
            descriptor = self._open(container, batch)
            self._look_up(container, names, batch)
            hints = []
            for name in names:
                found = None if self._skips(container, name) else identify(name, descriptor)
                if found is None:
                    continue
                version, changed_ns = found
                path = container.join(name)
                known = batch.known.get(path)
                if known is not None and known.version.same_content(version):
                    self._look_into(container, name, known, may_predate=may_predate)
                elif may_predate and self._predates(container.watch, changed_ns):
                    batch.noted.append((path, version))
                    self._look_into(container, name, None, may_predate=True)
                else:
                    hints.append((changed_ns, Hint(container, name, FOUND)))
            batch.gone.extend(self._missing(container, set(names), descriptor))
            self._record(batch)
        self._handle([hint for _, hint in sorted(hints, key=lambda item: item[0])])

    def _missing(self, container: Container, names: set[str], descriptor: int) -> list[str]:
        known = self._journal.known.scan(container.path.rstrip("/")).maybe_missing()
        gone = [name for name in known if name not in names and not is_there(name, descriptor)]
        for name in container.children.keys() & set(gone):
            self._source.leave(container.children[name])
        return [container.join(name) for name in gone]

    def _predates(self, watch: Watch, changed_ns: int) -> bool:
        """Whether a directory is only to be noted: it was there before the run that notes."""
        if watch.existing == "all":
            return False
        first = watch.existing == "none" or watch.path in self._first_runs
        return first and changed_ns < self._started_ns

    def _look_into(
        self, container: Container, name: str, known: Known | None, *, may_predate: bool
    ) -> None:
        """With ``rec``: the directories in one that was never announced are units."""
        announced = known is not None and known.seq > 0
        if announced or not container.watch.rec or self._router.is_dry_run(container.join(name)):
            return
        self._scans.setdefault(self._source.enter(container, name), may_predate)

    # Hints

    def _skips(self, container: Container, name: str) -> bool:
        """Whether a directory is never a unit at the moment, whatever is in it."""
        path, watch = container.join(name), container.watch
        if self._router.ignored(name, path) or is_unfinished(name, watch.unfinished):
            return True
        return watch.exclude is not None and watch.exclude(path)

    def _handle(self, hints: Sequence[Hint]) -> None:
        """Look at what the hints name, in their order; what is finished is on disk afterwards."""
        names: dict[Container, list[str]] = {}
        for hint in hints:
            names.setdefault(hint.container, []).append(hint.name)
        with self._opened() as batch:
            for container, wanted in names.items():
                self._look_up(container, wanted, batch)
            for hint in hints:
                if not self._skips(hint.container, hint.name):
                    self._judge(hint, batch)
                elif is_unfinished(hint.name, hint.container.watch.unfinished):
                    self._still_unfinished(hint)
            self._record(batch)

    def _still_unfinished(self, hint: Hint) -> None:
        path = hint.container.join(hint.name)
        if hint.event in (CREATED, MOVED) and not self._router.ignored(hint.name, path):
            log.info("1|%s EVENT: %s", hint.event, printable(path))
            log.info("2|NOTFINISHED: %s", printable(path))

    def _judge(self, hint: Hint, batch: _Batch) -> None:
        container, name, event = hint
        path, unit = container.join(name), (container, name)
        descriptor = self._open(container, batch)
        found = identify(name, descriptor) if descriptor >= 0 else None
        if found is None:
            self._forget(unit)
            batch.gone.append(path)
            return
        version, changed_ns = found
        known = batch.known.get(path)
        if known is not None and known.version.same_content(version):
            self._look_into(container, name, known, may_predate=False)
            return
        if event == LEFT:
            return  # another one came since, and an event of its own follows
        waited = unit in self._settling
        finished = self._finished(unit, descriptor)
        if waited and not finished:
            return
        log.info("1|%s EVENT: %s", event, printable(path))
        log.info("2|%s: %s", "FINISHED" if finished else "NOTFINISHED", printable(path))
        if finished:
            self._source.stop_waiting(unit)
            batch.known[path] = Known(version, 0)
            self._arrived(unit, version, changed_ns, batch)

    def _forget(self, unit: Unit) -> None:
        self._settling.forget(unit)
        self._source.stop_waiting(unit)

    def _finished(self, unit: Unit, descriptor: int) -> bool:
        """Ask for what the watch wants besides the name: the marker, and that nothing changes."""
        watch, name = unit[0].watch, unit[1]
        marked, inside = True, None
        if watch.marker is not None:
            # Watched first, and only then looked at: it cannot come in between.
            self._source.wait_for_marker(unit, descriptor)
            marked = _has_marker(name, watch.marker, descriptor)
        if watch.settle and marked:
            found = walk_inside(name, descriptor)
            inside = Inside(found.entries, found.size, found.mtime_ns, found.ctime_ns, found.busy)
        return self._settling.finished(
            unit, time.monotonic(), marked=marked, settle=watch.settle or 0.0, inside=inside
        )

    # Arrivals

    def _arrived(self, unit: Unit, version: Version, changed_ns: int, batch: _Batch) -> None:
        path = unit[0].join(unit[1])
        route, final = self._router.route(path), self._router.destination(path)
        if self._router.is_dry_run(path):
            log.debug(
                "Dry run: %s would be moved to %s and sent as %s",
                printable(path),
                printable(final or path),
                route.task if route is not None else "no task",
            )
            batch.noted.append((path, version))
        elif route is None and final is None:
            batch.noted.append((path, version))
            self._look_into(*unit, None, may_predate=False)
        else:
            # The ctime makes the task id another one if the same directory is finished again.
            number = task_id(path, version._replace(mtime_ns=changed_ns))
            now_ns = time.time_ns()
            batch.new.append(
                NewDelivery(number, path, final, version, now_ns, route, "directories")
            )

    def _record(self, batch: _Batch) -> None:
        """Put everything into the journal with one commit, and say who has something to do."""
        if batch.gone:
            self._journal.known.forget(batch.gone)
        if batch.new or batch.noted:
            self._journal.record(batch.new, batch.noted)
        if not batch.new:
            return
        self.last_arrival_ns = batch.new[-1].arrived_ns
        signals.announce(signals.arrived, batch.new)
        self._wake(
            {
                None if new.final is not None or new.route is None else new.route.broker
                for new in batch.new
            }
        )

    # Looking

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Batch]:
        batch = _Batch([], [], [], {}, {})
        try:
            yield batch
        finally:
            for descriptor in batch.descriptors.values():
                if descriptor >= 0:
                    os.close(descriptor)

    def _open(self, container: Container, batch: _Batch) -> int:
        """Return a descriptor of a container; -1 if it is gone."""
        if container not in batch.descriptors:
            try:
                batch.descriptors[container] = self._source.open(container)
            except OSError:
                batch.descriptors[container] = -1
        return batch.descriptors[container]

    def _look_up(self, container: Container, names: Sequence[str], batch: _Batch) -> None:
        found = self._journal.known.lookup(container.path.rstrip("/"), names)
        batch.known.update((container.join(name), known) for name, known in found.items())


def _has_marker(name: str, marker: str, descriptor: int) -> bool:
    """Say whether the marker is in a directory, and nobody is writing it."""
    try:
        inside = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError:
        return False
    try:
        return look(marker, inside).seen in (Seen.COMPLETE, Seen.UNTESTED)
    finally:
        os.close(inside)
