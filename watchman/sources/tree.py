"""The directories that are watched, as a tree."""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, cast

from watchman.file_access import GONE_ERRNOS, open_directory, relative_to, status_of_watch
from watchman.model import Watch
from watchman.sources.at_start import AtStart
from watchman.sources.just_gone import JustGone

NOWHERE = -1
"""In place of a descriptor: the directory is gone. What is less says why nobody can tell."""


class Reason(enum.Enum):
    """Why a directory is listed."""

    START = "start"
    """The first walk of this run: what is found may be older than the run."""
    NEW = "new"
    """The directory appeared, or moved, while it was watched."""
    READABLE = "readable"
    """The directory can be read now, and could not before."""
    CATCH_UP = "catch-up"
    """Events may have been lost, or a periodic scan is due."""


class Node:
    """One watched directory."""

    __slots__ = ("children", "listed", "name", "parent", "root", "wd")

    def __init__(self, name: str, parent: Node | None, root: Root | None) -> None:
        self.name = name
        self.parent = parent
        self.root: Root = root or cast("Root", self)
        self.children: dict[str, Node] | None = None
        self.listed = False
        """Whether the directories in it have been found once: what comes later is new."""
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

    def join(self, name: str) -> str:
        """Return the path of an entry."""
        return f"{self.path.rstrip('/')}/{name}"

    def open(self) -> int:
        """Open the directory without following symlinks below the top; an ``O_PATH`` descriptor.

        Raises OSError.
        """
        top = self.root.watch.top
        return open_directory(top, relative_to(top, self.path))

    def child(self, name: str) -> Node | None:
        """Return the watched directory ``name`` in this one."""
        return self.children.get(name) if self.children else None

    @property
    def is_left(self) -> bool:
        """Whether the directory has left the tree, or one above it has."""
        if self.parent is None:
            return self.root.is_given_up
        return self.parent.child(self.name) is not self

    def above(self) -> Iterator[Node]:
        """Yield the directories that it is in, up to the root."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def is_there(self) -> bool:
        """Say whether there is a directory at its place, this one or another; or if unknown."""
        assert self.parent is not None
        try:
            above = self.parent.open()
        except OSError as error:
            return error.errno not in GONE_ERRNOS
        try:
            return is_directory(self.name, above)
        finally:
            os.close(above)

    def found_there(self) -> tuple[int, int] | None:
        """Return the device and inode of the directory at its place; None if there is none."""
        try:
            descriptor = self.open()
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return status.st_dev, status.st_ino

    def add(self, name: str) -> Node:
        """Add the directory ``name`` to the tree."""
        if self.children is None:
            self.children = {}
        self.root.directories += name not in self.children
        child = self.children[name] = Node(name, self, self.root)
        return child


class Root(Node):
    """The top directory of a watch."""

    __slots__ = (
        "at_start",
        "directories",
        "identity",
        "is_given_up",
        "just_gone",
        "missed",
        "mounts",
        "polled",
        "reason",
        "remote",
        "watch",
    )

    def __init__(self, watch: Watch, at_start: AtStart, *, polled: bool) -> None:
        self.watch = watch
        self.at_start = at_start
        self.polled = polled
        """Whether it is only scanned."""
        self.identity: tuple[int, int] | None = None
        """The device and inode that are watched; None while there is nothing to watch."""
        self.directories = 1
        """How many directories the tree has, this one included: the status asks time and again."""
        self.reason = Reason.START
        """What the next walk is for, should the directory turn out to be another one."""
        self.just_gone = JustGone(watch)
        self.is_given_up = False
        """Whether the watch is no more."""
        self.missed = False
        """Whether an event came while the path led elsewhere: it is walked when it is back."""
        self.mounts: dict[str, object] = {}
        """What is mounted below, by path."""
        self.remote: tuple[str, ...] = ()
        """Where in it others can write without an event here; with a slash behind each."""
        super().__init__("", None, None)

    def note_miss(self) -> None:
        """Note that a file could not be reached by its path, if the root's path is to blame.

        No event tells of that, and it may be over before anybody checks: unmounted and mounted
        again, or a directory above renamed there and back. What left below the root has events.
        """
        try:
            status = status_of_watch(self.watch)
        except OSError:
            self.missed = True
            return
        self.missed |= (status.st_dev, status.st_ino) != self.identity

    def is_polled(self, path: str) -> bool:
        """Say whether what others write at ``path`` may give no event here."""
        return self.polled or path.startswith(self.remote)


class Listing(NamedTuple):
    """What a directory has: files, or in a watch for whole directories the directories in it.

    Its descriptor is open while the listing is in hand.
    """

    node: Node
    path: str
    """The directory's path, without a slash at its end."""
    descriptor: int
    entries: list[os.DirEntry[str]]
    reason: Reason
    last: bool
    """No more names of this directory follow."""
    whole: bool = True
    """Whether the last listing closes a complete list: False where reading failed."""


def descriptor_of(node: Node) -> int:
    """Open a directory, for a DirectoryCache.

    Returns NOWHERE where it is gone, and what :func:`why_unreachable` reads where that cannot be
    told.
    """
    try:
        return node.open()
    except OSError as error:
        return NOWHERE if error.errno in GONE_ERRNOS else NOWHERE - (error.errno or errno.EIO)


def why_unreachable(descriptor: int) -> int:
    """Return the errno in what :func:`descriptor_of` returned; 0 if there was none."""
    return max(0, NOWHERE - descriptor)


def is_directory(name: str, descriptor: int) -> bool:
    """Say whether ``name`` in a directory is one itself, and no symlink.

    What cannot be looked at counts as one: unknown is not gone.
    """
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError as error:
        return error.errno not in GONE_ERRNOS
    return stat.S_ISDIR(status.st_mode)
