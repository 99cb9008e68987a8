"""From hints to recorded deliveries: look, is it complete, is it known, where to, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from watchman import coverage, signals
from watchman.arrivals import UNTESTED_SETTLE, Arrivals
from watchman.descriptors import Descriptors
from watchman.filesystem import PATH_MAX, Look, Seen, is_too_long
from watchman.identity import Evidence, Verdict, compare, is_same_content
from watchman.journal import Journal, NewDelivery
from watchman.log_batch import info_all
from watchman.model import Noted, Version, Watch
from watchman.notify.doubts import Doubts, Key
from watchman.notify.looking import descriptor_of, look_at
from watchman.notify.remarks import LONG, Remarks
from watchman.notify.task_id import TaskIds, task_id
from watchman.router import Router
from watchman.sources.inotify import (
    ASKED,
    ATTRIB,
    CAME,
    CLOSE_WRITE,
    CLOSED,
    CONTENT,
    GONE,
    MODIFY,
    REPLACED,
    Hints,
    Source,
)
from watchman.sources.nodes import Node, Root
from watchman.text import printable
from watchman.turns import turn

log = logging.getLogger("watchman.notify")

SLICE = 1000
"""Hints handled, recorded and committed at a time."""

_BEYOND_DOUBT = 1 << 16
"""A bit that the kernel's masks do not use: no event that is still unread can tell more."""
# For each file; Python 3.11 looks for an enum's member as long as 50 ns.
_COMPLETE, _WRITTEN = Seen.COMPLETE, Evidence.WRITTEN
_ARRIVED = (CLOSE_WRITE, coverage.MOVED_TO)
"""What most files arrive by."""
_SHORT = PATH_MAX // 4
"""Characters of a path that is not too long, whatever they are."""

LEFT = 30.0
"""Seconds for which a directory that left may come back as it was, and its files are known."""


class _Found(NamedTuple):
    """A complete file, known or not."""

    node: Node
    name: str
    path: str
    version: Version
    evidence: Evidence


class _Sorted(NamedTuple):
    """What became of a slice of hints."""

    found: list[_Found]
    passed: dict[Key, tuple[str, Version]]
    early: dict[Key, _Found]
    touched: dict[Key, _Found]
    gone: list[str]
    unreachable: set[Root]
    """Of files that are not gone, as their directories could not be reached."""


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
        self._passed: Doubts[tuple[str, Version]] = Doubts(source)
        """Complete files that came as the watch's mask leaves out, unless another event follows."""
        self._asked_for: dict[Key, bool] = {}
        """For watches with a mask: whether it asks for one of the events that named the file."""
        self._only_touched: set[Key] = set()
        """Of the files that settle, those of which nothing but an attribute is known to differ."""
        self._evidence: dict[Key, Evidence] = {}
        """What events have proven of files that are not judged yet."""
        self._left: dict[str, float] = {}
        """Directories that left, and when what is known in them is to be forgotten."""
        self._forgetting: list[str] = []
        """Directories that did not come back, in which something is known."""
        self._task_ids = TaskIds()
        self.remarks = Remarks()
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
        self._passed.sort_out(hints)
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
        for passed in self._passed.settled():
            self._pass_by(passed.values())

    def forget_vanished(self) -> None:
        """Forget what was in directories that left, unless they come back soon.

        One that is renamed there and back holds what was announced, with the same ctimes; what is
        made anew under its name has others.
        """
        now = time.monotonic()
        vanished = self._source.vanished()
        if vanished:
            self._left |= dict.fromkeys(vanished, now + LEFT)
            for key in [key for key in self._evidence if key[0].is_left]:
                del self._evidence[key]
            for key in [key for key in self._asked_for if key[0].is_left]:
                del self._asked_for[key]
        if self._left and next(iter(self._left.values())) <= now:
            self._give_up_left(now)
        if self._forgetting:
            self._forget_some()

    def look_for_long_open(self, now: float) -> None:
        """Say which files have been open for writing for long."""
        found: dict[Root, list[str]] = {root: [] for root in self._source.roots}
        for node, name in self._arrivals.open_since(now - LONG):
            found[node.root].append(f"{node.path.rstrip('/')}/{name}")
        for root, paths in found.items():
            self.remarks.long_open(root.watch, paths)

    def close(self) -> None:
        """Forget what is not there; nothing may be handled afterwards."""
        self.forget_vanished()
        self._give_up_left(float("inf"))
        while self._forgetting:
            self._forget_some()

    def _give_up_left(self, now: float) -> None:
        due = [path for path, time in self._left.items() if time <= now]
        for path in due:
            del self._left[path]
        self._forgetting += due

    def _forget_some(self) -> None:
        # What is there again is listed, and held against what is known, like any directory.
        gone = [path for path in self._forgetting if self._source.find(path) is None]
        self._forgetting = self._journal.known.forget_below(*gone)

    def is_complete(self, key: Key, seen: Look, path: str, mask: int = 0) -> bool:
        """Judge a file; one that is not complete yet is looked at again later."""
        root = key[0].root
        settle = root.watch.settle
        if settle is None and (root.polled or root.remote) and root.is_polled(path):
            # What another host writes, neither events nor leases on this one can see.
            settle = UNTESTED_SETTLE
        elif seen.seen is Seen.UNTESTED and not root.is_polled(path):
            self.remarks.untested(root.watch)
        closed = bool(mask & CLOSED)
        return self._arrivals.complete(
            key, seen, time.monotonic(), time.time_ns(), closed=closed, settle=settle
        )

    def _handle_slice(
        self, items: Sequence[tuple[Key, int]], directories: Descriptors[Node]
    ) -> None:
        ignored = self._router.ignored
        nodes: dict[Node, tuple[str, bool]] = {}
        into = _Sorted([], {}, {}, {}, [], set())
        with turn():
            for key, mask in items:
                node, name = key
                known = nodes.get(node)
                if known is None:
                    prefix = node.path.rstrip("/") + "/"
                    known = nodes[node] = prefix, _is_ordinary(node.root)
                path = known[0] + name
                if ignored(name, path):
                    continue
                watch = node.root.watch
                if watch.mask is not None and not self._is_looked_at(key, watch, mask):
                    continue
                if mask == MODIFY or (len(path) > _SHORT and is_too_long(path)):
                    self._look_later(key, mask, path)
                    continue
                directory = directories.get(node)
                seen = look_at(name, directory, mask)
                if (
                    seen.seen is _COMPLETE
                    and mask in _ARRIVED
                    and known[1]
                    and not (
                        key in self._arrivals or key in self._evidence or key in self._only_touched
                    )
                ):
                    # Most arrivals: this is what _judge would come to, at a third of the price.
                    into.found.append(_item(key, path, seen, _WRITTEN))
                    continue
                if seen.seen is not Seen.GONE:
                    self._judge(key, mask, seen, path, into)
                    continue
                self._arrivals.forget(key)
                self._evidence.pop(key, None)
                self._asked_for.pop(key, None)
                # In a directory that left it may come back.
                into.gone.extend([path] if directory >= 0 else ())
                into.unreachable.update(() if directory >= 0 else (node.root,))
        for root in into.unreachable:
            root.note_miss()
        if into.early:
            self._sort_early(into)
        if into.touched:
            self._sort_touched(into)
        if into.passed:
            self._passed.add(into.passed)
        if into.found or into.gone:
            self._arrived(into.found, into.gone)

    def _sort_early(self, into: _Sorted) -> None:
        """Sort complete files of which no event has said so: an event may be unread, or not."""
        if self._source.mark() <= self._source.parsed:
            into.found.extend(into.early.values())
            return
        for key, item in into.early.items():
            self._keep(key, item.evidence)
        self._early.add(dict.fromkeys(into.early))

    def _is_looked_at(self, key: Key, watch: Watch, mask: int) -> bool:
        """Ask the watch's own mask about a hint, and remember its answer until the file is judged.

        What no event has named may have come in any way; the mask leaves out only what it is seen
        to leave out. That is looked at all the same, so that no scan takes it for new.
        """
        if coverage.asks_for_nothing(watch):
            return False
        if mask & ASKED or (mask & coverage.COMPLETING and coverage.asks_for(watch, mask)):
            self._asked_for[key] = True
        elif mask & coverage.COMPLETING:
            self._asked_for.setdefault(key, False)
        return True

    def _pass_by(self, left_out: Iterable[tuple[str, Version]]) -> None:
        """Make known what came as the mask leaves out; a delivery under way follows its file."""
        versions = dict(left_out)
        known = self._journal.known.versions(versions)
        follow = [(path, version) for path, version in versions.items() if path in known]
        if follow:
            self._journal.known.refresh(follow)
        new = [(path, version) for path, version in versions.items() if path not in known]
        if new:
            self._journal.record((), new)

    def _look_later(self, key: Key, mask: int, path: str) -> None:
        """Look after a write in a while: if the path was truncated no close follows."""
        root = key[0].root
        if mask != MODIFY:
            self.remarks.too_long(root.watch, path)
        else:
            self._arrivals.postpone(key, time.monotonic())
            self._keep(key, Evidence.WRITTEN)

    def _keep(self, key: Key, evidence: Evidence) -> None:
        """Remember what is proven until the file is judged."""
        if evidence > self._evidence.get(key, Evidence.SCAN):
            self._evidence[key] = evidence

    def _judge(self, key: Key, mask: int, seen: Look, path: str, into: _Sorted) -> None:
        if mask & ATTRIB and not mask & (CONTENT | _BEYOND_DOUBT):
            # Of a file that was written to as well there is more to find out.
            if key not in self._evidence and self._is_only_touched(key, seen, path):
                into.touched[key] = _item(key, path, seen, Evidence.ATTRIB)
            return
        if mask & GONE:
            # Another one is there since: an event of its own follows, and proves a new arrival.
            if not key[0].is_left:
                self._keep(key, Evidence.REPLACED)
                self._asked_for.pop(key, None)
            return
        evidence = _evidence_of(mask)
        if self._evidence:
            evidence = max(evidence, self._evidence.pop(key, evidence))
        only_touched = self._only_touched and key in self._only_touched
        if only_touched and mask & CONTENT:
            self._only_touched.discard(key)
            only_touched = False
        if not self.is_complete(key, seen, path, mask):
            if key in self._arrivals:
                self._keep(key, evidence)
            return
        item = _item(key, path, seen, evidence)
        if not self._asked_for.get(key, True):
            self._leave_out(key, seen, item, into)
        elif mask & (CLOSED | _BEYOND_DOUBT):
            into.found.append(item)
        elif only_touched or (evidence is Evidence.SCAN and key in self._touched):
            self._only_touched.discard(key)
            into.touched[key] = item
        else:
            into.early[key] = item

    def _leave_out(self, key: Key, seen: Look, item: _Found, into: _Sorted) -> None:
        """Have a complete file made known that came as the watch's mask leaves out."""
        del self._asked_for[key]
        # Without the lease test a writer may still be there, whose close is asked for.
        if seen.seen is Seen.COMPLETE or not (key[0].root.watch.mask or 0) & CLOSE_WRITE:
            into.passed[key] = (item.path, item.version)

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
            if before is None:
                continue
            verdict = compare(before, item.version, Evidence.ATTRIB)
            if verdict is Verdict.SAME:
                continue
            # After an overflow the write may have gone unheard: then only the content tells.
            certain = self._source.certain or is_same_content(before, item.version)
            if verdict is Verdict.TOUCHED and certain:
                refreshed[key] = (item.path, item.version)
            else:
                into.found.append(item._replace(evidence=Evidence.SCAN))
        if refreshed:
            self._touched.add(refreshed)

    def _arrived(self, found: Sequence[_Found], gone: Sequence[str]) -> None:
        """Record complete files that are not known; the commit is on disk when this returns.

        What is known of those that are ``gone`` is forgotten.
        """
        if self._asked_for:
            for item in found:
                self._asked_for.pop((item.node, item.name), None)
        known = self._journal.known.versions([item.path for item in found])
        # By path: two hints may have come for one, by way of a directory that was renamed.
        unknown: dict[str, _Found] = {}
        touched: dict[Key, tuple[str, Version]] = {}
        for item in found:
            path = item.path
            before = known.get(path)
            if before is None:
                unknown[path] = item
                continue
            verdict = compare(before, item.version, item.evidence)
            if verdict is Verdict.NEW:
                unknown[path] = item
            elif verdict is Verdict.TOUCHED:
                # Not at once: the event that proves a write may still be unread.
                touched[item.node, item.name] = (path, item.version)
        if touched:
            self._touched.add(touched)
        if unknown:
            self._record(unknown, gone)
        else:
            self._journal.known.forget(gone)

    def _record(self, unknown: Mapping[str, _Found], gone: Sequence[str]) -> None:
        info_all(log, "Notified of %s", list(map(printable, unknown)))
        self.last_arrival_ns = now_ns = time.time_ns()
        new: list[NewDelivery] = []
        noted: list[tuple[str, Version, Noted]] = []
        unasked: dict[Root, list[str]] = {}
        concerned: set[str | None] = set()
        route_of, destination_of = self._router.route, self._router.destination
        is_dry_run, choose = self._router.is_dry_run, self._task_ids.choose
        for path, item in unknown.items():
            version = item.version
            route, final = route_of(path), destination_of(path)
            if is_dry_run(path):
                say_what_would_happen(path, final, route and route.task)
                noted.append((path, version, Noted.DRY_RUN))
            elif route is None and final is None:
                noted.append((path, version, Noted.UNASKED))
                unasked.setdefault(item.node.root, []).append(path)
            else:
                number, unless = choose(path, version, item.evidence, now_ns)
                new.append(
                    NewDelivery(number, path, final, version, now_ns, route, "files", unless)
                )
                concerned.add(route.broker if route is not None and final is None else None)
        for root, paths in unasked.items():
            self.remarks.unasked(root.watch, paths)
        doubled = self._journal.record(new, noted, gone)
        if doubled:
            new = [one for one in new if one not in doubled] + self._record_again(doubled, now_ns)
        self._wake(concerned)
        signals.announce(signals.arrived, new)

    def _record_again(self, doubled: Sequence[NewDelivery], now_ns: int) -> list[NewDelivery]:
        """Record those that an event proves to be other arrivals than what is under way."""
        others = [
            one._replace(task_id=task_id(one.source, one.version, now_ns))
            for one in doubled
            if not one.unless
        ]
        self._journal.record(others)
        return others


def _is_ordinary(root: Root) -> bool:
    """Say whether one event is enough to tell that a file in a watch is complete."""
    watch = root.watch
    return watch.mask is None and watch.settle is None and not (root.polled or root.remote)


def _evidence_of(mask: int) -> Evidence:
    if mask & REPLACED:
        return Evidence.REPLACED
    if mask & CONTENT:
        return Evidence.WRITTEN
    return Evidence.CAME if mask & CAME else Evidence.SCAN


def _item(key: Key, path: str, seen: Look, evidence: Evidence) -> _Found:
    assert seen.version is not None
    return _Found(*key, path, seen.version, evidence)


def say_what_would_happen(
    path: str, final: str | None, task: str | None, level: int = logging.INFO
) -> None:
    """Log what an ordinary run would do with an arrival."""
    if final is not None:
        log.log(level, "Dry run: would move %s to %s", printable(path), printable(final))
    if task is None:
        log.log(level, "Dry run: would send no task for %s: no pattern matches", printable(path))
    else:
        log.log(level, "Dry run: would send task %s", task)
