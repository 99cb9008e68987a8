"""From hints to recorded deliveries: look, is it complete, is it known, where to, record.

A hint is a directory, a name in it, and the mask of the events that named it (0 where none did).
Hints are handled in slices; each slice is looked at, judged, and recorded with one commit:

- **found**: complete, and an event has said so. Recorded, unless its version is known.
- **early**: complete, but no event has said so. The one that may still be unread would show a newer
  version where the times are changed after closing, and double the task: it waits for that.
- **touched**: times, mode, owner or links changed. A write, whose own event may still be unread,
  may be behind it: it waits for that, and then its new version is known.
- **passed**: complete, but the events that named it are none that the watch's mask asks for. It is
  made known, unless an event that is still unread is one.

What is not complete waits in completeness.py, what may have unread events in pending_events.py.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from watchman import coverage, file_access
from watchman.completeness import UNTESTED_SETTLE, IncompleteFiles
from watchman.directory_cache import DirectoryCache
from watchman.file_access import PATH_MAX, Look, Seen, is_too_long, look
from watchman.identity import Comparison, Evidence, compare, is_same_content
from watchman.journal import Journal
from watchman.model import Move, Version, Watch, record_of
from watchman.pipeline.found import Found
from watchman.pipeline.left_directories import LeftDirectories
from watchman.pipeline.notes import Notes
from watchman.pipeline.pending_events import CONFIRMED, EarlyFiles, Key, PendingEvents
from watchman.pipeline.recording import Recorder
from watchman.pipeline.unseen import Unseen
from watchman.router import Router
from watchman.soft_lock import soft_lock
from watchman.sources.source import (
    ASKED,
    ATTRIB,
    CAME,
    CLOSE_WRITE,
    CLOSED,
    CONTENT,
    DELETE,
    GONE,
    MODIFY,
    REPLACED,
    Hints,
    Source,
)
from watchman.sources.tree import Node, Root, descriptor_of, why_unreachable
from watchman.troubles import Troubles

if TYPE_CHECKING:  # loaded where something is asked of files
    from watchman.pipeline.partial_files import PartialFiles

log = logging.getLogger("watchman.notify")

SLICE = 1000
"""Hints handled, recorded and committed at a time."""

# For each file; Python 3.11 looks for an enum's member as long as 50 ns.
_COMPLETE, _GONE, _WRITTEN = Seen.COMPLETE, Seen.GONE, Evidence.WRITTEN
_ARRIVED = (CLOSE_WRITE, coverage.MOVED_TO)
"""What most files arrive by."""
_SHORT = PATH_MAX // 4
"""Characters of a path that is not too long, whatever they are."""


class _Sorted(NamedTuple):
    """What a slice of hints is sorted into; see the module."""

    found: list[Found]
    passed: dict[Key, tuple[str, Version]]
    early: dict[Key, Found]
    touched: dict[Key, Found]
    gone: list[str]
    """Paths at which there is no file any more."""
    unreachable: set[Root]
    """Watches with files that are not gone: their directories could not be reached."""


class Files:
    """Handles hints in the pipeline's thread.

    ``wake`` is told after each commit whom it concerns: brokers by name, and MOVES entries.
    ``partial`` keeps what does not meet its criteria; None where nothing is asked of any file.
    ``quarantine`` is where incomplete files are moved.
    """

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: Source,
        wake: Callable[[Iterable[str | Move]], None],
        troubles: Troubles,
        partial: PartialFiles | None,
        quarantine: str,
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self.incomplete: IncompleteFiles[Key] = IncompleteFiles()
        self._touched: PendingEvents[tuple[str, Version]] = PendingEvents(source)
        """Known files, as it seems: path and new version."""
        self._early = EarlyFiles(source)
        self._passed: PendingEvents[tuple[str, Version]] = PendingEvents(source)
        self._asked_for: dict[Key, bool] = {}
        """For watches with a mask: whether it asks for one of the events that named the file."""
        self._only_touched: set[Key] = set()
        """Of the files that are not complete yet, those that are touched and no more so far."""
        self._evidence: dict[Key, Evidence] = {}
        """What events have proven of files that wait, until they are judged."""
        self._left = LeftDirectories(journal, source)
        self._partial = partial
        self.notes = Notes(only_of_arrivals=router.only_tells)
        self.unseen = Unseen(troubles, source, "files")  # incomplete ones, so looked at again
        self._recorder = Recorder(journal, router, wake, self.notes, partial, quarantine)

    @property
    def last_arrival_ns(self) -> int:
        """When a file was recorded last; 0 for never."""
        return self._recorder.last_arrival_ns

    def next_due(self) -> float | None:
        """When, by the monotonic clock, there is something to look at again."""
        due = self.incomplete.next_due()
        over = self._partial.next_due() if self._partial is not None else None
        return min((time for time in (due, over) if time is not None), default=None)

    def is_waited_for(self, path: str) -> bool:
        """Say whether a file was found partial by the process before this one."""
        return self._partial is not None and self._partial.is_remembered(path)

    def end_scan(self) -> None:
        """Everything that is there has been found."""
        self.notes.end_scan()
        if self._partial is not None:
            self._partial.forget_missing(self.incomplete, self._early)

    def look_at_due(self, now: float) -> None:
        """Look again at the files whose time has come, and at what was found out about them."""
        due = self.incomplete.due(now, SLICE)
        if due:
            self.handle(dict.fromkeys(due, 0))
        self._look_at_partial()

    def look_again(self, paths: Iterable[str]) -> None:
        """Look at files that are not what was recorded, as far as their directories are watched."""
        split = [(self._source.find(os.path.dirname(path)), path) for path in paths]
        self.handle({(node, os.path.basename(path)): 0 for node, path in split if node})

    def handle(self, hints: Hints) -> None:
        """Handle hints in slices, each with a commit of its own."""
        self.forget_vanished()
        # Before anything is judged: what an event of these tells more about is not settled.
        self._touched.sort_out(hints)
        self._early.sort_out(hints)
        self._passed.sort_out(hints)
        self._early.confirm(hints)
        items = list(hints.items())
        with DirectoryCache(descriptor_of) as directories:
            for start in range(0, len(items), SLICE):
                directories.renew()
                self._handle_slice(items[start : start + SLICE], directories)
        # With what was added just now, where no event is unread.
        for touched in self._touched.settled():
            self._journal.known.refresh(touched.values())
        for passed in self._passed.settled():
            self._make_known(passed.values())

    def forget_vanished(self) -> None:
        """Forget what was in directories that left, and do not come back soon."""
        if self._left.step():
            for key in [key for key in self._evidence if key[0].is_left]:
                del self._evidence[key]
            for key in [key for key in self._asked_for if key[0].is_left]:
                del self._asked_for[key]
            if self._partial is not None:
                self._partial.forget_left()

    def close(self) -> None:
        """Forget what is not there; nothing may be handled afterwards."""
        self.forget_vanished()
        self._left.close()

    def is_complete(self, key: Key, seen: Look, path: str, mask: int = 0) -> bool:
        """Judge a file; one that is not complete yet is looked at again later."""
        root = key[0].root
        settle = root.watch.settle
        if settle is None and (root.polled or root.remote) and root.is_polled(path):
            # What another host writes, neither events nor leases on this one can see.
            settle = UNTESTED_SETTLE
        elif seen.seen is Seen.UNTESTED and not root.is_polled(path):
            self.notes.untested(root.watch)
        if seen.error or self.unseen:
            self.unseen.note(key, seen.error)
        closed = bool(mask & CLOSED)
        return self.incomplete.complete(
            key, seen, time.monotonic(), time.time_ns(), closed=closed, settle=settle
        )

    def _handle_slice(
        self, items: Sequence[tuple[Key, int]], directories: DirectoryCache[Node]
    ) -> None:
        ignored = self._router.ignored
        nodes: dict[Node, tuple[str, bool]] = {}
        into = _Sorted([], {}, {}, {}, [], set())
        with soft_lock():
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
                    self._skip(key, mask, path)
                    continue
                directory = directories.get(node)
                seen = _look_at(name, directory, mask)
                if (
                    seen.seen is _COMPLETE
                    and mask in _ARRIVED
                    and known[1]
                    and not self._is_waiting(key)
                ):
                    # Most arrivals: this is what _judge would come to, at a third of the price.
                    into.found.append(_item(key, path, seen, _WRITTEN))
                elif seen.seen is not _GONE:
                    self._judge(key, mask, seen, path, into)
                else:
                    self._forget(key)
                    if directory >= 0:
                        into.gone.append(path)
                    else:
                        # In a directory that left it may come back.
                        into.unreachable.add(node.root)
        self._finish_slice(into)

    def _is_waiting(self, key: Key) -> bool:
        """Say whether a file waits, or something is remembered of it until it is judged."""
        incomplete, evidence, touched = self.incomplete, self._evidence, self._only_touched
        return bool(incomplete or evidence or touched) and (
            key in incomplete or key in evidence or key in touched
        )

    def _forget(self, key: Key) -> None:
        """Wait no longer for a file that is gone."""
        if self.incomplete:
            self.incomplete.forget(key)
            self._only_touched.discard(key)
        if self._evidence:
            self._evidence.pop(key, None)
        if self._asked_for:
            self._asked_for.pop(key, None)
        if self.unseen:
            self.unseen.note(key)
        if self._partial is not None:
            self._partial.forget(key)

    def _finish_slice(self, into: _Sorted) -> None:
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
            self._remember(key, item.evidence)
        self._early.add({key: item.version for key, item in into.early.items()})

    def _is_looked_at(self, key: Key, watch: Watch, mask: int) -> bool:
        """Ask the watch's own mask about a hint, and remember its answer until the file is judged.

        What no event has named may have come in any way; the mask leaves out only what it is seen
        to leave out. That is looked at all the same, so that no scan takes it for new.
        """
        if coverage.asks_for_nothing(watch):
            return False
        if mask & ASKED or coverage.asks_for(watch, mask):
            self._asked_for[key] = True
        elif mask & coverage.COMPLETING:
            self._asked_for.setdefault(key, False)
        return True

    def _make_known(self, left_out: Iterable[tuple[str, Version]]) -> None:
        """Make known what was passed; a delivery of an earlier version under way takes it over."""
        versions = dict(left_out)
        known = self._journal.known.versions(versions)
        follow = [(path, version) for path, version in versions.items() if path in known]
        if follow:
            self._journal.known.refresh(follow)
        new = [(path, version) for path, version in versions.items() if path not in known]
        self._journal.record((), new)

    def _skip(self, key: Key, mask: int, path: str) -> None:
        """Look at nothing now, but after a write in a while: no close follows ``truncate(2)``."""
        root = key[0].root
        if mask != MODIFY:
            self.notes.too_long(root.watch, path)
        else:
            self.incomplete.postpone(key, time.monotonic())
            self._remember(key, Evidence.WRITTEN)

    def _remember(self, key: Key, evidence: Evidence) -> None:
        """Remember what is proven until the file is judged: the most that any event proved."""
        if evidence > self._evidence.get(key, Evidence.SCAN):
            self._evidence[key] = evidence

    def _judge(self, key: Key, mask: int, seen: Look, path: str, into: _Sorted) -> None:
        """Sort a file that is there, by its events and by what is remembered of it."""
        if mask & ATTRIB and not mask & (CONTENT | CONFIRMED):
            self._judge_attributes(key, seen, path, into)
            return
        evidence = _evidence_of(mask)
        if self._evidence:
            evidence = max(evidence, self._evidence.pop(key, evidence))
        if mask & CONTENT:
            self._only_touched.discard(key)
        only_touched = key in self._only_touched
        settled = key not in self.incomplete and self._early.is_confirmed(key, seen)
        if not (settled or self.is_complete(key, seen, path, mask)):
            if key in self.incomplete:
                self._remember(key, evidence)
            elif self._partial is not None:
                self._partial.forget(key)  # what has its name now is no file
            return
        item = _item(key, path, seen, evidence)
        if not self._asked_for.get(key, True):
            self._leave_out(key, seen, item, into)
        elif mask & (CLOSED | CONFIRMED):
            into.found.append(item)
        elif only_touched or (evidence is Evidence.SCAN and key in self._touched):
            self._only_touched.discard(key)
            into.touched[key] = item
        else:
            into.early[key] = item

    def _judge_attributes(self, key: Key, seen: Look, path: str, into: _Sorted) -> None:
        if self._partial is not None:
            self._partial.companion_came(key)  # its age may be what was wrong with it
        # Of a file that was written to as well there is more to find out.
        if key not in self._evidence and self._is_only_touched(key, seen, path):
            into.touched[key] = _item(key, path, seen, Evidence.ATTRIB)

    def _leave_out(self, key: Key, seen: Look, item: Found, into: _Sorted) -> None:
        """Have a complete file made known that came as the watch's mask leaves out."""
        del self._asked_for[key]
        # Without the lease test a writer may still be there, whose close is asked for.
        if seen.seen is Seen.COMPLETE or not (key[0].root.watch.mask or 0) & CLOSE_WRITE:
            into.passed[key] = (item.path, item.version)

    def _is_only_touched(self, key: Key, seen: Look, path: str) -> bool:
        """Judge a file of which an attribute changed.

        While somebody writes, or may be writing, the write's own hint will follow.
        """
        if seen.seen is not Seen.UNTESTED or key in self.incomplete:
            return seen.seen is Seen.COMPLETE
        # Nothing is to be noted of one that is not known: a scan, say, is about to find it.
        if not self._journal.known.versions([path]) or self.is_complete(key, seen, path):
            return True
        self._only_touched.add(key)
        return False

    def _sort_touched(self, into: _Sorted) -> None:
        """Sort attribute changes: nothing new, other times, or another content."""
        known = self._journal.known.versions(item.path for item in into.touched.values())
        refreshed: dict[Key, tuple[str, Version]] = {}
        for key, item in into.touched.items():
            before = known.get(item.path)
            if before is None:
                continue
            verdict = compare(before, item.version, Evidence.ATTRIB)
            if verdict is Comparison.SAME:
                continue
            # After an overflow the write may have gone unheard: then only the content tells.
            certain = self._source.certain or is_same_content(before, item.version)
            if verdict is Comparison.TOUCHED and certain:
                refreshed[key] = (item.path, item.version)
            else:
                into.found.append(item._replace(evidence=Evidence.SCAN))
        if refreshed:
            self._touched.add(refreshed)

    def _arrived(self, found: Sequence[Found], gone: Sequence[str]) -> None:
        """Record complete files that are not known; the commit is on disk when this returns.

        What is known of those that are ``gone`` is forgotten.
        """
        if self._asked_for:
            for item in found:
                self._asked_for.pop((item.node, item.name), None)
        known = self._journal.known.versions([item.path for item in found])
        if gone:
            # Most have been moved, and the mover has forgotten them: nobody waits for a write.
            gone = [*self._journal.known.versions(gone)]
        # By path: two hints may have come for one, by way of a directory that was renamed.
        unknown: dict[str, Found] = {}
        touched: dict[Key, tuple[str, Version]] = {}
        for item in found:
            path, before = item.path, known.get(item.path)
            if before is None:
                unknown[path] = item
                continue
            verdict = compare(before, item.version, item.evidence)
            if verdict is Comparison.NEW:
                unknown[path] = item
                continue
            if self._partial is not None:
                # Somebody had it open, who has written nothing.
                self._partial.companion_came((item.node, item.name))
            if verdict is Comparison.TOUCHED:
                # Not refreshed at once: the event that proves a write may still be unread.
                touched[item.node, item.name] = (path, item.version)
        if touched:
            self._touched.add(touched)
        if unknown:
            self._recorder.record(unknown, gone, known)
        else:
            self._journal.known.forget(gone)

    # What has criteria

    def _look_at_partial(self) -> None:
        """Record what turned out to be whole, and what has not been so in time."""
        partial = self._partial
        if not partial:
            return
        with DirectoryCache(descriptor_of) as directories, soft_lock():
            judged = partial.step(directories, time.monotonic())
        if judged.whole:
            self._arrived(judged.whole, ())
            partial.discard(judged.whole)
        if judged.incomplete:
            self._recorder.record_incomplete(judged.incomplete)
        for found in judged.changed:
            self._remember((found.node, found.name), found.evidence)
        if judged.changed:
            self.handle({(found.node, found.name): 0 for found in judged.changed})
        for root, count, path, reason in partial.partial.take_changed():
            self.notes.partial(root.watch, count, path, reason)


def _look_at(name: str, descriptor: int, mask: int) -> Look:
    """Look at a name in what :func:`descriptor_of` returned, after an event with ``mask``."""
    if descriptor >= 0:
        if mask & DELETE:
            return file_access.GONE  # whatever has the name by now has an event of its own
        seen = look(name, descriptor, closed=bool(mask & CLOSE_WRITE))
        # Of two that are exchanged (renameat2(2)), the second leaves after the first has come to
        # its place: no event follows.
        return file_access.GONE if mask & GONE and seen.seen is Seen.OTHER else seen
    code = why_unreachable(descriptor)
    return file_access.cannot_tell(code) if code else file_access.GONE


def _is_ordinary(root: Root) -> bool:
    """Say whether one event is enough to tell that a file in a watch is complete."""
    watch = root.watch
    return watch.mask is None and watch.settle is None and not (root.polled or root.remote)


def _evidence_of(mask: int) -> Evidence:
    if mask & (REPLACED | DELETE):
        return Evidence.REPLACED
    if mask & (CONTENT | GONE):
        return Evidence.WRITTEN
    return Evidence.CAME if mask & CAME else Evidence.SCAN


def _item(key: Key, path: str, seen: Look, evidence: Evidence) -> Found:
    assert seen.version is not None
    found: Found = record_of(Found, (*key, path, seen.version, evidence))
    return found
