"""The one walk that builds the tree of watched directories, and puts it right again.

The start, a new directory, a renamed one, an overflow and a periodic catch-up are all the same
walk: open a directory, have it watched, and only then list it. What is made in it later gives an
event, and what was made earlier is in the list.

In a watch for whole directories a walk ends where it began: only who handles the listing can tell
in which of those directories others are units, and has these walked.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence

from watchman import coverage
from watchman.coverage import LeftOut
from watchman.file_access import (
    DIRECTORY_FLAGS,
    GONE_ERRNOS,
    for_listing,
    is_too_long,
    status_of_watch,
)
from watchman.sources.listener import UnwatchedListener
from watchman.sources.prescan import Prescan
from watchman.sources.tree import Listing, Node, Reason, Root, is_directory
from watchman.sources.watch_table import WatchTable

LISTING = 1000
"""Names in one :class:`Listing` at the most."""
_TOO_LONG = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
KEPT_OPEN = 64
"""Directories that one walk has open at the most: uploaders decide how deep a tree is."""


class _Level:
    """A directory that a walk is in."""

    __slots__ = ("descriptor", "moved_in", "node", "pending")

    def __init__(self, node: Node, descriptor: int, *, moved_in: bool) -> None:
        self.node = node
        self.descriptor = descriptor
        self.moved_in = moved_in
        """Whether it came from outside the watch, or a directory above it."""
        self.pending: deque[Node] = deque()

    def open(self) -> int:
        """Return the descriptor, of a directory opened again if it had to be closed."""
        if self.descriptor < 0:
            self.descriptor = self.node.open()
        return self.descriptor

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Walker:
    """Walks below roots, in the thread that owns the tree.

    A directory that cannot be watched is listed all the same, and the listener is told.
    """

    def __init__(
        self, rules: coverage.Rules, watch_table: WatchTable, listener: UnwatchedListener
    ) -> None:
        self._rules = rules
        self._watch_table = watch_table
        self._listener = listener
        self.troubled: dict[str, int] = {}
        """The directories that are not watched, or not as they should be, each with its errno."""
        self.vanished: list[str] = []
        """Paths of directories that left the tree since this list was last emptied."""
        self.unheard: dict[Node, None] = {}
        """Directories that a walk found gone before an event said so (``auto_add`` is not set).

        Their events tell whether they are to be watched under another name."""
        self.roots: Sequence[Root] = ()
        """All roots of the tree."""
        self.prescan: Prescan | None = None
        """Scans ahead of the walks of a start, where there is one."""

    def walk(self, top: Node, reason: Reason) -> Generator[Listing, None, None]:
        """List ``top`` and all below it, depth first.

        Events are handled between two listings, and may change the tree: a directory that is still
        to be visited may have left by then.
        """
        levels: list[_Level] = []
        # To be visited when no level is open any more: the top, and what the prescan leaves.
        rest = pending = deque([top])
        watch = top.root.watch
        prescanned = reason is Reason.START and watch.rec and not (watch.exclude or top.root.polled)
        try:
            while True:
                prescan = self.prescan if prescanned else None
                idle = not (levels or pending)
                if prescan is not None and (idle or prescan.is_due()):
                    rest += prescan.go([level.pending for level in levels], wait=idle)
                if not pending:
                    if levels:
                        levels.pop().close()
                    elif not (rest or (prescan is not None and prescan.busy)):
                        return
                    pending = levels[-1].pending if levels else rest
                    continue
                node = pending.popleft()
                # What left meanwhile would be watched under a path that is not its own.
                if node.is_left:
                    continue
                level = self._enter(node, levels)
                if level is None:
                    continue
                levels.append(level)
                if len(levels) > KEPT_OPEN:
                    levels[-KEPT_OPEN - 1].close()
                pending = level.pending
                yield from self._visit(level, level.descriptor, reason)
        finally:
            for level in levels:
                level.close()

    def _enter(self, node: Node, levels: Sequence[_Level]) -> _Level | None:
        """Open a directory that is to be visited; None where it is gone, or left out."""
        try:
            descriptor = self._open(node, levels)
        except OSError as error:
            self._lost(node, error)
            return None
        level = _Level(node, descriptor, moved_in=bool(levels) and levels[-1].moved_in)
        if node.parent is None:
            try:
                status = os.fstat(descriptor)
            except OSError as error:
                level.close()
                self._lost(node, error)
                return None
            identity = status.st_dev, status.st_ino
            other = self._watched_as(node.root, identity)
            if other is not None:
                level.close()
                self._lost(node, OSError(errno.EEXIST, f"it is watched as {other.watch.path}"))
                return None
            self._begin(node.root, identity)
        elif not node.root.watch.rec:
            at_start, above = node.root.at_start, node.parent.path
            level.moved_in |= at_start.has_moved_in(above, node.name)
            if at_start.has_replaced(above, node.name, descriptor, moved_in=level.moved_in):
                level.close()
                self.remove(node)
                return None
        return level

    def _open(self, node: Node, levels: Sequence[_Level]) -> int:
        if levels:
            return os.open(node.name, DIRECTORY_FLAGS, dir_fd=levels[-1].open())
        watch = node.root.watch
        if node.parent is None and watch.top == watch.path:
            # It may be a symlink.
            return os.open(watch.path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        return for_listing(node.open())

    def _watched_as(self, root: Root, identity: tuple[int, int]) -> Root | None:
        """Return another root that is the same directory, as a bind mount makes it.

        The kernel has one watch for both, and each file would be announced twice. One that was
        renamed to the other's path is not both, though nobody may have seen yet that it left.
        """
        for one in self.roots:
            if one is not root and one.identity == identity:
                with contextlib.suppress(OSError):
                    status = status_of_watch(one.watch)
                    if (status.st_dev, status.st_ino) == identity:
                        return one
        return None

    def _begin(self, root: Root, identity: tuple[int, int]) -> None:
        """Note which directory is walked at a watch's path; another one has a start of its own."""
        is_other = identity != root.identity
        has_begun = root.at_start.has_begun(identity)
        if is_other and not has_begun:
            # What was seen below has not left: it may be unmounted, and come back as it is.
            for child in (root.children or {}).values():
                self.detach(child)
                root.directories -= 1
            root.children = None
        if not root.watch.rec:
            root.listed = has_begun
        elif is_other:
            root.listed = False
        root.identity = identity
        root.reason = Reason.CATCH_UP

    def inspect(self, node: Node) -> bool:
        """Say whether a directory can be read and searched, and tell about it if not."""
        try:
            descriptor = self._open(node, ())
            try:
                _search(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._lost(node, error)
            return False
        return True

    def has_trouble(self, path: str) -> bool:
        """Say whether something is wrong with a directory or one below it."""
        prefix = path.rstrip("/") + "/"
        return path in self.troubled or any(other.startswith(prefix) for other in self.troubled)

    def _lost(self, node: Node, error: OSError) -> None:
        """A directory could not be opened: it went away, or we may not read it."""
        if error.errno in GONE_ERRNOS and node.parent is not None:
            self._found_gone(node)
            return
        if node.parent is None:
            node.root.identity = None
            if node.root.just_gone.may_be_given_up(error):
                return
        self.say(node.path, error)

    def say(self, path: str, error: OSError | None) -> None:
        """Pass on what is wrong with a directory, or that it is fine again; each only once."""
        if error is not None and self.troubled.get(path) != error.errno:
            self.troubled[path] = error.errno or errno.EIO
            self._listener.say(path, error)
        elif error is None and path in self.troubled:
            del self.troubled[path]
            self._listener.say(path, None)

    def _visit(self, level: _Level, descriptor: int, reason: Reason) -> Iterator[Listing]:
        node = level.node
        path = node.path
        listed = path.rstrip("/")
        # The order that must hold: watch first, list then.
        error = self._try_to_watch(node, descriptor)
        directories: dict[str, int] = {}
        entries: list[os.DirEntry[str]] = []
        unknown: OSError | None = None
        ignored, units = self._rules.ignored, coverage.is_of_units(node.root.watch)
        try:
            with os.scandir(descriptor) as found:
                for entry in found:
                    try:
                        is_dir = entry.is_dir(follow_symlinks=False)
                        is_file = not (is_dir or units) and entry.is_file(follow_symlinks=False)
                    except OSError as failed:
                        # Where a listing has no types, one that cannot be looked at hides no other.
                        unknown = unknown if failed.errno in GONE_ERRNOS else failed
                        continue
                    if is_dir:
                        directories[entry.name] = entry.inode()
                        if units:
                            entries.append(entry)
                    elif is_file and not ignored(entry.name, f"{listed}/{entry.name}"):
                        entries.append(entry)
                        if len(entries) == LISTING:
                            yield Listing(node, listed, descriptor, entries, reason, last=False)
                            entries = []
        except OSError as failed:
            # What was not listed is not missing.
            self.say(path, failed)
            yield Listing(node, listed, descriptor, entries, reason, last=True, whole=False)
            return
        error = error or unknown
        if error is None and not units:
            error = _too_long(path, directories)
        if error is not None or self.troubled:
            self.say(path, error)
        if node.children:
            self._drop_gone(node, descriptor, directories)
        if not units and coverage.reaches_below(node.root.watch):
            self._take_in(level, path, descriptor, directories)
            level.pending.extend((node.children or {}).values())
        if unknown is None:
            self._note_listed(node)
        yield Listing(node, listed, descriptor, entries, reason, last=True, whole=unknown is None)

    @staticmethod
    def _note_listed(node: Node) -> None:
        """Note that all that is in a directory has been found."""
        node.listed = True
        if node.parent is None:
            node.root.at_start.begin(node.root.identity)

    def _try_to_watch(self, node: Node, descriptor: int) -> OSError | None:
        """Have a directory watched; return why it is not, or why its files cannot be looked at."""
        try:
            self._watch_table.attach(node, descriptor)
            _search(descriptor)
        except OSError as error:
            return error
        return None

    def _drop_gone(self, node: Node, descriptor: int, directories: Collection[str]) -> None:
        """Take those children out that are not among the ``directories`` that are there."""
        # An event may have added a child since the list was read: a child is only dropped when
        # a second look says that it is gone.
        children = dict(node.children or {})
        for name in children.keys() - directories:
            if not is_directory(name, descriptor):
                self._found_gone(children[name])

    def _take_in(
        self, level: _Level, path: str, descriptor: int, directories: Mapping[str, int]
    ) -> None:
        """Add those directories to the node's children that are to be watched.

        ``directories`` are all that are there: inode numbers by name.
        """
        node = level.node
        watch, at_start = node.root.watch, node.root.at_start
        # Without `rec` all below the watch's own directory came after the start.
        begins = not node.listed and (watch.rec or node.parent is None)
        for name, inode in directories.items():
            if node.child(name) is not None or self.excluded(node, path, name):
                continue
            was_there = begins or at_start.finds(
                path, name, inode, descriptor, moved_in=level.moved_in
            )
            if coverage.is_followed(watch, at_start=was_there):
                node.add(name)
            elif begins:
                at_start.note(path, name, inode, descriptor)

    def excluded(self, node: Node, path: str, name: str) -> bool:
        """Say whether the directory ``name`` in a node is not to be watched (``coverage``)."""
        why = coverage.directory_left_out(
            node.root.watch, f"{path.rstrip('/')}/{name}", self._rules
        )
        if why is LeftOut.TOO_LONG:
            self.say(path, _TOO_LONG)
        return why is not None

    def _found_gone(self, node: Node) -> None:
        """Take a directory out of the tree that is not at its name.

        One for files without ``auto_add`` stays until its events are read: if it was renamed within
        the watch, only the tree tells by then that it was watched, and is to be further on.
        """
        watch = node.root.watch
        follows = watch.auto_add or coverage.is_of_units(watch)
        if follows or node.parent is None or node.parent.wd < 0:
            self.remove(node)
        else:
            self.unheard[node] = None

    def remove(self, node: Node) -> None:
        """Take a directory that is gone, and all below it, out of the tree."""
        self.vanished.append(node.path)
        siblings = node.parent.children if node.parent is not None else None
        if siblings and siblings.get(node.name) is node:
            del siblings[node.name]
            node.root.directories -= 1
        self.detach(node)

    def detach(self, node: Node) -> None:
        """Stop watching a directory and all below it, which may still be there."""
        if self.troubled:
            prefix = node.path.rstrip("/") + "/"
            for path in [path for path in self.troubled if f"{path}/".startswith(prefix)]:
                del self.troubled[path]
                self._listener.left(path)
        pending = [node]
        while pending:
            current = pending.pop()
            self._watch_table.detach(current)
            if current.root.watch.rec:
                current.listed = False  # what is there when it is watched again is taken in
            if current.children:
                pending.extend(current.children.values())
                current.root.directories -= len(current.children)
            current.children = None


class WalkQueue:
    """Directories to walk, one walk after the other; a walk can be left at any listing."""

    def __init__(self, walker: Walker) -> None:
        self._walker = walker
        # A dict for a set that keeps its order: each walk is queued once.
        self._waiting: dict[tuple[Node, Reason], None] = {}
        self._walk: Generator[Listing, None, None] | None = None

    def __bool__(self) -> bool:
        return self._walk is not None or bool(self._waiting)

    def add(self, node: Node, reason: Reason) -> None:
        """Queue a walk, unless the same one is queued already."""
        self._waiting[node, reason] = None

    def next(self) -> Listing | None:
        """Return the next listing; None if there is nothing left to walk."""
        while self:
            if self._walk is None:
                first = next(iter(self._waiting))
                # Before it begins: whatever queues it again from now on wants another walk.
                del self._waiting[first]
                self._walk = self._walker.walk(*first)
            listing = next(self._walk, None)
            if listing is not None:
                return listing
            self._walk = None
        return None

    def close(self) -> None:
        """End the walk that is under way."""
        if self._walk is not None:
            self._walk.close()


class Walks:
    """All that is to be walked. What is new does not wait for the scan of a million old files."""

    def __init__(self, walker: Walker) -> None:
        self._new, self._background = WalkQueue(walker), WalkQueue(walker)

    def __bool__(self) -> bool:
        return bool(self._new or self._background)

    def add(self, node: Node, reason: Reason) -> None:
        """Have a directory walked, and all below it."""
        urgent = reason in (Reason.NEW, Reason.READABLE)
        (self._new if urgent else self._background).add(node, reason)

    def next(self) -> Listing | None:
        """Return the next listing; None if there is nothing left to walk."""
        return self._new.next() or self._background.next()

    def close(self) -> None:
        """End the walks that are under way."""
        self._new.close()
        self._background.close()


def _too_long(path: str, directories: Iterable[str]) -> OSError | None:
    """Return what is wrong where no file in one of these directories can be opened by its path."""
    return _TOO_LONG if any(is_too_long(f"{path}/{name}/x") for name in directories) else None


def _search(descriptor: int) -> None:
    """Raise PermissionError where the names in a directory may be read, but not used."""
    os.stat(".", dir_fd=descriptor)
