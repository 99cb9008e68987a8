"""Hints from the kernel, through an inotify instance that pyinotify opens.

pyinotify's own recursion, its reading and its dispatch lose events (a new directory is listed
before it is watched, names must be UTF-8, an overflow goes unheard), so none of that is used:
watches are added here, events are parsed here, and an overflow is a reason to scan.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

import pyinotify

from watchman import coverage
from watchman.model import Watch
from watchman.sources.aftermath import Aftermath
from watchman.sources.at_start import Starts
from watchman.sources.kernel import Kernel
from watchman.sources.lanes import Lane
from watchman.sources.nodes import Listing, Node, Reason, Root
from watchman.sources.reader import Reader
from watchman.sources.roots import Roots
from watchman.sources.scout import Scout
from watchman.sources.tree import Tree
from watchman.sources.vanguard import Vanguard
from watchman.sources.watched import Watched
from watchman.text import PATHS

CONTENT = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_CREATE
CLOSE_WRITE = pyinotify.IN_CLOSE_WRITE
CLOSED = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO
"""A writer has finished with the file, or it was complete when it came here."""
GONE = pyinotify.IN_MOVED_FROM | pyinotify.IN_DELETE
ATTRIB = pyinotify.IN_ATTRIB
MODIFY = pyinotify.IN_MODIFY
"""Something was written, or the file was truncated by its path, which no close follows."""
REPLACED = 1 << 17
"""A bit that the kernel's masks do not use: the name had gone before the event."""
CAME = 1 << 18
"""Another one, in place of an event: the directory that holds the name came a moment ago."""
ASKED = 1 << 19
"""A third one: an event before it is one that the watch's own mask asks for."""
_WEAK = ATTRIB | MODIFY
_LEFT = GONE | REPLACED
_SELF = pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF
_ROOT_LOST = _SELF | pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
MASK = CONTENT | GONE | ATTRIB | MODIFY | _SELF | pyinotify.IN_ONLYDIR
_SPECIAL = pyinotify.IN_ISDIR | pyinotify.IN_Q_OVERFLOW | _ROOT_LOST

TAKEN = 1024 * 1024
"""Bytes parsed at a time: hints take several times the memory of the events they come from."""

_RENAMES = 4096
"""First halves of renames that are kept; the second one of most follows at once, or never."""

_EVENT = struct.Struct("iIII")

Hints = dict[tuple[Node, str], int]
"""What to look at, in the order of the events: (directory, name) → mask of the last event, perhaps
with REPLACED; 0 where there was none."""


class Source:
    """Live hints and scans for watches.

    ``ignored(name, above, is_directory)`` leaves out names; ``trouble(path, error)`` is told what
    is wrong with a directory, None if it is fine again, and ``left(path)`` that such a one has
    left. ``starts`` is kept for the next source. Raises SourceError.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        ignored: Callable[[str, str, bool], bool],
        trouble: Callable[[str, OSError | None], None],
        left: Callable[[str], None],
        starts: Starts | None = None,
    ) -> None:
        self._kernel = Kernel()
        self._ignored = ignored
        self._watched = Watched(self._kernel, MASK)
        self._tree = Tree(ignored, self._watched.attach, self._watched.detach, trouble, left)
        self._roots = Roots(watches, self._tree, self._queue, self.find, starts or Starts())
        self._renamed: dict[int, Root] = {}
        """By cookie: the watch of directories that left their name, where that alone has them
        watched under the next one."""
        self._masked = any(watch.mask is not None for watch in watches)
        self._hints: Hints = {}
        # A new directory does not wait for the scan of a million old files.
        self._urgent, self._patient = Lane(self._tree), Lane(self._tree)
        self._aftermath = Aftermath(self._tree, self._watched, self._queue)
        self._roots_changed = False
        self.parsed = 0
        """Bytes of events that have become hints, to be compared with :meth:`mark`."""
        self.certain = False
        """Whether nothing can have changed without a hint; a catch-up makes it so again."""
        self.overflows = 0
        self._heartbeat = -1
        self.beaten = False
        """Set when the file of :meth:`listen` was touched."""
        self._reader = Reader(self._kernel.descriptor, packs=True, patient_with=MODIFY)

    @property
    def roots(self) -> list[Root]:
        """The watches' top directories."""
        return self._roots.all

    def send_scout(self, known: Callable[[str], bool]) -> None:
        """Have a second process go ahead of the first walk; to be called before any thread starts.

        ``known(path)`` says whether anything was ever known in a directory.
        """
        if not any(root.watch.rec and not root.polled for root in self.roots):
            return
        scout = Scout.send(self._kernel, MASK, self._ignored)
        if scout is not None:
            self._tree.vanguard = Vanguard(scout, self._watched, known)

    def _dismiss_scout(self) -> None:
        vanguard, self._tree.vanguard = self._tree.vanguard, None
        if vanguard is not None:
            vanguard.dismiss()

    def start(self, reason: Callable[[Root], Reason]) -> None:
        """Read events from now on; queue the walk that has every directory watched."""
        self._reader.start()
        for root in self.roots:
            root.reason = reason(root)
            self._queue(root, root.reason)

    def add(self, watch: Watch, reason: Reason) -> Root:
        """Take another watch, and queue the walk that has its directories watched."""
        root = self._roots.add(watch)
        root.reason = reason
        self._queue(root, reason)
        return root

    def close(self) -> None:
        """Stop reading and give the inotify instance back."""
        self._reader.stop()
        self._dismiss_scout()
        self._urgent.close()
        self._patient.close()
        self._roots.close()
        self._kernel.close()

    def listen(self, path: str) -> None:
        """Set ``beaten`` whenever the attributes of the file at ``path`` change."""
        self._heartbeat = self._kernel.listen(path, ATTRIB)

    def wake(self) -> None:
        """Make :meth:`wait` return at once."""
        self._reader.wake()

    def rescan(self, root: Root) -> None:
        """Queue a catch-up of one watch."""
        self._queue(root, Reason.CATCH_UP)

    def poll(self, root: Root) -> None:
        """Queue a catch-up of what can change in a watch without an event."""
        self._roots.poll(root)

    def retry_unwatched(self) -> None:
        """Queue a catch-up of the directories that are not watched as they should be."""
        self._roots.retry_unwatched()

    def find(self, path: str) -> Node | None:
        """Return the watched directory at ``path``."""
        for root in self.roots:
            if path == root.watch.path:
                return root
            if path.startswith(root.watch.prefix):
                node: Node | None = root
                for name in path[len(root.watch.prefix) :].split("/"):
                    node = node and node.child(name)
                if node is not None:
                    return node
        return None

    def vanished(self) -> list[str]:
        """Return the directories that left since the last call."""
        paths, self._tree.vanished = self._tree.vanished, []
        return paths

    def _queue(self, node: Node, reason: Reason) -> None:
        urgent = reason in (Reason.NEW, Reason.READABLE)
        (self._urgent if urgent else self._patient).add(node, reason)

    @property
    def scanning(self) -> bool:
        """Whether directories are waiting to be listed."""
        return bool(self._urgent or self._patient)

    @property
    def has_trouble(self) -> bool:
        """Whether there are directories that are not watched, or not as they should be."""
        return bool(self._tree.troubled)

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._watched.nodes)

    def listings(self) -> Iterator[Listing]:
        """Yield what is waiting to be listed; may be left at any time and asked for again."""
        while (listing := self._urgent.next() or self._patient.next()) is not None:
            yield listing
        self._dismiss_scout()

    def mark(self) -> int:
        """Return what ``parsed`` will be when every event so far has become a hint."""
        return self._reader.mark()

    def wait(self, timeout: float | None) -> Hints:
        """Return the next hints, waiting up to ``timeout`` seconds for the first event."""
        self._aftermath.await_events(self._reader.mark)
        for chunk in self._reader.take(timeout, TAKEN):
            self._parse(chunk)
            self.parsed += len(chunk)
        self._aftermath.settle(self.parsed)
        if self._roots_changed:
            self._roots_changed = False
            self.check_roots()
        hints, self._hints = self._hints, {}
        return hints

    def _parse(self, chunk: bytes) -> None:
        unpack = _EVENT.unpack_from
        nodes, hints = self._watched.nodes, self._hints
        masked = self._masked
        offset, end = 0, len(chunk)
        # Most events are of the file that the event before was of: made, written, closed.
        last_wd, last_raw = -1, b""
        key: tuple[Node, str] | None = None
        before: int | None = None
        while offset < end:
            wd, mask, cookie, length = unpack(chunk, offset)
            offset += 16
            raw = chunk[offset : offset + length]
            offset += length
            if mask & _SPECIAL:
                self._special(wd, mask, raw.rstrip(b"\0").decode(*PATHS), cookie)
                last_wd = -1
                continue
            if wd != last_wd or raw != last_raw:
                node = nodes.get(wd)
                if node is None:
                    self._stray(wd)
                    continue
                last_wd, last_raw = wd, raw
                key = (node, raw.rstrip(b"\0").decode(*PATHS))
                before = hints.get(key)
            assert key is not None
            if before is not None:
                # A write or a change of attributes says less than the event before it.
                if mask & _WEAK:
                    if masked and _is_asked_for(key[0].root.watch, mask):
                        hints[key] = before = before | ASKED
                    continue
                if before & _LEFT:
                    mask |= REPLACED
                if masked and not mask & GONE and _is_asked_for(key[0].root.watch, before):
                    mask |= ASKED
            hints[key] = before = mask

    def _special(self, wd: int, mask: int, name: str, cookie: int) -> None:
        if mask & pyinotify.IN_Q_OVERFLOW:
            self.overflows += 1
            self.certain = False
            for root in self.roots:
                self.rescan(root)
            return
        node = self._watched.nodes.get(wd)
        if node is None:
            self._stray(wd)
            return
        if mask & pyinotify.IN_IGNORED:
            # The kernel dropped the watch: deleted, unmounted, or we asked for it.
            self._watched.dropped(wd)
        if mask & _ROOT_LOST and node.parent is None:
            self._roots_changed = True
        elif not name:
            if mask & ATTRIB:
                self._aftermath.altered[node] = None
        elif mask & (pyinotify.IN_CREATE | pyinotify.IN_MOVED_TO | ATTRIB):
            self._appeared(node, name, mask, cookie)
        elif mask & GONE:
            self._disappeared(node, name, mask, cookie)

    def _stray(self, wd: int) -> None:
        """An event came for the heartbeat, or for what a scout has not reported yet."""
        if wd == self._heartbeat:
            self.beaten = True
        else:
            self._watched.doubt(wd)

    def _appeared(self, node: Node, name: str, mask: int, cookie: int) -> None:
        """A directory was made, moved in or given other permissions."""
        child = node.child(name)
        if child is None:
            # Whatever leads here by ATTRIB was unreadable before or is not to be watched.
            followed = self._is_followed(node, name, mask, cookie)
            if not followed or self._tree.excluded(node, node.path, name):
                return
            child = node.add(name)
        elif mask & ATTRIB and child.path not in self._tree.troubled:
            return
        self._aftermath.leaving.pop(child, None)
        self._queue(child, Reason.READABLE if mask & ATTRIB else Reason.NEW)

    def _is_followed(self, node: Node, name: str, mask: int, cookie: int) -> bool:
        """Say whether a directory that an event names is to be watched from now on."""
        watch, at_start = node.root.watch, node.root.at_start
        if not watch.auto_add:
            # Only one that is watched already, and was renamed within the watch.
            return bool(cookie) and self._renamed.pop(cookie, None) is node.root
        if watch.rec:
            return True
        if mask & ATTRIB:
            # What is not listed yet, a walk will find, and tell.
            was_there = not node.listed or at_start.holds(node.path, name)
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
            self._renamed[cookie] = node.root
            if len(self._renamed) > _RENAMES:
                del self._renamed[next(iter(self._renamed))]
        if mask & pyinotify.IN_DELETE:
            # Another directory that takes the name has nothing to do with what was known here.
            self._aftermath.leaving.pop(child, None)
            self._tree.remove(child)
        else:
            self._aftermath.leaving[child] = None

    def check_roots(self) -> None:
        """Walk again every root that is not the directory that was watched."""
        self._roots.check()


def _is_asked_for(watch: Watch, mask: int) -> bool:
    """Say whether the watch's mask asks for an event with ``mask``, or for one before it."""
    return bool(mask & ASKED or (mask & coverage.COMPLETING and coverage.asks_for(watch, mask)))
