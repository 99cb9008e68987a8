"""The watched directories as a tree, and the one walk that (re)builds it.

The start, a new directory, a renamed one, an overflow and a periodic catch-up are all the same
walk: open a directory, have it watched, and only then list it, so that whatever is made later
gives an event and whatever was made earlier is in the list.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, cast

from watchman.filesystem import DIRECTORY_FLAGS, open_directory, relative_to
from watchman.model import Watch

LISTING = 1000
"""Names in one :class:`Listing` at the most."""


class Reason(enum.Enum):
    """Why a directory is listed."""

    START = "start"
    """The first walk of this run: what is found may be older than the run."""
    NEW = "new"
    """The directory appeared, or moved, while it was watched."""
    CATCH_UP = "catch-up"
    """Events may have been lost, or a periodic scan is due."""


class Node:
    """One watched directory."""

    __slots__ = ("children", "name", "parent", "root", "wd")

    def __init__(self, name: str, parent: Node | None, root: Root | None) -> None:
        self.name = name
        self.parent = parent
        self.root: Root = root or cast("Root", self)
        self.children: dict[str, Node] | None = None
        self.wd = -1

    @property
    def path(self) -> str:
        """The directory's path as the events so far tell it."""
        names: list[str] = []
        node: Node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        names.append(node.root.watch.path.rstrip("/"))
        names.reverse()
        return "/".join(names) or "/"

    def open(self) -> int:
        """Open the directory without following symlinks below the root; an ``O_PATH`` descriptor.

        Raises OSError.
        """
        root = self.root.watch.path
        return open_directory(root, relative_to(root, self.path))

    def child(self, name: str) -> Node | None:
        """Return the watched directory ``name`` in this one."""
        return self.children.get(name) if self.children else None

    def add(self, name: str) -> Node:
        """Add the directory ``name`` to the tree."""
        if self.children is None:
            self.children = {}
        child = self.children[name] = Node(name, self, self.root)
        return child


class Root(Node):
    """The top directory of a watch."""

    __slots__ = ("identity", "polled", "watch")

    def __init__(self, watch: Watch, *, polled: bool) -> None:
        self.watch = watch
        self.polled = polled
        self.identity: tuple[int, int] | None = None
        super().__init__("", None, None)

    def count(self) -> int:
        """Return how many directories the watch covers, itself included."""
        pending: list[Node] = [self]
        for node in pending:
            pending.extend((node.children or {}).values())
        return len(pending)


class Listing(NamedTuple):
    """Names found in a directory; its descriptor is open while the listing is in hand."""

    node: Node
    descriptor: int
    entries: list[os.DirEntry[str]]
    reason: Reason
    last: bool
    """No more names of this directory follow."""


class Tree:
    """Walks below roots. ``attach`` has a directory watched, before it is listed.

    ``attach(node, descriptor)`` may raise OSError; the directory is listed all the same, and
    ``trouble(path, error)`` is told (with None once the directory is fine).
    """

    def __init__(
        self,
        ignored: Callable[[str, str], bool],
        attach: Callable[[Node, int], None],
        detach: Callable[[Node], None],
        trouble: Callable[[str, OSError | None], None],
    ) -> None:
        self._ignored = ignored
        self._attach = attach
        self._detach = detach
        self._trouble = trouble
        self.troubled: set[str] = set()
        self.vanished: list[str] = []
        """Paths of directories that left the tree since this list was last emptied."""

    def walk(self, top: Node, reason: Reason) -> Generator[Listing, None, None]:
        """List ``top`` and all below it, depth first; one descriptor is open for each level."""
        stack: list[tuple[int, Iterator[Node]]] = []
        pending = iter([top])
        try:
            while True:
                node = next(pending, None)
                if node is None:
                    if not stack:
                        return
                    os.close(stack[-1][0])
                    stack.pop()
                    if not stack:
                        return
                    pending = stack[-1][1]
                    continue
                try:
                    descriptor = (
                        os.open(node.name, DIRECTORY_FLAGS, dir_fd=stack[-1][0])
                        if stack
                        else self._open(node)
                    )
                except OSError as error:
                    self._lost(node, error)
                    continue
                subdirectories: list[Node] = []
                pending = iter(subdirectories)
                stack.append((descriptor, pending))
                yield from self._visit(node, descriptor, reason, subdirectories)
        finally:
            for descriptor, _ in stack:
                os.close(descriptor)

    def _open(self, node: Node) -> int:
        if node.parent is None:
            flags = DIRECTORY_FLAGS & ~os.O_NOFOLLOW  # the configured path may be a symlink
            descriptor = os.open(node.root.watch.path, flags)
            status = os.fstat(descriptor)
            node.root.identity = (status.st_dev, status.st_ino)
            return descriptor
        above = node.parent.open()
        try:
            return os.open(node.name, DIRECTORY_FLAGS, dir_fd=above)
        finally:
            os.close(above)

    def _lost(self, node: Node, error: OSError) -> None:
        """A directory could not be opened: it went away, or we may not read it."""
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
        if gone and node.parent is not None:
            self.remove(node)
            return
        if node.parent is None:
            node.root.identity = None
        self.say(node.path, error)

    def say(self, path: str, error: OSError | None) -> None:
        """Pass on what is wrong with a directory, or that it is fine again; each only once."""
        if error is not None and path not in self.troubled:
            self.troubled.add(path)
            self._trouble(path, error)
        elif error is None and path in self.troubled:
            self.troubled.discard(path)
            self._trouble(path, None)

    def _visit(
        self, node: Node, descriptor: int, reason: Reason, subdirectories: list[Node]
    ) -> Iterator[Listing]:
        path = node.path
        try:
            self._attach(node, descriptor)
        except OSError as error:
            self.say(path, error)
        else:
            if self.troubled:
                self.say(path, None)
        directories: list[str] = []
        entries: list[os.DirEntry[str]] = []
        ignored = self._ignored
        with os.scandir(descriptor) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and not ignored(entry.name, path):
                    entries.append(entry)
                    if len(entries) == LISTING:
                        yield Listing(node, descriptor, entries, reason, last=False)
                        entries = []
        if node.root.watch.rec and (directories or node.children):
            self._reconcile(node, path, descriptor, directories)
            subdirectories.extend((node.children or {}).values())
        yield Listing(node, descriptor, entries, reason, last=True)

    def _reconcile(self, node: Node, path: str, descriptor: int, directories: list[str]) -> None:
        """Make the node's children those directories that are really there."""
        # An event may have added a child since the list was read: a child is only dropped when
        # a second look says that it is gone.
        children = dict(node.children or {})
        for name in children.keys() - set(directories):
            if not _is_directory(name, descriptor):
                self.remove(children[name])
        for name in directories:
            if node.child(name) is None and not self.excluded(node, path, name):
                node.add(name)

    def excluded(self, node: Node, path: str, name: str) -> bool:
        """Say whether a directory is not to be watched: ignored, or filtered by the watch."""
        exclude = node.root.watch.exclude
        return self._ignored(name, path) or (exclude is not None and exclude(f"{path}/{name}"))

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
            prefix = node.path + "/"
            for path in [path for path in self.troubled if f"{path}/".startswith(prefix)]:
                self.say(path, None)
        pending = [node]
        while pending:
            current = pending.pop()
            self._detach(current)
            pending.extend((current.children or {}).values())
            current.children = None


def _is_directory(name: str, descriptor: int) -> bool:
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode)
