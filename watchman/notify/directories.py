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
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from watchman import hanging
from watchman.errors import JournalError
from watchman.identity import is_same_content
from watchman.journal import Journal
from watchman.model import Noted, Watch
from watchman.notify.remarks import Remarks
from watchman.notify.units import FOUND, Units
from watchman.router import Router
from watchman.sources.directories import Container, DirectorySource, Hint, is_there
from watchman.sources.directory_version import identify
from watchman.text import printable

log = logging.getLogger("watchman.notify")

CHECK = 2.0
"""Seconds between two checks that each watch's path is still the directory that is watched."""
PROCESSOR = "watchman.processors.FinishedDirectories"


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
        self._started_ns = started_ns
        self._resumed = resumed
        roots = journal.first_runs(watch.path for watch, _ in watches)
        self._first_runs = journal.begin_first_runs(roots, started_ns)
        self._source = DirectorySource(watches, trouble)
        self._units = Units(journal, router, self._source, wake, self._enter)
        self._scans: dict[Container, bool] = {}
        """Containers to scan; True where what is there may predate the run."""
        self._next_scan: dict[Container, float] = {}
        self._next_check = 0.0
        self._changed: collections.deque[str] = collections.deque()
        self._rescan = False
        self._stopping = False
        self.watching = False
        """Whether the first scan is over: everything is watched."""
        self.error: BaseException | None = None
        paths = [watch.path for watch, _ in watches]
        self.station = hanging.Station(paths, paths)
        self._thread = threading.Thread(target=self._run, name="directories", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        for root in self._source.roots:
            log.debug("Adding watch on %s, processed by %s", printable(root.path), PROCESSOR)
            self._scans[root] = not self._resumed or root.path in self._first_runs
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after what is in hand."""
        self._stopping = True
        self._source.wake()

    def join(self, timeout: float) -> bool:
        """Wait for its end; False where it hangs and was left.

        What it does when it comes back is too late: the journal does not hear of it.
        """
        if self._thread.ident is None:
            self._source.close()
            return True
        if hanging.join([self._thread], self.station.where, timeout):
            return True
        self._journal.shut_out(self._thread)
        hanging.leave([self._thread], self.station.where)
        return False

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

    @property
    def last_arrival_ns(self) -> int:
        """When the last finished directory was recorded; 0 for never."""
        return self._units.last_arrival_ns

    @property
    def remarks(self) -> Remarks:
        """What is to be said of the watches."""
        return self._units.remarks

    # The thread

    def _run(self) -> None:
        try:
            self.station.since = time.monotonic()
            if hanging.await_left(self.station.where, lambda: self._stopping):
                self._source.start()
            while not self._stopping:
                self._turn()
        except JournalError as error:
            self.error = error  # told to stop while the disk is full: the pipeline says so
        except BaseException as error:
            log.exception("Watching for finished directories ended")
            self.error = error
        finally:
            self.station.since = None
            self._source.close()

    def _turn(self) -> None:
        busy = bool(self._scans or self._changed or self._rescan)
        timeout = 0.0 if busy else self._time_left()
        self.station.since = time.monotonic() + timeout
        hints = self._source.take(timeout)
        now = time.monotonic()
        hints += self._units.due(now)
        while self._changed:
            hints += self._hint_at(self._changed.popleft())
        if hints:
            self._units.handle(hints)
        if self._source.overflowed or self._rescan:
            self._source.overflowed = self._rescan = False
            self._scans |= dict.fromkeys(self._source.roots, False)
        if self._scans:
            container = next(iter(self._scans))
            self._scan(container, may_predate=self._scans.pop(container))
        else:
            self._now_watching()
        if now >= self._next_check or self._source.root_left:
            self._check(now)

    def _time_left(self) -> float:
        due = self._units.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic()) if self.watching else 0.0

    def _now_watching(self) -> None:
        """Note whose first run is over. A root that is not there has it before it."""
        self.remarks.end_scan()
        self.watching = True
        if self._first_runs:
            there = {root.path for root in self._source.roots if root.identity is not None}
            over = there & self._first_runs.keys()
            self._journal.note_first_run(over)
            for path in over:
                del self._first_runs[path]

    def _check(self, now: float) -> None:
        self._next_check = now + CHECK
        self._source.root_left = False
        changed = self._source.check_roots()
        self._scans |= {root: root.path in self._first_runs for root in changed}
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

    def _enter(self, container: Container, may_predate: bool) -> None:
        self._scans.setdefault(container, may_predate)

    # Scans

    def _scan(self, container: Container, *, may_predate: bool) -> None:
        """Look at everything in a container, and forget what it no longer has."""
        names = self._source.names(container)
        if names is None:
            return
        with self._units.opened() as batch:
            descriptor = self._units.open(container, batch)
            self._units.look_up(container, names, batch)
            hints = []
            for name in names:
                found = None if self._units.skips(container, name) else identify(name, descriptor)
                if found is None:
                    continue
                version, changed_ns = found
                path = container.join(name)
                known = batch.known.get(path)
                if known is not None and is_same_content(known.version, version):
                    self._units.look_into(container, name, known, may_predate=may_predate)
                elif may_predate and self._predates(container.watch, changed_ns):
                    batch.noted.append((path, version, Noted.BEFORE))
                    self.remarks.before(container.watch, [path])
                    self._units.look_into(container, name, None, may_predate=True)
                else:
                    hints.append((changed_ns, Hint(container, name, FOUND)))
            batch.gone.extend(self._missing(container, set(names), descriptor))
            self._units.record(batch)
        if hints and not container.polled:
            # How one came that is new to the scan, its event tells, which may still be unread.
            self._units.handle(self._source.drain())
        self._units.handle([hint for _, hint in sorted(hints, key=lambda item: item[0])])

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
            if not self._units.is_under_way(remembered.get(name))
        ]

    def _predates(self, watch: Watch, changed_ns: int) -> bool:
        """Whether a directory is only to be noted: it was there before the run that notes."""
        if watch.existing == "all":
            return False
        if watch.existing == "none":
            return changed_ns < self._started_ns
        began_ns = self._first_runs.get(watch.path)
        # Not 0 for a watch that has had its first run: a time may be before 1970.
        return began_ns is not None and changed_ns < began_ns
