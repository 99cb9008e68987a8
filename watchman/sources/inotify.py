"""Hints from the kernel, through an inotify instance that pyinotify opens.

pyinotify's own recursion, its reading and its dispatch lose events (a new directory is listed
before it is watched, names must be UTF-8, an overflow goes unheard), so none of that is used:
watches are added here, events are parsed here, and an overflow is a reason to scan.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Generator, Iterator, Sequence

import pyinotify

from watchman.errors import SourceError
from watchman.model import Watch
from watchman.sources.reader import Reader
from watchman.sources.tree import Listing, Node, Reason, Root, Tree

CONTENT = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_CREATE
CLOSED = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO
"""A writer has finished with the file, or it was complete when it came here."""
GONE = pyinotify.IN_MOVED_FROM | pyinotify.IN_DELETE
ATTRIB = pyinotify.IN_ATTRIB
_SELF = pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF
_ROOT_LOST = _SELF | pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
MASK = CONTENT | GONE | ATTRIB | _SELF | pyinotify.IN_ONLYDIR
_SPECIAL = pyinotify.IN_ISDIR | pyinotify.IN_Q_OVERFLOW | _ROOT_LOST

_EVENT = struct.Struct("iIII")

# The two system calls without pyinotify's wrapper: it takes three times as long for each, and
# 50,000 directories are to be watched in half a second.
_libc = ctypes.CDLL(None, use_errno=True)
_add_watch = _libc.inotify_add_watch
_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_rm_watch = _libc.inotify_rm_watch
_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)

Hints = dict[tuple[Node, str], int]
"""What to look at, in the order of the events: (directory, name) → mask of the last event."""


class Source:
    """Live hints and scans for watches, (watch, polled) each: a polled one is only scanned."""

    def __init__(
        self,
        watches: Sequence[tuple[Watch, bool]],
        ignored: Callable[[str, str], bool],
        trouble: Callable[[str, OSError | None], None],
    ) -> None:
        try:
            self._descriptor = pyinotify.WatchManager().get_fd()
        except OSError as error:
            raise SourceError(
                f"no inotify instance: {error}; raise /proc/sys/fs/inotify/max_user_instances"
            ) from error
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFD)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        self.roots = [Root(watch, polled=polled) for watch, polled in watches]
        self._tree = Tree(ignored, self._attach, self._detach, trouble)
        self._nodes: dict[int, Node] = {}
        self._hints: Hints = {}
        self._to_walk: dict[tuple[Node, Reason], None] = {}
        self._walking: Generator[Listing, None, None] | None = None
        self._leaving: dict[Node, None] = {}
        self._roots_changed = False
        self.overflows = 0
        self._heartbeat = -1
        self.beaten = False
        """Set when the file of :meth:`listen` was touched."""
        self._reader = Reader(self._descriptor)

    def start(self, reason: Reason) -> None:
        """Read events from now on; queue the walk that has every directory watched."""
        self._reader.start()
        for root in self.roots:
            self._queue(root, reason)

    def close(self) -> None:
        """Stop reading and give the inotify instance back."""
        self._reader.stop()
        if self._walking is not None:
            self._walking.close()
        os.close(self._descriptor)

    def listen(self, path: str) -> None:
        """Set ``beaten`` whenever the attributes of the file at ``path`` change."""
        self._heartbeat = _add_watch(self._descriptor, os.fsencode(path), ATTRIB)

    def wake(self) -> None:
        """Make :meth:`wait` return at once."""
        self._reader.wake()

    def rescan(self, root: Root) -> None:
        """Queue a catch-up of one watch."""
        self._queue(root, Reason.CATCH_UP)

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
        self._to_walk[node, reason] = None

    @property
    def scanning(self) -> bool:
        """Whether directories are waiting to be listed."""
        return self._walking is not None or bool(self._to_walk)

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._nodes)

    def listings(self) -> Iterator[Listing]:
        """Yield what is waiting to be listed; may be left at any time and asked for again."""
        while True:
            if self._walking is None:
                if not self._to_walk:
                    return
                job = next(iter(self._to_walk))
                del self._to_walk[job]
                self._walking = self._tree.walk(*job)
            listing = next(self._walking, None)
            if listing is None:
                self._walking = None
            else:
                yield listing

    def wait(self, timeout: float | None) -> Hints:
        """Return the hints so far, waiting up to ``timeout`` seconds for the first event."""
        return self._take(self._reader.take(timeout))

    def drain(self) -> Hints:
        """Return the hints of every event that happened before this call."""
        return self._take(self._reader.drain())

    def _take(self, chunks: Sequence[bytes]) -> Hints:
        for chunk in chunks:
            self._parse(chunk)
        if self._leaving:
            self._let_go()
        if self._roots_changed:
            self._roots_changed = False
            self.check_roots()
        hints, self._hints = self._hints, {}
        return hints

    def _parse(self, chunk: bytes) -> None:
        unpack = _EVENT.unpack_from
        nodes, hints, fsdecode = self._nodes, self._hints, os.fsdecode
        offset, end = 0, len(chunk)
        while offset < end:
            wd, mask, _cookie, length = unpack(chunk, offset)
            offset += 16
            name = fsdecode(chunk[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & _SPECIAL:
                self._special(wd, mask, name)
                continue
            node = nodes.get(wd)
            if node is None:
                if wd == self._heartbeat:
                    self.beaten = True
                continue
            key = (node, name)
            # A change of attributes says less than the event before it.
            if mask & ATTRIB and key in hints:
                continue
            hints[key] = mask

    def _special(self, wd: int, mask: int, name: str) -> None:
        if mask & pyinotify.IN_Q_OVERFLOW:
            self.overflows += 1
            for root in self.roots:
                self.rescan(root)
            return
        node = self._nodes.get(wd)
        if node is None:
            return
        if mask & pyinotify.IN_IGNORED:
            # The kernel dropped the watch: deleted, unmounted, or we asked for it.
            del self._nodes[wd]
            if node.wd == wd:
                node.wd = -1
        if mask & _ROOT_LOST and node.parent is None:
            self._roots_changed = True
        elif not name:
            if mask & ATTRIB:
                self._queue(node, Reason.NEW)
        elif mask & (pyinotify.IN_CREATE | pyinotify.IN_MOVED_TO | ATTRIB):
            self._appeared(node, name, mask)
        elif mask & GONE:
            child = node.child(name)
            if child is not None:
                self._leaving[child] = None

    def _appeared(self, node: Node, name: str, mask: int) -> None:
        """A directory was made, moved in or given other permissions."""
        watch = node.root.watch
        child = node.child(name)
        if child is None:
            # Whatever leads here by ATTRIB was unreadable before or is not to be watched.
            if not (watch.rec and watch.auto_add) or self._tree.excluded(node, node.path, name):
                return
            child = node.add(name)
        elif mask & ATTRIB and child.path not in self._tree.troubled:
            return
        self._leaving.pop(child, None)
        self._queue(child, Reason.NEW)

    def _let_go(self) -> None:
        """Forget the directories that left and did not come back under another name."""
        for child in self._leaving:
            self._tree.remove(child)
        self._leaving.clear()

    def check_roots(self) -> None:
        """Walk again every root that is not the directory that was watched."""
        for root in self.roots:
            try:
                status = os.stat(root.watch.path)
            except OSError as error:
                self._lose(root)
                self._tree.say(root.watch.path, error)
                continue
            if (status.st_dev, status.st_ino) != root.identity:
                self._lose(root)
                self._queue(root, Reason.CATCH_UP)
            elif root.wd < 0 and not root.polled:
                self._queue(root, Reason.CATCH_UP)

    def _lose(self, root: Root) -> None:
        if root.identity is not None:
            root.identity = None
            self._tree.detach(root)

    def _attach(self, node: Node, descriptor: int) -> None:
        if node.root.polled:
            return
        # The descriptor's name in /proc stands for the very directory that was opened: it is
        # plain ASCII, never too long, and cannot be swapped for another.
        wd = _add_watch(self._descriptor, b"/proc/self/fd/%d" % descriptor, MASK)
        if wd < 0:
            code = ctypes.get_errno() or errno.EIO
            raise OSError(code, os.strerror(code), node.path)
        if node.wd != wd:
            self._detach(node)
            before = self._nodes.get(wd)
            if before is not None:
                # The same directory under its old name: the new one holds from now on.
                before.wd = -1
            node.wd = wd
            self._nodes[wd] = node

    def _detach(self, node: Node) -> None:
        if node.wd >= 0:
            if self._nodes.get(node.wd) is node:
                del self._nodes[node.wd]
            _rm_watch(self._descriptor, node.wd)
            node.wd = -1
