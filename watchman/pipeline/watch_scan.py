"""Scans: what is there and not known, oldest first, a moment at a time."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping

from watchman.file_access import GONE_ERRNOS, Seen, look, version_of
from watchman.journal import Journal, Scan
from watchman.journal.known import FORGOTTEN
from watchman.model import Noted
from watchman.pipeline.files import SLICE, Files
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.scan_progress import ScanProgress
from watchman.sources.source import CAME, Source
from watchman.sources.tree import Listing, Node, Reason

SCAN_TIME = 0.05
"""Seconds of scanning between two looks at live events."""
BACKLOG = 50_000
"""Files found by scans that are put in order at a time."""

_Item = tuple[int, Node, str]
"""(mtime in ns, directory, name)"""


class Scanner:
    """Handles what the source lists, in the pipeline's thread."""

    def __init__(
        self, journal: Journal, source: Source, files: Files, first_runs: FirstRuns
    ) -> None:
        self._journal = journal
        self._source = source
        self._files = files
        self._first_runs = first_runs
        self._found: list[_Item] = []
        self._sorted: list[_Item] = []
        """The part that is in order, and being handled: the oldest is last."""
        self._scanned: Scan | None = None
        """What is known in the directory that is being listed."""
        self._matched = False
        """Whether a file in it is as it is known."""
        paths = [root.watch.path for root in source.roots]
        self.progress = ScanProgress(paths, first_run=bool(first_runs))
        journal.known.load_directories()

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
            self.progress.end()
            # Whatever an overflow has kept from us has been looked at by now.
            self._source.certain = True
            self._journal.known.unload_directories()
            self._files.end_scan()

    def _list(self) -> None:
        until = time.monotonic() + SCAN_TIME
        for listing in self._source.listings():
            self.progress.listed(len(listing.entries))
            self._listed(listing)
            if time.monotonic() > until:
                break
        self.progress.step(self._unhandled, 0, listing=self._source.scanning)

    def _listed(self, listing: Listing) -> None:
        # A listing may come in several parts.
        empty = listing.last and not listing.entries and self._scanned is None
        if empty and not self._journal.known.knows(listing.path):
            return  # nothing is there, and nothing was: most directories of a large tree
        self._files.forget_vanished()
        node = listing.node
        if listing.reason in (Reason.NEW, Reason.READABLE):
            mask = CAME if listing.reason is Reason.NEW else 0
            self._files.handle({(node, entry.name): mask for entry in listing.entries})
            return
        if self._scanned is None:
            self._scanned = self._journal.known.scan(listing.path)
        found: dict[str, os.stat_result] = {}
        for entry in listing.entries:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except OSError as error:
                # What is gone since has an event of its own; anything else is looked at again.
                if error.errno not in GONE_ERRNOS:
                    self._found.append((0, node, entry.name))
        old = {}
        before_ns = self._first_runs.before_ns(node.root.watch, listing.path, listing.reason)
        changed = self._scanned.changed(found)
        self._matched |= len(changed) < len(found)
        for name in changed:
            status = found[name]
            noted = status.st_ctime_ns < before_ns
            if noted and not self._files.is_waited_for(f"{listing.path.rstrip('/')}/{name}"):
                old[name] = status
            else:
                self._found.append((status.st_mtime_ns, node, name))
        if old:
            self._note_existing(listing, old)
        if listing.last:
            if listing.whole:
                self._forget_missing(listing, self._scanned)
            self._scanned, self._matched = None, False

    def _note_existing(self, listing: Listing, files: Mapping[str, os.stat_result]) -> None:
        """Make known what was there before the first run, unless somebody is writing it."""
        noted = []
        path = listing.path
        for name, status in files.items():
            seen = look(name, listing.descriptor)
            if seen.is_unseen:
                # It is old all the same. An event tells if somebody is writing it.
                noted.append((f"{path}/{name}", version_of(status), Noted.BEFORE))
            elif seen.seen is Seen.BUSY:
                self._files.is_complete((listing.node, name), seen, f"{path}/{name}")
            elif seen.version is not None:
                noted.append((f"{path}/{name}", seen.version, Noted.BEFORE))
        self._journal.record((), noted)
        if noted:
            watch = listing.node.root.watch
            self._files.notes.before(watch, [noted_path for noted_path, _, _ in noted])

    def _forget_missing(self, listing: Listing, scanned: Scan) -> None:
        """Forget the known names that a directory no longer has.

        Names that were seen on another device are not missing: a share that is not mounted has
        nothing in its mount point, and all that was announced when it is back. Device numbers
        may change with each mount, so a directory that has one known file is the same, too.
        """
        missing = (
            name
            for name in scanned.maybe_missing()
            if look(name, listing.descriptor).seen is Seen.GONE
        )
        try:
            device = os.fstat(listing.descriptor).st_dev
        except OSError:
            return  # its file system has just gone away: unknown is not missing
        # A part in one commit: a million may be gone.
        while names := list(itertools.islice(missing, FORGOTTEN)):
            if not self._matched:
                known = self._journal.known.lookup(scanned.directory, names)
                names = [
                    name for name in names if name in known and known[name].version[0] == device
                ]
            self._journal.known.forget(f"{scanned.directory}/{name}" for name in names)

    def _drain(self) -> None:
        """Handle a slice, oldest first, once a scan is over or much was found."""
        if not self._sorted and (not self._source.scanning or len(self._found) >= BACKLOG):
            self._sorted, self._found = self._found, []
            self._sorted.sort(key=_mtime, reverse=True)
        part = self._sorted[-SLICE:]
        del self._sorted[-SLICE:]
        self._files.handle({(node, name): 0 for _, node, name in reversed(part)})
        self.progress.step(self._unhandled, len(part), listing=self._source.scanning)

    @property
    def _unhandled(self) -> int:
        return len(self._found) + len(self._sorted)


def _mtime(item: _Item) -> int:
    return item[0]
