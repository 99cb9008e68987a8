"""What becomes of hints at directories: finished or not, known or not, where to, record."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from watchman import coverage, signals
from watchman.arrivals import Arrivals
from watchman.filesystem import GONE, Look, look
from watchman.finished import Inside, Settling
from watchman.identity import is_same_content
from watchman.journal import Journal, Known, NewDelivery
from watchman.model import Noted, Version
from watchman.notify.intake import say_what_would_happen
from watchman.notify.remarks import Remarks
from watchman.notify.task_id import task_id
from watchman.router import Router
from watchman.sources.directories import (
    CREATED,
    LEFT,
    MARKED,
    MOVED,
    UNASKED,
    Container,
    DirectorySource,
    Hint,
    Unit,
)
from watchman.sources.directory_version import identify, walk_inside
from watchman.text import printable

log = logging.getLogger("watchman.notify")

FOUND, QUIET = "SCAN", "SETTLED"
"""What a hint comes from, besides the kernel: a scan, or nothing having changed for a while."""


class Batch(NamedTuple):
    """What is recorded with one commit."""

    new: list[NewDelivery]
    noted: list[tuple[str, Version, Noted]]
    gone: list[str]
    known: dict[str, Known]
    descriptors: dict[Container, int]


class Units:
    """Handles hints in the watcher's thread.

    ``enter`` is told of containers to scan, and whether what is there may predate the run.
    """

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: DirectorySource,
        wake: Callable[[Iterable[str | None]], None],
        enter: Callable[[Container, bool], None],
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self._wake = wake
        self._enter = enter
        self._settling: Settling[Unit] = Settling()
        self._markers: Arrivals[Unit] = Arrivals()
        """Units whose marker is there, and may still be written."""
        self.remarks = Remarks()
        self.last_arrival_ns = 0

    def look_into(
        self, container: Container, name: str, known: Known | None, *, may_predate: bool
    ) -> None:
        """With ``rec``: the directories in one that was never announced are units."""
        announced = known is not None and known.seq > 0
        if announced or not container.watch.rec or self._router.is_dry_run(container.join(name)):
            return
        self._enter(self._source.enter(container, name), may_predate)

    def skips(self, container: Container, name: str) -> bool:
        """Whether a directory is never a unit at the moment, whatever is in it."""
        path, watch = container.join(name), container.watch
        if coverage.asks_for_nothing(watch):
            return True
        if self._router.ignored(name, path, directory=True) or coverage.is_unfinished(
            name, watch.unfinished
        ):
            return True
        return coverage.is_excluded(watch, path)

    def due(self, now: float) -> list[Hint]:
        """Return hints at what waits and is to be looked at again now."""
        # What settles had its marker, if it needs one, already.
        hints = [Hint(*unit, QUIET, closed=True) for unit in self._settling.due(now)]
        return hints + [Hint(*unit, MARKED) for unit in self._markers.due(now)]

    def next_due(self) -> float | None:
        """Return when :meth:`due` has something to say again."""
        times = (self._settling.next_due(), self._markers.next_due())
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
                if not self.skips(hint.container, hint.name):
                    self._judge(hint, batch)
                elif coverage.is_unfinished(hint.name, hint.container.watch.unfinished):
                    self._still_unfinished(hint)
            self.record(batch)

    def _still_unfinished(self, hint: Hint) -> None:
        path = hint.container.join(hint.name)
        if hint.event in (CREATED, MOVED) and not self._router.ignored(
            hint.name, path, directory=True
        ):
            log.info("1|%s EVENT: %s", hint.event, printable(path))
            log.info("2|NOTFINISHED: %s", printable(path))

    def _judge(self, hint: Hint, batch: Batch) -> None:
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
            self.look_into(container, name, known, may_predate=False)
            return
        if event == LEFT:
            return  # another one came since, and an event of its own follows
        if event == UNASKED and unit not in self._settling:
            # So that no scan takes it for new.
            batch.noted.append((path, version, Noted.UNASKED))
            batch.known[path] = Known(version, 0)
            self.look_into(container, name, None, may_predate=False)
            return
        waited = unit in self._settling
        finished = self._finished(unit, descriptor, closed=closed)
        if waited and not finished:
            return
        log.info("1|%s EVENT: %s", event, printable(path))
        log.info("2|%s: %s", "FINISHED" if finished else "NOTFINISHED", printable(path))
        if finished:
            self._source.stop_waiting(unit)
            batch.known[path] = Known(version, 0)
            self._arrived(unit, version, changed_ns, batch)

    def is_under_way(self, known: Known | None) -> bool:
        """Whether a directory is on its way: then it is no new arrival should it come back."""
        return known is not None and known.seq > 0 and self._journal.is_under_way(known.seq)

    def _forget(self, unit: Unit) -> None:
        self._settling.forget(unit)
        self._markers.forget(unit)
        self._source.stop_waiting(unit)

    def _finished(self, unit: Unit, descriptor: int, *, closed: bool) -> bool:
        """Ask for what the watch wants besides the name: the marker, and that nothing changes."""
        watch, name = unit[0].watch, unit[1]
        marked, inside = True, None
        if watch.marker is not None:
            # Watched first, and only then looked at: it cannot come in between.
            self._source.wait_for_marker(unit, descriptor)
            marker = _look_inside(name, watch.marker, descriptor)
            marked = self._markers.complete(
                unit, marker, time.monotonic(), time.time_ns(), closed=closed, settle=0.0
            )
        if watch.settle and marked:
            found = walk_inside(name, descriptor)
            inside = Inside(found.entries, found.size, found.mtime_ns, found.ctime_ns, found.busy)
        return self._settling.finished(
            unit, time.monotonic(), marked=marked, settle=watch.settle or 0.0, inside=inside
        )

    # Arrivals

    def _arrived(self, unit: Unit, version: Version, changed_ns: int, batch: Batch) -> None:
        path = unit[0].join(unit[1])
        route, final = self._router.route(path), self._router.destination(path)
        if self._router.is_dry_run(path):
            # The lines of the system that the log comes from are the only ones, unless asked for.
            level = logging.INFO if self._router.only_tells else logging.DEBUG
            say_what_would_happen(path, final, route and route.task, level)
            batch.noted.append((path, version, Noted.DRY_RUN))
        elif route is None and final is None:
            batch.noted.append((path, version, Noted.UNASKED))
            if not unit[0].watch.rec:  # with it, such a one is entered: its directories are units
                self.remarks.unasked(unit[0].watch, [path])
            self.look_into(*unit, None, may_predate=False)
        else:
            # The ctime makes the task id another one if the same directory is finished again.
            number = task_id(path, version._replace(changed_ns=changed_ns))
            now_ns = time.time_ns()
            batch.new.append(
                NewDelivery(number, path, final, version, now_ns, route, "directories")
            )

    def record(self, batch: Batch) -> None:
        """Put everything into the journal with one commit, and say who has something to do."""
        if batch.new or batch.noted or batch.gone:
            self._journal.record(batch.new, batch.noted, batch.gone)
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
    def opened(self) -> Iterator[Batch]:
        """Give a batch whose descriptors are closed at the end."""
        batch = Batch([], [], [], {}, {})
        try:
            yield batch
        finally:
            for descriptor in batch.descriptors.values():
                if descriptor >= 0:
                    os.close(descriptor)

    def open(self, container: Container, batch: Batch) -> int:
        """Return a descriptor of a container; -1 if it is gone."""
        if container not in batch.descriptors:
            try:
                batch.descriptors[container] = self._source.open(container)
            except OSError:
                batch.descriptors[container] = -1
        return batch.descriptors[container]

    def look_up(self, container: Container, names: Sequence[str], batch: Batch) -> None:
        """Add what the journal knows of these names to the batch."""
        found = self._journal.known.lookup(container.path.rstrip("/"), names)
        batch.known.update((container.join(name), known) for name, known in found.items())


def _look_inside(name: str, marker: str, descriptor: int) -> Look:
    """Look at the marker in a directory."""
    try:
        inside = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError:
        return GONE
    try:
        return look(marker, inside)
    finally:
        os.close(inside)
