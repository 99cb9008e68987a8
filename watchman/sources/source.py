"""Hints from the kernel, through an inotify instance that pyinotify opens.

pyinotify's own recursion, its reading and its dispatch lose events (a new directory is listed
before it is watched, names must be UTF-8, an overflow goes unheard), so none of that is used:
watches are added here, events are parsed here, and an overflow is a reason to scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from watchman import coverage
from watchman.model import Watch
from watchman.sources import instance as ev
from watchman.sources.at_start import Starts
from watchman.sources.base_source import BaseSource
from watchman.sources.listener import UnwatchedListener
from watchman.sources.prescan import KnownDirectories, Prescan, PrescanProcess
from watchman.sources.reader import parse
from watchman.sources.renames import Renames
from watchman.sources.tree import Listing, Node, Reason, Root
from watchman.sources.watch_table import WatchTable
from watchman.text import PATHS

CONTENT = ev.IN_CLOSE_WRITE | ev.IN_MOVED_TO | ev.IN_CREATE
CLOSE_WRITE = ev.IN_CLOSE_WRITE
CLOSED = ev.IN_CLOSE_WRITE | ev.IN_MOVED_TO
"""A writer has finished with the file, or it was complete when it came here."""
DELETE = ev.IN_DELETE
GONE = ev.IN_MOVED_FROM | DELETE
ATTRIB = ev.IN_ATTRIB
MODIFY = ev.IN_MODIFY
"""Something was written, or the file was truncated by its path, which no close follows."""
REPLACED = 1 << 17
"""A bit that the kernel's masks do not use: the name had gone before the event."""
CAME = 1 << 18
"""Another one, in place of an event: the directory that holds the name came a moment ago."""
ASKED = 1 << 19
"""A third one: an event before it is one that the watch's own mask asks for."""
_WEAK = ATTRIB | MODIFY
_LEFT = GONE | REPLACED
_SELF = ev.IN_DELETE_SELF | ev.IN_MOVE_SELF
_ROOT_LOST = _SELF | ev.IN_UNMOUNT | ev.IN_IGNORED
MASK = CONTENT | GONE | ATTRIB | MODIFY | _SELF | ev.IN_ONLYDIR
_SPECIAL = ev.IN_ISDIR | ev.IN_Q_OVERFLOW | _ROOT_LOST

TAKEN = 256 * 1024
"""Bytes parsed at a time: hints take several times the memory of the events they come from."""

_HALVES = 4096
"""First halves of renames that are kept; the second one of most follows at once, or never."""

Hints = dict[tuple[Node, str], int]
"""What to look at, in the order of the events: (directory, name) → mask of the last event, perhaps
with REPLACED; 0 where there was none."""


class Source(BaseSource[Hints]):
    """Hints at files that may have changed, from events and from scans. Raises SourceError."""

    def __init__(
        self,
        watches: Sequence[Watch],
        rules: coverage.Rules,
        listener: UnwatchedListener,
        starts: Starts,
    ) -> None:
        table = WatchTable(ev.Instance(packs=True, patient_with=MODIFY), MASK)
        super().__init__(watches, rules, listener, starts, table)
        self._reader = self._instance.reader
        self._rules = rules
        self._moving: dict[int, Root] = {}
        """Directories that were watched when they left their names, without ``auto_add``: the root
        by the cookie of the rename. Only these are watched under their next names."""
        self._masked = any(watch.mask is not None for watch in watches)
        self._hints: Hints = {}
        self._renames = Renames(self._walker, self._watch_table, self._walks)
        self.parsed = 0
        """Bytes of events that have become hints, to be compared with :meth:`mark`."""
        self.certain = False
        """Whether nothing can have changed without a hint; a catch-up makes it so again."""
        self._heartbeat = -1
        self.beaten = False
        """Set when the file of :meth:`listen` was touched."""

    def add(self, watch: Watch, reason: Reason) -> Root:
        """Take another watch, and queue the walk that has its directories watched."""
        self._masked |= watch.mask is not None
        return super().add(watch, reason)

    def start_prescan(self, known: KnownDirectories) -> None:
        """Have a second process go ahead of the first walk; before there are any threads."""
        if not any(root.watch.rec and not root.polled for root in self.roots):
            return
        process = PrescanProcess.start(self._instance, MASK, self._rules)
        if process is not None:
            self._walker.prescan = Prescan(process, self._watch_table, known)

    def _end_prescan(self) -> None:
        prescan, self._walker.prescan = self._walker.prescan, None
        if prescan is not None:
            prescan.end()

    def close(self) -> None:
        """Stop reading and give the inotify instance back."""
        self._end_prescan()
        super().close()

    def listen(self, path: str) -> None:
        """Set ``beaten`` whenever the attributes of the file at ``path`` change."""
        self._heartbeat = self._instance.listen(path, ATTRIB)

    def vanished(self) -> list[str]:
        """Return the directories that left since the last call."""
        paths, self._walker.vanished = self._walker.vanished, []
        return paths

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._watch_table.nodes)

    def listings(self) -> Iterator[Listing]:
        """Yield what is waiting to be listed; may be left at any time and asked for again."""
        yield from super().listings()
        self._end_prescan()

    def mark(self) -> int:
        """Return what ``parsed`` will be when every event so far has become a hint."""
        return self._reader.mark()

    def wait(self, timeout: float | None) -> Hints:
        """Return the next hints, waiting up to ``timeout`` seconds for the first event."""
        # Mark, take, parse, settle: what walks found gone is settled after its events, not before.
        self._renames.await_events(self._reader.mark)
        for chunk in self._reader.take(timeout, TAKEN):
            self._parse(chunk)
            self.parsed += len(chunk)
        self._renames.settle(self.parsed)
        if self._roots_changed:
            self.check_roots()
        hints, self._hints = self._hints, {}
        return hints

    def _parse(self, chunk: bytes) -> None:
        nodes, hints = self._watch_table.nodes, self._hints
        masked = self._masked
        encoding, errors = PATHS
        # For each event, at up to 100,000 a second: no call that is not needed. Most events are of
        # the file that the event before was of: made, written, closed.
        last_wd, last_raw = -1, b""
        key: tuple[Node, str] | None = None
        before: int | None = None
        for wd, mask, cookie, raw in parse(chunk):
            if mask & _SPECIAL:
                self._special(wd, mask, raw.rstrip(b"\0").decode(encoding, errors), cookie)
                last_wd = -1
                continue
            if wd != last_wd or raw != last_raw:
                node = nodes.get(wd)
                if node is None:
                    self._stray(wd)
                    continue
                last_wd, last_raw = wd, raw
                key = (node, raw.rstrip(b"\0").decode(encoding, errors))
                before = hints.get(key)
            assert key is not None
            if before is not None:
                # A write or a change of attributes says less than the event before it.
                if mask & _WEAK:
                    if masked and _is_asked_for(key[0].root.watch, mask):
                        hints[key] = before = before | ASKED
                    continue
                earlier = REPLACED if before & _LEFT else 0
                if masked and not mask & GONE and _is_asked_for(key[0].root.watch, before):
                    earlier |= ASKED
                hints[key] = before = mask | earlier
                continue
            hints[key] = before = mask

    def _special(self, wd: int, mask: int, name: str, cookie: int) -> None:
        if mask & ev.IN_Q_OVERFLOW:
            self.certain = False
            self._overflowed()
            return
        node = self._watch_table.nodes.get(wd)
        if node is None:
            self._stray(wd)
            return
        if mask & ev.IN_IGNORED:
            # The kernel dropped the watch: deleted, unmounted, or we asked for it.
            self._watch_table.dropped(wd)
        if mask & _ROOT_LOST and node.parent is None:
            self._roots_changed = True
        elif not name:
            if mask & ATTRIB:
                self._renames.attrib_changed[node] = None
        elif mask & (ev.IN_CREATE | ev.IN_MOVED_TO | ATTRIB):
            self._appeared(node, name, mask, cookie)
        elif mask & GONE:
            self._disappeared(node, name, mask, cookie)

    def _stray(self, wd: int) -> None:
        """An event came for the heartbeat, or for what a prescan has not reported yet."""
        if wd == self._heartbeat:
            self.beaten = True
        else:
            self._watch_table.doubt(wd)

    def _appeared(self, node: Node, name: str, mask: int, cookie: int) -> None:
        """A directory was made, moved in or given other permissions."""
        child = node.child(name)
        if child is None:
            # Whatever leads here by ATTRIB was unreadable before or is not to be watched.
            followed = self._is_followed(node, name, mask, cookie)
            if not followed or self._walker.excluded(node, node.path, name):
                return
            child = node.add(name)
        elif mask & ATTRIB and child.path not in self._walker.troubled:
            return
        self._renames.moved_from.pop(child, None)
        self._walks.add(child, Reason.READABLE if mask & ATTRIB else Reason.NEW)

    def _is_followed(self, node: Node, name: str, mask: int, cookie: int) -> bool:
        """Say whether a directory that an event names is to be watched from now on."""
        watch, at_start = node.root.watch, node.root.at_start
        if not watch.auto_add:
            # Only one that is watched already, and was renamed within the watch.
            return bool(cookie) and self._moving.pop(cookie, None) is node.root
        if mask & ATTRIB and not node.listed:
            # A walk is about to find it, and tells what is old in a first run.
            return False
        if watch.rec:
            return True
        if mask & ATTRIB:
            was_there = at_start.holds(node.path, name)
        else:
            was_there = at_start.came(node.path, name, cookie)
        return coverage.is_followed(watch, at_start=was_there)

    def _disappeared(self, node: Node, name: str, mask: int, cookie: int) -> None:
        if not node.root.watch.rec:
            node.root.at_start.left(node.path, name, cookie)
        child = node.child(name)
        if child is None:
            return
        if cookie and not node.root.watch.auto_add:
            self._moving[cookie] = node.root
            if len(self._moving) > _HALVES:
                del self._moving[next(iter(self._moving))]
        if mask & ev.IN_DELETE:
            # Another directory that takes the name has nothing to do with what was known here.
            self._renames.moved_from.pop(child, None)
            self._walker.remove(child)
        else:
            self._renames.moved_from[child] = None


def _is_asked_for(watch: Watch, mask: int) -> bool:
    """Say whether the watch's mask asks for an event with ``mask``, or for one before it."""
    return bool(mask & ASKED) or coverage.asks_for(watch, mask)
