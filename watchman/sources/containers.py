"""Hints for watches for whole directories.

What is announced as a whole is called a unit, and the directory that it is in a container: the
watch's own path and, with ``rec``, whatever below it is entered because it is no unit itself.
Containers are few and flat, so one that is renamed is let go and found again under its new name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from watchman import coverage
from watchman.file_access import DIRECTORY_FLAGS, open_directory, relative_to
from watchman.model import Watch
from watchman.sources import instance as ev
from watchman.sources.listener import UnwatchedListener

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_LEFT = ev.IN_MOVED_FROM | ev.IN_DELETE
_LOST = ev.IN_DELETE_SELF | ev.IN_MOVE_SELF | ev.IN_IGNORED
_MASK = ev.IN_CREATE | ev.IN_MOVED_TO | _LEFT | ev.IN_DELETE_SELF | ev.IN_MOVE_SELF | ev.IN_ONLYDIR
_INSIDE = ev.IN_CREATE | ev.IN_MOVED_TO | ev.IN_CLOSE_WRITE | ev.IN_ONLYDIR

CREATED, MOVED, MARKED, LEFT = "CREATE", "MOVEDTO", "MARKER", ""
"""What a hint comes from."""
UNASKED = "UNASKED"
"""An event that the watch's own mask leaves out."""


class Container:
    """A directory whose directories are units."""

    __slots__ = ("children", "name", "parent", "path", "polled", "watch", "wd")

    def __init__(self, watch: Watch, path: str, parent: Container | None, *, polled: bool) -> None:
        self.watch = watch
        self.path = path
        self.parent = parent
        self.name = os.path.basename(path)
        self.polled = polled
        self.children: dict[str, Container] = {}
        self.wd = -1

    def join(self, name: str) -> str:
        """Return the path of an entry."""
        return f"{self.path.rstrip('/')}/{name}"


class TopContainer(Container):
    """The container at a watch's own path."""

    __slots__ = ("identity",)

    def __init__(self, watch: Watch, *, polled: bool) -> None:
        super().__init__(watch, watch.path, None, polled=polled)
        self.identity: tuple[int, int] | None = None


Unit = tuple[Container, str]


class Hint(NamedTuple):
    """Something may have happened to a directory."""

    container: Container
    name: str
    event: str
    closed: bool = False
    """The marker in it was closed after writing, or came here with its content."""


class DirectorySource:
    """Containers and their hints. Used from one thread, but for :meth:`wake` and :meth:`count`.

    ``watches`` are (watch, whether it is only scanned).
    """

    def __init__(self, watches: Sequence[tuple[Watch, bool]], listener: UnwatchedListener) -> None:
        self._instance = ev.Instance()
        self._listener = listener
        self._troubled: set[str] = set()
        self._containers: dict[int, Container] = {}
        self._waiting: dict[int, Unit] = {}
        """Units whose marker is waited for, by the number of their own watch."""
        self._numbers: dict[Unit, int] = {}
        self.roots = [TopContainer(watch, polled=polled) for watch, polled in watches]
        self.overflowed = False
        """Events were lost since this was last set to False."""
        self.overflows = 0
        self.root_left = False
        """A root was renamed, removed or unmounted since this was last set to False."""

    def start(self) -> None:
        """Read events from now on."""
        self._instance.start()

    def close(self) -> None:
        """Stop, and give the inotify instance back."""
        self._instance.close()

    def wake(self) -> None:
        """Make :meth:`take` return at once."""
        self._instance.wake()

    def count(self, watch: Watch) -> int:
        """Return how many directories a watch covers, those that wait for a marker included."""
        pending: list[Container] = [
            root for root in self.roots if root.watch is watch and root.identity is not None
        ]
        for container in pending:  # grows meanwhile
            pending += list(container.children.values())
        return len(pending) + sum(c.watch is watch for c, _ in list(self._numbers))

    def take(self, timeout: float | None) -> list[Hint]:
        """Return the hints so far, waiting up to ``timeout`` seconds for the first event."""
        return self._hints(self._instance.take(timeout))

    def drain(self) -> list[Hint]:
        """Return the hints of every event that happened before this call."""
        return self._hints(self._instance.drain())

    def _hints(self, events: Sequence[ev.Raw]) -> list[Hint]:
        hints: list[Hint] = []
        for event in events:
            self._handle(event, hints)
        return hints

    def _handle(self, event: ev.Raw, hints: list[Hint]) -> None:
        if event.mask & ev.IN_Q_OVERFLOW:
            self.overflowed = True
            self.overflows += 1
        elif event.wd in self._waiting:
            container, name = unit = self._waiting[event.wd]
            if event.mask & ev.IN_IGNORED:
                self.stop_waiting(unit)
            elif event.name == container.watch.marker:
                closed = not event.mask & ev.IN_CREATE
                hints.append(Hint(container, name, MARKED, closed=closed))
        elif event.wd in self._containers:
            container = self._containers[event.wd]
            self.root_left |= container.parent is None and bool(event.mask & _LOST)
            if event.mask & ev.IN_IGNORED:
                del self._containers[event.wd]
                container.wd = -1
            elif event.mask & ev.IN_ISDIR and event.name:
                self._heard(container, event, hints)

    def _heard(self, container: Container, event: ev.Raw, hints: list[Hint]) -> None:
        if event.mask & _LEFT:
            child = container.children.get(event.name)
            if child is not None:
                self.leave(child)
            hints.append(Hint(container, event.name, LEFT))
            return
        kind = CREATED if event.mask & ev.IN_CREATE else MOVED
        closed = kind == MOVED
        if not coverage.asks_for(container.watch, event.mask):
            kind = UNASKED
        hints.append(Hint(container, event.name, kind, closed=closed))

    # Containers

    def open(self, container: Container) -> int:
        """Open a container as an ``O_PATH`` descriptor. Raises OSError."""
        return open_directory(
            container.watch.path, relative_to(container.watch.path, container.path)
        )

    def names(self, container: Container) -> list[str] | None:
        """Watch a container, and only then list the directories in it; None if it is gone."""
        try:
            above = self.open(container)
            try:
                self._attach(container, above)
                descriptor = os.open(".", DIRECTORY_FLAGS, dir_fd=above)
            finally:
                os.close(above)
            try:
                with os.scandir(descriptor) as found:
                    names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
            finally:
                os.close(descriptor)
        except OSError as error:
            if isinstance(container, TopContainer) or error.errno not in _GONE:
                self._say(container.path, error)
            return None
        return names

    def _attach(self, container: Container, descriptor: int) -> None:
        if isinstance(container, TopContainer):
            container.identity = _identity(os.fstat(descriptor))
        if container.polled:
            self._say(container.path, None)
            return
        try:
            wd = self._instance.add(descriptor, _MASK)
        except OSError as error:
            self._say(container.path, error)
            return
        self._say(container.path, None)
        if container.wd not in (-1, wd):
            self._instance.remove(container.wd)
            self._containers.pop(container.wd, None)
        container.wd = wd
        self._containers[wd] = container

    def enter(self, parent: Container, name: str) -> Container:
        """Return the container ``name`` in ``parent``; its directories are units from now on."""
        child = parent.children.get(name)
        if child is None:
            path = parent.join(name)
            child = parent.children[name] = Container(
                parent.watch, path, parent, polled=parent.polled
            )
        return child

    def leave(self, container: Container) -> None:
        """Let go of a container that is gone, and of all below it."""
        if container.parent is not None:
            container.parent.children.pop(container.name, None)
        for child in list(container.children.values()):
            self.leave(child)
        if self._containers.pop(container.wd, None) is not None:
            self._instance.remove(container.wd)
        container.wd = -1
        for unit in [unit for unit in self._numbers if unit[0] is container]:
            self.stop_waiting(unit)
        if container.parent is not None:
            self._say(container.path, None)

    def check_roots(self) -> list[Container]:
        """Return the roots that must be scanned: they are not the directory that is watched."""
        changed: list[Container] = []
        for root in self.roots:
            try:
                identity = _identity(os.stat(root.path))
            except OSError as error:
                self.leave(root)
                root.identity = None
                self._say(root.path, error)
                continue
            if identity != root.identity:
                self.leave(root)
            if identity != root.identity or (root.wd < 0 and not root.polled):
                changed.append(root)
        return changed

    # Units

    def wait_for_marker(self, unit: Unit, descriptor: int) -> None:
        """Give a hint when the marker comes into a unit; ``descriptor`` is its container's."""
        if unit in self._numbers or unit[0].polled:
            return
        try:
            inside = os.open(unit[1], DIRECTORY_FLAGS, dir_fd=descriptor)
        except OSError:
            return  # gone: its event follows; unreadable: the scans find the marker
        try:
            wd = self._instance.add(inside, _INSIDE)
        except OSError as error:
            self._say(unit[0].join(unit[1]), error)
            return
        finally:
            os.close(inside)
        self._numbers[unit] = wd
        self._waiting[wd] = unit

    def stop_waiting(self, unit: Unit) -> None:
        """Wait for a unit's marker no longer."""
        wd = self._numbers.pop(unit, None)
        if wd is not None:
            del self._waiting[wd]
            self._instance.remove(wd)

    def _say(self, path: str, error: OSError | None) -> None:
        if error is not None and path not in self._troubled:
            self._troubled.add(path)
            self._listener.say(path, error)
        elif error is None and path in self._troubled:
            self._troubled.discard(path)
            self._listener.say(path, None)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_there(name: str, descriptor: int) -> bool:
    """Say whether a directory has an entry that is a directory."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode)
