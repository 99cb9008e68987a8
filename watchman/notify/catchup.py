"""Scans: what is there and not known, oldest first, a moment at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence

from watchman.filesystem import Seen, look
from watchman.journal import Journal, Scan
from watchman.model import Noted
from watchman.notify.intake import SLICE, Intake
from watchman.sources.inotify import CAME, Source
from watchman.sources.nodes import Listing, Node, Reason

log = logging.getLogger("watchman.notify")

SCAN_TIME = 0.05
"""Seconds of scanning between two looks at live events."""
BACKLOG = 50_000
"""Files found by scans that are put in order at a time."""
CLOCK_GRAIN_NS = 10_000_000
"""A ctime comes from the kernel's coarse clock, up to 10 ms behind (CONFIG_HZ=100)."""
PROGRESS = 10.0
"""Seconds between two log lines on a scan that takes long."""

_Item = tuple[int, Node, str]
"""(mtime in ns, directory, name)"""


class CatchUp:
    """Handles what the source lists, in the pipeline's thread."""

    def __init__(self, journal: Journal, source: Source, intake: Intake, roots: set[str]) -> None:
        """``roots`` are the watch roots that no run has scanned to the end yet."""
        self._journal = journal
        self._source = source
        self._intake = intake
        self._started_ns = time.time_ns() - CLOCK_GRAIN_NS
        self._first_runs = journal.begin_first_runs(roots, self._started_ns)
        self._found: list[_Item] = []
        self._sorted: list[_Item] = []
        """The part that is being handled: the oldest is last."""
        self._scanned: Scan | None = None
        self._matched = False
        """Whether the directory in hand has a file that is known."""
        self._seen = 0
        self._next_progress = 0.0
        journal.known.load_directories()

    def add(self, path: str) -> None:
        """Take another watch root that no run has scanned to the end yet."""
        now_ns = time.time_ns() - CLOCK_GRAIN_NS
        self._first_runs |= self._journal.begin_first_runs([path], now_ns)

    @property
    def pending(self) -> bool:
        """Whether there is something to list or to handle."""
        return self._source.scanning or bool(self._found) or bool(self._sorted)

    def step(self) -> None:
        """List directories for a moment, then handle a slice of what was found."""
        if self._source.scanning:
            self._list()
        if self._found or self._sorted:
            self._drain()
        if not self.pending:
            self._source.certain = True
            self._journal.known.unload_directories()
            self._intake.remarks.end_scan()
            if self._first_runs:
                self._end_first_runs()

    def _end_first_runs(self) -> None:
        """Note that everything that was there before this run has been seen.

        A root that is not there, say because it is not mounted yet, has its first run before it.
        """
        for root in self._source.roots:
            path = root.watch.path
            if root.identity is not None and path in self._first_runs:
                self._journal.note_first_run([path])
                del self._first_runs[path]

    def _list(self) -> None:
        now = time.monotonic()
        until = now + SCAN_TIME
        if not self._seen:
            self._next_progress = now + PROGRESS
        for listing in self._source.listings():
            self._seen += len(listing.entries)
            self._listed(listing)
            now = time.monotonic()
            if now > self._next_progress:
                self._next_progress = now + PROGRESS
                log.info("Scanning: %d files so far, %d new", self._seen, len(self._found))
            if now > until:
                return
        self._seen = 0

    def _listed(self, listing: Listing) -> None:
        empty = listing.last and not listing.entries and self._scanned is None
        if empty and not self._journal.known.knows(listing.path):
            return  # nothing is there, and nothing was: most directories of a large tree
        self._intake.forget_vanished()
        node = listing.node
        if listing.reason in (Reason.NEW, Reason.READABLE):
            mask = CAME if listing.reason is Reason.NEW else 0
            self._intake.handle({(node, entry.name): mask for entry in listing.entries})
            return
        if self._scanned is None:
            self._scanned = self._journal.known.scan(listing.path)
        found: dict[str, os.stat_result] = {}
        for entry in listing.entries:
            # What is gone since has an event of its own.
            with contextlib.suppress(OSError):
                found[entry.name] = entry.stat(follow_symlinks=False)
        old = []
        changed = self._scanned.changed(found)
        self._matched |= len(changed) < len(found)
        for name in changed:
            status = found[name]
            if self._predates(listing, status.st_ctime_ns):
                old.append(name)
            else:
                self._found.append((status.st_mtime_ns, node, name))
        if old:
            self._note_existing(listing, old)
        if listing.last:
            if listing.whole:
                self._forget_missing(listing, self._scanned)
            self._scanned, self._matched = None, False

    def _predates(self, listing: Listing, changed_ns: int) -> bool:
        """Whether what is there is only to be noted: it was there before the run that notes."""
        watch = listing.node.root.watch
        if listing.reason is not Reason.START or watch.existing == "all":
            return False
        if watch.existing == "none":
            return changed_ns < self._started_ns
        began_ns = self._first_runs.get(watch.path)
        # Not 0 for a watch that has had its first run: a time may be before 1970.
        return began_ns is not None and changed_ns < began_ns

    def _note_existing(self, listing: Listing, names: Sequence[str]) -> None:
        """Make known what was there before the first run, unless somebody is writing it."""
        noted = []
        path = listing.path
        for name in names:
            seen = look(name, listing.descriptor)
            if seen.seen is Seen.BUSY:
                self._intake.is_complete((listing.node, name), seen, f"{path}/{name}")
            elif seen.version is not None:
                noted.append((f"{path}/{name}", seen.version, Noted.BEFORE))
        self._journal.record((), noted)
        if noted:
            watch = listing.node.root.watch
            self._intake.remarks.before(watch, [noted_path for noted_path, _, _ in noted])

    def _forget_missing(self, listing: Listing, scanned: Scan) -> None:
        """Forget the known names that a directory no longer has.

        Names that were seen on another device are not missing: a share that is not mounted has
        nothing in its mount point, and all that was announced when it is back. Device numbers
        may change with each mount, so a directory that has one known file is the same, too.
        """
        names = [
            name
            for name in scanned.maybe_missing()
            if look(name, listing.descriptor).seen is Seen.GONE
        ]
        if names and not self._matched:
            device = os.fstat(listing.descriptor).st_dev
            known = self._journal.known.lookup(scanned.directory, names)
            names = [name for name in names if name in known and known[name].version[0] == device]
        if names:
            self._journal.known.forget(f"{scanned.directory}/{name}" for name in names)

    def _drain(self) -> None:
        """Handle a slice, oldest first, once a scan is over or much was found."""
        if not self._sorted and (not self._source.scanning or len(self._found) >= BACKLOG):
            self._sorted, self._found = self._found, []
            self._sorted.sort(key=_mtime, reverse=True)
        part = self._sorted[-SLICE:]
        del self._sorted[-SLICE:]
        self._intake.handle({(node, name): 0 for _, node, name in reversed(part)})


def _mtime(item: _Item) -> int:
    return item[0]
