"""From hints to recorded deliveries: look, is it complete, is it known, where to, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from watchman import signals
from watchman.arrivals import UNTESTED_SETTLE, Arrivals
from watchman.descriptors import Descriptors
from watchman.filesystem import Look, Seen, is_too_long
from watchman.journal import Journal, NewDelivery
from watchman.log_batch import info_all
from watchman.model import Version, Watch
from watchman.notify.doubts import Doubts, Key
from watchman.notify.identity import task_id
from watchman.notify.looking import descriptor_of, look_at
from watchman.notify.remarks import Remarks
from watchman.router import Router
from watchman.sources.inotify import ATTRIB, CLOSED, CONTENT, Hints, Source
from watchman.sources.nodes import Node
from watchman.text import printable
from watchman.turns import turn

log = logging.getLogger("watchman.notify")

SLICE = 1000
"""Hints handled, recorded and committed at a time."""

_BEYOND_DOUBT = 1 << 16
"""A bit that the kernel's masks do not use: no event that is still unread can tell more."""


class _Found(NamedTuple):
    """A complete file, known or not."""

    node: Node
    name: str
    path: str
    version: Version


class _Sorted(NamedTuple):
    """What became of a slice of hints."""

    found: list[_Found]
    early: dict[Key, _Found]
    touched: dict[Key, _Found]
    gone: list[str]


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
        self._touched: Doubts[tuple[str, Version]] = Doubts(source)
        """New versions of known files, whose content seems to be the one that was announced."""
        self._early: Doubts[None] = Doubts(source)
        """Complete files of which no event has said so: the one that may follow would show a
        newer version where the times are changed after closing, and double the task."""
        self._only_touched: set[Key] = set()
        """Of the files that settle, those of which nothing but an attribute is known to differ."""
        self._remarks = Remarks()
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
        """Handle hints in slices, each with a commit of its own."""
        self.forget_vanished()
        self._touched.sort_out(hints)
        self._early.sort_out(hints)
        for early in self._early.settled():
            for key in early:
                hints[key] = hints.get(key, 0) | _BEYOND_DOUBT
        items = list(hints.items())
        with Descriptors(descriptor_of) as directories:
            for start in range(0, len(items), SLICE):
                directories.renew()
                self._handle_slice(items[start : start + SLICE], directories)
        for touched in self._touched.settled():
            self._journal.known.refresh(touched.values())

    def forget_vanished(self) -> None:
        """Forget what was in directories that left, before their names are used again."""
        vanished = self._source.vanished()
        if vanished:
            self._journal.known.forget_below(*vanished)

    def is_complete(self, key: Key, seen: Look, path: str, mask: int = 0) -> bool:
        """Judge a file; one that is not complete yet is looked at again later."""
        root = key[0].root
        settle = root.watch.settle
        if settle is None and (root.polled or root.remote) and root.is_polled(path):
            # What another host writes, neither events nor leases on this one can see.
            settle = UNTESTED_SETTLE
        elif seen.seen is Seen.UNTESTED and not root.is_polled(path):
            self._remarks.untested(root)
        closed = bool(mask & CLOSED)
        if closed and seen.seen is Seen.COMPLETE and not settle and key not in self._arrivals:
            return True  # as Arrivals would say, without asking two clocks for each file
        return self._arrivals.complete(
            key, seen, time.monotonic(), time.time_ns(), closed=closed, settle=settle
        )

    def _handle_slice(
        self, items: Sequence[tuple[Key, int]], directories: Descriptors[Node]
    ) -> None:
        ignored = self._router.ignored
        prefixes: dict[Node, str] = {}
        into = _Sorted([], {}, {}, [])
        with turn():
            for key, mask in items:
                node, name = key
                prefix = prefixes.get(node)
                if prefix is None:
                    prefix = prefixes[node] = node.path.rstrip("/") + "/"
                path = prefix + name
                if ignored(name, path) or not _wanted(node.root.watch, mask):
                    continue
                if is_too_long(path):
                    self._remarks.too_long(node.root, path)
                    continue
                seen = look_at(name, directories.get(node), mask)
                if seen.seen is Seen.GONE:
                    self._arrivals.forget(key)
                    into.gone.append(path)
                else:
                    self._judge(key, mask, seen, path, into)
        if into.early:
            if self._source.mark() <= self._source.parsed:
                into.found.extend(into.early.values())
            else:
                self._early.add(dict.fromkeys(into.early))
        if into.touched:
            self._sort_touched(into)
        if into.found or into.gone:
            self._arrived(into.found, into.gone)

    def _judge(self, key: Key, mask: int, seen: Look, path: str, into: _Sorted) -> None:
        if mask & ATTRIB and not mask & (CONTENT | _BEYOND_DOUBT):
            if self._is_only_touched(key, seen, path):
                into.touched[key] = _item(key, path, seen)
            return
        only_touched = self._only_touched and key in self._only_touched
        if only_touched and mask & CONTENT:
            self._only_touched.discard(key)
            only_touched = False
        if not self.is_complete(key, seen, path, mask):
            return
        if mask & (CLOSED | _BEYOND_DOUBT):
            into.found.append(_item(key, path, seen))
        elif only_touched or (not mask & CONTENT and key in self._touched):
            self._only_touched.discard(key)
            into.touched[key] = _item(key, path, seen)
        else:
            into.early[key] = _item(key, path, seen)

    def _is_only_touched(self, key: Key, seen: Look, path: str) -> bool:
        """Judge a file of which an attribute changed.

        While somebody writes, or may be writing, the write's own hint will follow.
        """
        if seen.seen is Seen.UNTESTED and key not in self._arrivals:
            self._only_touched.add(key)
            return self.is_complete(key, seen, path)
        return seen.seen is Seen.COMPLETE

    def _sort_touched(self, into: _Sorted) -> None:
        """Sort attribute changes: nothing new, other times, or another content."""
        known = self._journal.known.versions(item.path for item in into.touched.values())
        refreshed: dict[Key, tuple[str, Version]] = {}
        for key, item in into.touched.items():
            before = known.get(item.path)
            if before is None or before.same_content(item.version):
                continue
            same = (before.inode, before.size) == (item.version.inode, item.version.size)
            if same and self._source.certain:
                refreshed[key] = (item.path, item.version)
            else:
                into.found.append(item)
        if refreshed:
            self._touched.add(refreshed)

    def _arrived(self, found: Sequence[_Found], gone: Sequence[str]) -> None:
        """Record complete files that are not known; the commit is on disk when this returns.

        What is known of those that are ``gone`` is forgotten.
        """
        known = self._journal.known.versions([item.path for item in found])
        # By path: two hints may have come for one, by way of a directory that was renamed.
        unknown = {
            item.path: item
            for item in found
            if (before := known.get(item.path)) is None or not before.same_content(item.version)
        }
        if not unknown:
            self._journal.known.forget(gone)
            return
        info_all(log, "Notified of %s", list(map(printable, unknown)))
        self.last_arrival_ns = now_ns = time.time_ns()
        new: list[NewDelivery] = []
        noted: list[tuple[str, Version]] = []
        concerned: set[str | None] = set()
        for path, item in unknown.items():
            version = item.version
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
        self._journal.record(new, noted, gone)
        self._wake(concerned)
        signals.announce(signals.arrived, new)


def _item(key: Key, path: str, seen: Look) -> _Found:
    assert seen.version is not None
    return _Found(*key, path, seen.version)


def _wanted(watch: Watch, mask: int) -> bool:
    """Whether the watch's own mask lets the hint through; scans and endings always pass."""
    return watch.mask is None or not mask & CONTENT or bool(mask & watch.mask)


def _say_what_would_happen(path: str, final: str | None, task: str | None) -> None:
    if final is not None:
        log.info("Dry run: would move %s to %s", printable(path), printable(final))
    if task is not None:
        log.info("Dry run: would send task %s", task)
