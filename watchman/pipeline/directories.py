"""Finished directories: hints, judged and recorded.

The unit is a directory directly in the watch's path. With ``rec``, a directory that is no arrival
itself (there before the first run, or without a pattern and a move) is entered: it is a container,
and the directories in it are units. Nothing below a finished or an unfinished directory ever is.

As for files, a hint only says "look here"; a directory's identity (inode and birth time) stays the
same whatever changes inside, so that it is announced once. What is gone is forgotten: a directory
that is made anew, or renamed away and finished again later, is a new arrival. What cannot be looked
at is neither: its hint is kept, and tried again ever less often.

:class:`Directories` says what becomes of a hint, :class:`DirectoryScanner` has what a scan lists
become hints. The loop is the one of files.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from watchman import coverage, signals
from watchman.backoff import Backoff
from watchman.completeness import LONGEST_DELAY, IncompleteFiles, UnfinishedDirectories
from watchman.coverage import LeftOut
from watchman.directory_cache import DirectoryCache
from watchman.directory_identity import identify
from watchman.identity import is_same_content
from watchman.journal import Journal, Known, NewDelivery
from watchman.model import Noted, Version
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.notes import Notes, say_what_would_happen
from watchman.pipeline.parts_listener import PartsListener
from watchman.pipeline.recording import record
from watchman.pipeline.task_id import task_id
from watchman.pipeline.unseen import Unseen
from watchman.pipeline.watcher import Watcher
from watchman.router import Router
from watchman.sources.directory_source import (
    CREATED,
    LEFT,
    MARKED,
    MOVED,
    UNASKED,
    DirectorySource,
    Hint,
    Unit,
)
from watchman.sources.directory_version import look_inside, walk_inside
from watchman.sources.tree import (
    Listing,
    Node,
    Reason,
    descriptor_of,
    is_directory,
    why_unreachable,
)
from watchman.text import printable
from watchman.timers import Timers
from watchman.troubles import Troubles

log = logging.getLogger("watchman.notify")

FOUND, QUIET = "SCAN", "SETTLED"
"""What a hint comes from, besides the kernel: a scan, or nothing having changed for a while."""

FIRST_DELAY = 0.1
"""Seconds until what could not be looked at is tried again; doubled each time."""


class _Batch(NamedTuple):
    """What is recorded with one commit, and what was looked up for it."""

    new: list[NewDelivery]
    noted: list[tuple[str, Version, Noted]]
    gone: list[str]
    known: dict[str, Known]
    """By path: what the journal knows, and what this batch adds to it."""
    containers: DirectoryCache[Node]


class _Unclear(NamedTuple):
    """A hint at what could not be looked at."""

    hint: Hint
    backoff: Backoff


class Directories:
    """What becomes of hints at directories. Used from one thread."""

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: DirectorySource,
        listener: PartsListener,
        troubles: Troubles,
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self._listener = listener
        self._unfinished: UnfinishedDirectories[Unit] = UnfinishedDirectories()
        self._markers: IncompleteFiles[Unit] = IncompleteFiles()
        """Units whose marker is there, and may still be written."""
        self._unclear: dict[Unit, _Unclear] = {}
        self._again: Timers[Unit] = Timers()
        """When to try these again."""
        self.unseen = Unseen(troubles, source, "directories")
        self.notes = Notes(only_of_arrivals=router.only_tells)
        self.last_arrival_ns = 0

    def enter(self, container: Node, name: str, known: Known | None, reason: Reason) -> None:
        """Enter a directory that was never announced, with ``rec``: those in it are units."""
        announced = known is not None and known.seq > 0
        path = container.join(name)
        if coverage.is_entered(container.root.watch, path, self._router, announced=announced):
            self._source.enter(container, name, reason)

    def is_left_out(self, container: Node, name: str) -> bool:
        """Whether a directory is never a unit at the moment, whatever is in it."""
        return (
            coverage.asks_for_nothing(container.root.watch)
            or self._why_left_out(container, name) is not None
        )

    def _why_left_out(self, container: Node, name: str) -> LeftOut | None:
        return coverage.directory_left_out(container.root.watch, container.join(name), self._router)

    def look_at_due(self, now: float) -> None:
        """Look again at what waits and whose time has come."""
        # What settles had its marker, if it needs one, already.
        hints = [Hint(*unit, QUIET, closed=True) for unit in self._unfinished.due(now)]
        hints += [Hint(*unit, MARKED) for unit in self._markers.due(now)]
        hints += [self._unclear[unit].hint for unit in self._again.take(now)]
        self.handle(hints)

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at directories that are not what was recorded, as far as they are units here."""
        split = [(self._source.find(os.path.dirname(path)), path) for path in paths]
        self.handle([Hint(node, os.path.basename(path), FOUND) for node, path in split if node])

    def next_due(self) -> float | None:
        """When, by the monotonic clock, there is something to look at again."""
        times = (self._unfinished.next_due(), self._markers.next_due(), self._again.next())
        return min((time for time in times if time is not None), default=None)

    def handle(self, hints: Sequence[Hint]) -> None:
        """Look at what the hints name, in their order; what is finished is on disk afterwards."""
        if not hints:
            return
        names: dict[Node, list[str]] = {}
        for hint in hints:
            names.setdefault(hint.container, []).append(hint.name)
        with self.opened() as batch:
            for container, wanted in names.items():
                self.look_up(container, wanted, batch)
            for hint in hints:
                if not self.is_left_out(hint.container, hint.name):
                    self._judge(hint, batch)
                    continue
                self._clear((hint.container, hint.name))
                if self._why_left_out(hint.container, hint.name) is LeftOut.UNFINISHED:
                    self._still_unfinished(hint)
            self.record(batch)

    def _still_unfinished(self, hint: Hint) -> None:
        """Log a directory whose name says that it is still being filled."""
        path = hint.container.join(hint.name)
        if hint.event in (CREATED, MOVED):
            log.info("1|%s EVENT: %s", hint.event, printable(path))
            log.info("2|NOTFINISHED: %s", printable(path))

    def _judge(self, hint: Hint, batch: _Batch) -> None:
        """Decide what a hint at a name means, or try again later where that cannot be told."""
        unit = hint.container, hint.name
        before = self._unclear.get(unit)
        if before is not None:
            # What came before it is still to be judged.
            event = before.hint.event if hint.event == UNASKED else hint.event
            hint = hint._replace(event=event, closed=hint.closed or before.hint.closed)
        try:
            self._decide(hint, batch)
        except OSError as error:
            self.cannot_look(hint, error)
        else:
            self._clear(unit)

    def cannot_look(self, hint: Hint, error: OSError) -> None:
        """Keep a hint at what cannot be looked at: unknown is not gone."""
        unit = hint.container, hint.name
        before = self._unclear.get(unit)
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY) if before is None else before.backoff
        self._unclear[unit] = _Unclear(hint, backoff)
        self._again.set(unit, time.monotonic() + backoff.next())
        self.unseen.note(unit, error.errno or errno.EIO)

    def _clear(self, unit: Unit) -> None:
        if self._unclear.pop(unit, None) is not None:
            self._again.drop(unit)
            self.unseen.note(unit)

    def _decide(self, hint: Hint, batch: _Batch) -> None:
        """Decide what a hint at a name means, by what has that name now.

        Raises OSError where that cannot be told.
        """
        container, name, event, closed = hint
        path, unit = container.join(name), (container, name)
        descriptor = batch.containers.get(container)
        code = why_unreachable(descriptor)
        if code:
            raise OSError(code, os.strerror(code))
        found = identify(name, descriptor) if descriptor >= 0 else None
        if found is None:
            self._forget(unit)
            if descriptor < 0:
                container.root.note_miss()
            # What cannot be reached by the root's path is not gone.
            if not (container.root.missed or self.is_under_way(batch.known.get(path))):
                batch.gone.append(path)
            return
        version, changed_ns = found
        known = batch.known.get(path)
        if known is not None and is_same_content(known.version, version):
            # Announced, or noted, before: whatever has changed inside it.
            self.enter(container, name, known, Reason.NEW)
            return
        if event == LEFT:
            return  # another one came since, and an event of its own follows
        if event == UNASKED and unit not in self._unfinished:
            # The watch's mask leaves it out. It is made known, so that no scan takes it for new.
            batch.noted.append((path, version, Noted.UNASKED))
            batch.known[path] = Known(version, 0)
            self.enter(container, name, None, Reason.NEW)
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
        """Ask for what the watch wants besides the name: the marker, and that nothing changes.

        Raises OSError where that cannot be told.
        """
        watch, name = unit[0].root.watch, unit[1]
        marked = True
        if watch.marker is not None:
            # Watched first, and only then looked at: it cannot come in between.
            self._source.wait_for_marker(unit, descriptor)
            marker = look_inside(name, watch.marker, descriptor)
            if marker.is_unseen:
                raise OSError(marker.error, os.strerror(marker.error))
            marked = self._markers.complete(
                unit, marker, time.monotonic(), time.time_ns(), closed=closed, settle=0.0
            )
        settle = watch.settle or 0.0
        inside = walk_inside(name, descriptor) if settle and marked else None
        return self._unfinished.finished(
            unit, time.monotonic(), marked=marked, settle=settle, inside=inside
        )

    # Arrivals

    def _arrived(self, unit: Unit, version: Version, changed_ns: int, batch: _Batch) -> None:
        watch, path = unit[0].root.watch, unit[0].join(unit[1])
        route, (final, move) = self._router.route(path), self._router.move(path)
        if self._router.is_dry_run(path):
            # The lines of the system that the log comes from are the only ones, unless asked for.
            level = logging.INFO if self._router.only_tells else logging.DEBUG
            say_what_would_happen(path, final, route and route.task, level)
            batch.noted.append((path, version, Noted.DRY_RUN))
        elif route is None and final is None:
            batch.noted.append((path, version, Noted.UNASKED))
            if not watch.rec:  # with it, such a one is entered: its directories are units
                self.notes.unasked(watch, [path])
            self.enter(*unit, None, Reason.NEW)
        else:
            # The ctime makes the task id another one if the same directory is finished again.
            number = task_id(path, version._replace(changed_ns=changed_ns))
            now_ns = time.time_ns()
            batch.new.append(
                NewDelivery(
                    *(number, path, final, version, now_ns, route, "directories"),
                    unless=number,
                    move=move,
                )
            )

    def record(self, batch: _Batch) -> None:
        """Put everything into the journal with one commit, and say who has something to do."""
        if not (batch.new or batch.noted or batch.gone):
            return
        arrived = record(self._journal, batch.new, batch.noted, batch.gone, time.time_ns())
        if not batch.new:
            return
        self.last_arrival_ns = batch.new[-1].arrived_ns
        signals.announce(signals.arrived, arrived)
        moves = {new.move for new in batch.new if new.move is not None}
        brokers = {new.route.broker for new in batch.new if new.move is None and new.route}
        self._listener.wake(moves | brokers)

    # Looking

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Batch]:
        """Give a batch whose descriptors are closed at the end."""
        with DirectoryCache(descriptor_of) as containers:
            yield _Batch([], [], [], {}, containers)

    def look_up(self, container: Node, names: Sequence[str], batch: _Batch) -> None:
        """Add what the journal knows of these names to the batch."""
        found = self._journal.known.lookup(container.path.rstrip("/"), names)
        batch.known.update((container.join(name), known) for name, known in found.items())


class DirectoryScanner:
    """Handles what the source lists, in the thread of the source."""

    def __init__(
        self,
        journal: Journal,
        source: DirectorySource,
        directories: Directories,
        first_runs: FirstRuns,
    ) -> None:
        self._journal = journal
        self._source = source
        self._directories = directories
        self._first_runs = first_runs

    @property
    def pending(self) -> bool:
        """Whether there is something to list."""
        return self._source.scanning

    def step(self) -> None:
        """Scan one container."""
        listing = next(self._source.listings(), None)
        if listing is not None:
            self._scan(listing)
        if not self.pending:
            self._directories.notes.end_scan()

    def _scan(self, listing: Listing) -> None:
        """Look at everything in a container, and forget what it no longer has."""
        container, descriptor = listing.node, listing.descriptor
        watch = container.root.watch
        before_ns = self._first_runs.before_ns(watch, container.path, listing.reason)
        names = [entry.name for entry in listing.entries]
        with self._directories.opened() as batch:
            self._directories.look_up(container, names, batch)
            hints = []
            matched = False
            for name in names:
                if self._directories.is_left_out(container, name):
                    continue
                try:
                    found = identify(name, descriptor)
                except OSError as error:
                    self._directories.cannot_look(Hint(container, name, FOUND), error)
                    continue
                if found is None:
                    continue
                version, changed_ns = found
                path = container.join(name)
                known = batch.known.get(path)
                if known is not None and is_same_content(known.version, version):
                    matched = True
                    self._directories.enter(container, name, known, listing.reason)
                elif changed_ns < before_ns:
                    batch.noted.append((path, version, Noted.BEFORE))
                    self._directories.notes.before(watch, [path])
                    self._directories.enter(container, name, None, listing.reason)
                else:
                    hints.append((changed_ns, Hint(container, name, FOUND)))
            if listing.whole:
                batch.gone.extend(self._missing(container, set(names), descriptor, matched))
            self._directories.record(batch)
        if hints and not container.root.polled:
            # How one came that is new to the scan, its event tells, which may still be unread.
            self._directories.handle(self._source.drain())
        self._directories.handle([hint for _, hint in sorted(hints, key=itemgetter(0))])

    def _missing(
        self, container: Node, names: set[str], descriptor: int, matched: bool
    ) -> list[str]:
        """Return the known directories that a container no longer has.

        As for files: where none is as it is known, those that were seen on another device are not
        missing, as a share may just not be mounted.
        """
        try:
            device = os.fstat(descriptor).st_dev
        except OSError:
            return []
        above = container.path.rstrip("/")
        known = self._journal.known.scan(above).maybe_missing()
        gone = [name for name in known if name not in names and not is_directory(name, descriptor)]
        remembered = self._journal.known.lookup(above, gone)
        return [
            container.join(name)
            for name, one in remembered.items()
            if (matched or one.version.device == device) and not self._directories.is_under_way(one)
        ]


class DirectoryWatcher(Watcher[list[Hint]]):
    """Watches with ``kind='directories'`` that share a source."""

    def __init__(
        self,
        source: DirectorySource,
        journal: Journal,
        router: Router,
        listener: PartsListener,
        troubles: Troubles,
        *,
        resumed: bool,
    ) -> None:
        first_runs = FirstRuns(journal, [root.watch for root in source.roots], resumed=resumed)
        self._directories = Directories(journal, router, source, listener, troubles)
        scanner = DirectoryScanner(journal, source, self._directories, first_runs)
        super().__init__(source, self._directories, scanner, first_runs, resumed=resumed)

    def check(self, now: float) -> None:
        """Have done what is due for any watch; say what cannot be looked at."""
        super().check(now)
        self._directories.unseen.check(now)
