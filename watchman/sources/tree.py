"""The watched directories as a tree, and the one walk that (re)builds it.

The start, a new directory, a renamed one, an overflow and a periodic catch-up are all the same
walk: open a directory, have it watched, and only then list it, so that whatever is made later
gives an event and whatever was made earlier is in the list.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

from watchman import coverage
from watchman.filesystem import DIRECTORY_FLAGS, GONE_ERRNOS, is_too_long
from watchman.sources.nodes import Listing, Node, Reason, Root, is_directory
from watchman.sources.vanguard import Vanguard

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


class Tree:
    """Walks below roots. ``attach`` has a directory watched, before it is listed.

    ``attach(node, descriptor)`` may raise OSError; the directory is listed all the same, and
    ``trouble(path, error)`` is told; with None once the directory is fine. ``left(path)`` is told
    when a directory with trouble has left.
    """

    def __init__(
        self,
        ignored: Callable[[str, str, bool], bool],
        attach: Callable[[Node, int], None],
        detach: Callable[[Node], None],
        trouble: Callable[[str, OSError | None], None],
        left: Callable[[str], None],
    ) -> None:
        self._ignored = ignored
        self._attach = attach
        self._detach = detach
        self._trouble = trouble
        self._left = left
        self.troubled: dict[str, int] = {}
        """The directories that are not watched, or not as they should be, each with its errno."""
        self.vanished: list[str] = []
        """Paths of directories that left the tree since this list was last emptied."""
        self.unheard: dict[Node, None] = {}
        """Directories that a walk found gone before an event said so, where only that can tell
        whether they are to be watched elsewhere (``auto_add`` is not set)."""
        self.vanguard: Vanguard | None = None
        """Goes ahead of the walks of a start, where there is one."""

    def walk(self, top: Node, reason: Reason) -> Generator[Listing, None, None]:
        """List ``top`` and all below it, depth first."""
        levels: list[_Level] = []
        # What is to be visited when the levels are through.
        rest = pending = deque([top])
        watch = top.root.watch
        scouted = reason is Reason.START and watch.rec and not (watch.exclude or top.root.polled)
        try:
            while True:
                vanguard = self.vanguard if scouted else None
                idle = not (levels or pending)
                if vanguard is not None and (idle or vanguard.is_due()):
                    rest += vanguard.go([level.pending for level in levels], wait=idle)
                if not pending:
                    if levels:
                        levels.pop().close()
                    elif not (rest or (vanguard is not None and vanguard.busy)):
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
            status = os.fstat(descriptor)
            self._begin(node.root, (status.st_dev, status.st_ino))
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
        if node.parent is None:
            flags = DIRECTORY_FLAGS & ~os.O_NOFOLLOW  # the configured path may be a symlink
            return os.open(node.root.watch.path, flags)
        above = node.parent.open()
        try:
            return os.open(node.name, DIRECTORY_FLAGS, dir_fd=above)
        finally:
            os.close(above)

    @staticmethod
    def _begin(root: Root, identity: tuple[int, int]) -> None:
        """Note which directory is walked at a watch's path; another one has a start of its own."""
        if not root.watch.rec:
            root.listed = root.at_start.has_begun(identity)
        elif identity != root.identity:
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
        self.say(node.path, error)

    def say(self, path: str, error: OSError | None) -> None:
        """Pass on what is wrong with a directory, or that it is fine again; each only once."""
        if error is not None and self.troubled.get(path) != error.errno:
            self.troubled[path] = error.errno or errno.EIO
            self._trouble(path, error)
        elif error is None and path in self.troubled:
            del self.troubled[path]
            self._trouble(path, None)

    def _visit(self, level: _Level, descriptor: int, reason: Reason) -> Iterator[Listing]:
        node = level.node
        path = node.path
        listed = path.rstrip("/")
        error = self._try_to_watch(node, descriptor)
        directories: dict[str, int] = {}
        entries: list[os.DirEntry[str]] = []
        ignored = self._ignored
        try:
            with os.scandir(descriptor) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        directories[entry.name] = entry.inode()
                    elif entry.is_file(follow_symlinks=False) and not ignored(
                        entry.name, path, False
                    ):
                        entries.append(entry)
                        if len(entries) == LISTING:
                            yield Listing(node, listed, descriptor, entries, reason, last=False)
                            entries = []
        except OSError as failed:
            # What was not listed is not missing.
            self.say(path, failed)
            yield Listing(node, listed, descriptor, entries, reason, last=True, whole=False)
            return
        if error is None and any(is_too_long(_inside(path, name)) for name in directories):
            error = _TOO_LONG
        if error is not None or self.troubled:
            self.say(path, error)
        if coverage.reaches_below(node.root.watch) and (directories or node.children):
            self._reconcile(level, path, descriptor, directories)
            level.pending.extend((node.children or {}).values())
        node.listed = True
        if node.parent is None:
            node.root.at_start.begin(node.root.identity)
        yield Listing(node, listed, descriptor, entries, reason, last=True)

    def _try_to_watch(self, node: Node, descriptor: int) -> OSError | None:
        """Have a directory watched; return what is wrong."""
        try:
            self._attach(node, descriptor)
            _search(descriptor)
        except OSError as error:
            return error
        return None

    def _reconcile(
        self, level: _Level, path: str, descriptor: int, directories: Mapping[str, int]
    ) -> None:
        """Make the node's children those directories that are really there, and to be watched.

        ``directories`` are all that are there: inode numbers by name.
        """
        node = level.node
        # An event may have added a child since the list was read: a child is only dropped when
        # a second look says that it is gone.
        children = dict(node.children or {})
        for name in children.keys() - directories.keys():
            if not is_directory(name, descriptor):
                self._found_gone(children[name])
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
        """Say whether a directory is not to be watched: ignored, or filtered by the watch."""
        if self._ignored(name, path, True) or coverage.is_excluded(
            node.root.watch, f"{path.rstrip('/')}/{name}"
        ):
            return True
        if is_too_long(_inside(path, name)):
            self.say(path, _TOO_LONG)
            return True
        return False

    def _found_gone(self, node: Node) -> None:
        """Take a directory out that is gone, at once unless its events are to decide."""
        if node.root.watch.auto_add or node.parent is None or node.parent.wd < 0:
            self.remove(node)
        else:
            self.unheard[node] = None

    def remove(self, node: Node) -> None:
        """Take a directory that is gone, and all below it, out of the tree."""
        self.vanished.append(node.path)
        siblings = node.parent.children if node.parent is not None else None
        if siblings and siblings.get(node.name) is node:
            del siblings[node.name]
        self.detach(node)

    def detach(self, node: Node) -> None:
        """Stop watching a directory and all below it, which may still be there."""
        if self.troubled:
            prefix = node.path.rstrip("/") + "/"
            for path in [path for path in self.troubled if f"{path}/".startswith(prefix)]:
                del self.troubled[path]
                self._left(path)
        pending = [node]
        while pending:
            current = pending.pop()
            self._detach(current)
            if current.root.watch.rec:
                current.listed = False  # what is there when it is watched again is taken in
            pending.extend((current.children or {}).values())
            current.children = None


def _inside(path: str, name: str) -> str:
    """Return the shortest path that a file in the directory ``name`` can have."""
    return f"{path}/{name}/x"


def _search(descriptor: int) -> None:
    """Raise PermissionError where the names in a directory may be read, but not used."""
    os.stat(".", dir_fd=descriptor)
