"""From hints to recorded deliveries: look, is it complete, is it known, where to, record."""

from __future__ import annotations

import collections
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from watchman import signals
from watchman.arrivals import UNTESTED_SETTLE, Arrivals
from watchman.filesystem import GONE, Look, Seen, look
from watchman.journal import Journal, NewDelivery
from watchman.logs import info_all
from watchman.model import Version, Watch
from watchman.notify.identity import task_id
from watchman.router import Router
from watchman.sources.inotify import ATTRIB, CLOSED, CONTENT, Hints, Source
from watchman.sources.tree import Node
from watchman.text import printable

log = logging.getLogger("watchman.notify")

SLICE = 500
"""Hints handled, recorded and committed at a time."""

Key = tuple[Node, str]


class _Found(NamedTuple):
    """A complete file, known or not."""

    node: Node
    name: str
    path: str
    version: Version


class _Directories:
    """Directories that are open while a slice of hints is handled."""

    LIMIT = 200

    def __init__(self) -> None:
        self._open: dict[Node, tuple[int, str]] = {}

    def __enter__(self) -> _Directories:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor, _path in self._open.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()

    def get(self, node: Node) -> tuple[int, str]:
        """Return (descriptor or -1 if it is gone, path with a slash behind it)."""
        found = self._open.get(node)
        if found is None:
            if len(self._open) >= self.LIMIT:
                self.__exit__()
            try:
                descriptor = node.open()
            except OSError:
                descriptor = -1
            found = self._open[node] = (descriptor, node.path.rstrip("/") + "/")
        return found


class Intake:
    """Handles hints in the pipeline's thread.

    ``wake`` is told after each commit whom it concerns: brokers by name, and None for the mover.
    """

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: Source,
        wake: Callable[[Iterable[str | None]], None],
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self._wake = wake
        self._arrivals: Arrivals[Key] = Arrivals()
        self.last_arrival_ns = 0

    @property
    def waiting(self) -> int:
        """How many files are not complete yet."""
        return len(self._arrivals)

    def next_due(self) -> float | None:
        """When, by the monotonic clock, :meth:`look_at_due` has something to do."""
        return self._arrivals.next_due()

    def look_at_due(self, now: float) -> None:
        """Look again at the files whose time has come."""
        due = self._arrivals.due(now)
        if due:
            self.handle(dict.fromkeys(due, 0))

    def handle(self, hints: Hints) -> None:
        """Handle hints in slices, each with a commit of its own.

        A changed attribute is believed to be no more than that only after the kernel's queue
        has been read up to now: a file that is free was closed before that, so a write behind
        the change shows as its ``IN_CLOSE_WRITE``.
        """
        self.forget_vanished()
        while hints:
            refreshed: dict[Key, tuple[str, Version]] = {}
            items = list(hints.items())
            for start in range(0, len(items), SLICE):
                self._handle_slice(items[start : start + SLICE], refreshed)
            hints = self._source.drain() if refreshed else {}
            fresh = [value for key, value in refreshed.items() if not hints.get(key, 0) & CONTENT]
            if fresh:
                self._journal.known.refresh(fresh)

    def forget_vanished(self) -> None:
        """Forget what was in directories that left, before their names are used again."""
        for path in self._source.vanished():
            self._journal.known.forget_below(path)

    def is_complete(self, key: Key, seen: Look, mask: int = 0) -> bool:
        """Judge a file; one that is not complete yet is looked at again later."""
        root = key[0].root
        settle = root.watch.settle
        if settle is None and root.polled:
            # What another host writes, neither events nor leases on this one can see.
            settle = UNTESTED_SETTLE
        closed = bool(mask & CLOSED)
        return self._arrivals.complete(
            key, seen, time.monotonic(), time.time_ns(), closed=closed, settle=settle
        )

    def _handle_slice(
        self, items: Sequence[tuple[Key, int]], refreshed: dict[Key, tuple[str, Version]]
    ) -> None:
        ignored = self._router.ignored
        found: list[_Found] = []
        gone: list[str] = []
        touched: list[_Found] = []
        with _Directories() as directories:
            for key, mask in items:
                node, name = key
                descriptor, prefix = directories.get(node)
                path = prefix + name
                if ignored(name, path) or not _wanted(node.root.watch, mask):
                    continue
                seen = look(name, descriptor) if descriptor >= 0 else GONE
                if seen.seen is Seen.GONE:
                    self._arrivals.forget(key)
                    gone.append(path)
                elif mask & ATTRIB and not mask & CONTENT:
                    # While somebody writes, or may be writing, the write's own hint will follow.
                    if seen.seen is Seen.COMPLETE and seen.version is not None:
                        touched.append(_Found(node, name, path, seen.version))
                elif self.is_complete(key, seen, mask):
                    assert seen.version is not None
                    found.append(_Found(node, name, path, seen.version))
        if touched:
            self._sort_touched(touched, found, refreshed)
        if found:
            self._arrived(found)
        if gone:
            self._journal.known.forget(gone)

    def _sort_touched(
        self,
        touched: Sequence[_Found],
        found: list[_Found],
        refreshed: dict[Key, tuple[str, Version]],
    ) -> None:
        """Sort attribute changes: nothing new, other times, or another content."""
        known = self._known(touched)
        for item in touched:
            before = known.get(item.path)
            if before is None or before.same_content(item.version):
                continue
            if (before.inode, before.size) == (item.version.inode, item.version.size):
                refreshed[item.node, item.name] = (item.path, item.version)
            else:
                found.append(item)

    def _known(self, items: Iterable[_Found]) -> dict[str, Version]:
        names = collections.defaultdict(list)
        for item in items:
            names[item.path.rpartition("/")[0]].append(item.name)
        return {
            f"{directory}/{name}": known.version
            for directory, wanted in names.items()
            for name, known in self._journal.known.lookup(directory, wanted).items()
        }

    def _arrived(self, found: Sequence[_Found]) -> None:
        """Record complete files that are not known; the commit is on disk when this returns."""
        known = self._known(found)
        unknown = [
            item
            for item in found
            if (before := known.get(item.path)) is None or not before.same_content(item.version)
        ]
        if not unknown:
            return
        info_all(log, "Notified of %s", [printable(item.path) for item in unknown])
        self.last_arrival_ns = now_ns = time.time_ns()
        new: list[NewDelivery] = []
        noted: list[tuple[str, Version]] = []
        concerned: set[str | None] = set()
        for item in unknown:
            path, version = item.path, item.version
            route, final = self._router.route(path), self._router.destination(path)
            if self._router.is_dry_run(path):
                _say_what_would_happen(path, final, route and route.task)
                noted.append((path, version))
            elif route is None and final is None:
                noted.append((path, version))
            else:
                identity = task_id(path, version)
                new.append(NewDelivery(identity, path, final, version, now_ns, route))
                concerned.add(route.broker if route is not None and final is None else None)
        self._journal.record(new, noted)
        self._wake(concerned)
        signals.announce(signals.arrived, new)


def _wanted(watch: Watch, mask: int) -> bool:
    """Whether the watch's own mask lets the hint through; scans and endings always pass."""
    return watch.mask is None or not mask & CONTENT or bool(mask & watch.mask)


def _say_what_would_happen(path: str, final: str | None, task: str | None) -> None:
    if final is not None:
        log.info("Dry run: would move %s to %s", printable(path), printable(final))
    if task is not None:
        log.info("Dry run: would send task %s", task)
