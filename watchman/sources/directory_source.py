"""Hints for watches for whole directories.

What is announced as a whole is called a unit, and the directory that it is in a container: the
watch's own path and, with ``rec``, whatever below it is entered because it is no unit itself. The
tree has containers alone. They are few and flat, so one that is renamed is let go and found again
under its new name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from watchman import coverage
from watchman.file_access import DIRECTORY_FLAGS, GONE_ERRNOS
from watchman.model import Watch
from watchman.sources import instance as ev
from watchman.sources.at_start import Starts
from watchman.sources.base_source import BaseSource
from watchman.sources.listener import UnwatchedListener
from watchman.sources.tree import Node, Reason
from watchman.sources.watch_table import WatchTable

_LEFT = ev.IN_MOVED_FROM | ev.IN_DELETE
_LOST = ev.IN_DELETE_SELF | ev.IN_MOVE_SELF | ev.IN_IGNORED
_MASK = ev.IN_CREATE | ev.IN_MOVED_TO | _LEFT | ev.IN_DELETE_SELF | ev.IN_MOVE_SELF | ev.IN_ONLYDIR
_INSIDE = ev.IN_CREATE | ev.IN_MOVED_TO | ev.IN_CLOSE_WRITE | ev.IN_ONLYDIR

CREATED, MOVED, MARKED, LEFT = "CREATE", "MOVEDTO", "MARKER", ""
"""What a hint comes from."""
UNASKED = "UNASKED"
"""An event that the watch's own mask leaves out."""

Unit = tuple[Node, str]
"""(container, name)"""


class Hint(NamedTuple):
    """Something may have happened to a directory."""

    container: Node
    name: str
    event: str
    closed: bool = False
    """The marker in it was closed after writing, or came here with its content."""


class _UnitTable(WatchTable):
    """Watches of containers, and of the units in them whose marker is waited for."""

    def __init__(self, instance: ev.Instance, mask: int) -> None:
        super().__init__(instance, mask)
        self.waiting: dict[int, Unit] = {}
        """By the number of their own watch: the last name under which a directory was found."""
        self._numbers: dict[Node, dict[str, int]] = {}
        """Which watch each has: by container and name."""

    def detach(self, node: Node) -> None:
        """Watch a container no longer, nor any unit in it."""
        super().detach(node)
        for name in list(self._numbers.get(node, ())):
            self.detach_unit((node, name))

    def attach_unit(self, unit: Unit, descriptor: int) -> None:
        """Watch a unit; ``descriptor`` is its container's. Raises OSError."""
        container, name = unit
        if container.root.polled:
            return
        try:
            inside = os.open(name, DIRECTORY_FLAGS, dir_fd=descriptor)
        except OSError as error:
            if error.errno in GONE_ERRNOS:
                return  # its event follows
            raise
        try:
            # The inner watch of another configured path may be the same one of the kernel's.
            wd = self.instance.add(inside, _INSIDE | ev.IN_MASK_ADD)
        finally:
            os.close(inside)
        if self._numbers.get(container, {}).get(name) != wd:
            self.detach_unit(unit)  # it was another directory of that name
            self._numbers.setdefault(container, {})[name] = wd
        self.waiting[wd] = unit

    def detach_unit(self, unit: Unit) -> None:
        """Watch a unit no longer, if it is."""
        container, name = unit
        numbers = self._numbers.get(container, {})
        wd = numbers.pop(name, None)
        if wd is None:
            return
        if not numbers:
            del self._numbers[container]
        if self.waiting.get(wd) == unit:  # else that directory has another name by now
            del self.waiting[wd]
            self._end(wd)

    def _end(self, wd: int) -> None:
        """End a watch, unless it stands for a container or a unit as well."""
        if not (wd in self.nodes or wd in self.waiting):
            super()._end(wd)

    def count_units(self, watch: Watch) -> int:
        """Return how many units of a watch are watched; from any thread."""
        numbers = list(self._numbers.items())
        return sum(len(names) for node, names in numbers if node.root.watch is watch)


class DirectorySource(BaseSource[list[Hint]]):
    """Containers and their hints. Used from one thread, but for :meth:`wake` and :meth:`covers`.

    Raises SourceError.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        rules: coverage.Rules,
        listener: UnwatchedListener,
        starts: Starts,
    ) -> None:
        self._units = _UnitTable(ev.Instance(), _MASK | ev.IN_MASK_ADD)
        super().__init__(watches, rules, listener, starts, self._units)
        self._without_watch: dict[Unit, None] = {}
        """Units whose marker is waited for, and no event will tell of."""

    def covers(self, watch: Watch) -> int:
        """Return how many directories it watches, those that wait for a marker included."""
        return super().covers(watch) + self._units.count_units(watch)

    def wait(self, timeout: float | None) -> list[Hint]:
        """Return the hints so far, waiting up to ``timeout`` seconds for the first event."""
        return self._hints(self._instance.take(timeout))

    def drain(self) -> list[Hint]:
        """Return the hints of every event that happened before this call."""
        return self._hints(self._instance.drain())

    def _hints(self, events: Sequence[ev.Raw]) -> list[Hint]:
        hints: list[Hint] = []
        for event in events:
            self._handle(event, hints)
        # What the walks found needs no other look: an event tells of each container that leaves.
        self._units.take_conflicts()
        self._walker.vanished.clear()
        if self._roots_changed:
            self.check_roots()
        return hints

    def _handle(self, event: ev.Raw, hints: list[Hint]) -> None:
        container = self._units.nodes.get(event.wd)
        if event.mask & ev.IN_Q_OVERFLOW:
            self._overflowed()
            return
        # A directory can be both: a unit of one watch, and the path of another.
        unit = self._units.waiting.get(event.wd)
        if unit is not None:
            if event.mask & ev.IN_IGNORED:
                self._units.detach_unit(unit)
            elif event.name == unit[0].root.watch.marker:
                closed = not event.mask & ev.IN_CREATE
                hints.append(Hint(*unit, MARKED, closed=closed))
        if container is not None:
            self._roots_changed |= container.parent is None and bool(event.mask & _LOST)
            if event.mask & ev.IN_IGNORED:
                self._units.dropped(event.wd)
            elif event.mask & ev.IN_ISDIR and event.name:
                self._heard(container, event, hints)

    def _heard(self, container: Node, event: ev.Raw, hints: list[Hint]) -> None:
        if event.mask & _LEFT:
            child = container.child(event.name)
            if child is not None:
                self._walker.remove(child)
            hints.append(Hint(container, event.name, LEFT))
            return
        kind = CREATED if event.mask & ev.IN_CREATE else MOVED
        closed = kind == MOVED
        if not coverage.asks_for(container.root.watch, event.mask):
            kind = UNASKED
        hints.append(Hint(container, event.name, kind, closed=closed))

    def enter(self, parent: Node, name: str, reason: Reason) -> None:
        """Have the directory ``name`` walked as a container, unless it waits for that already."""
        child = parent.child(name)
        if child is None:
            child = parent.add(name)
        elif not child.listed:
            return
        self._walks.add(child, reason)

    def retry_unwatched(self) -> None:
        """Queue a catch-up of what is not watched as it should be, and of what units are in."""
        super().retry_unwatched()
        for container, _ in self._without_watch:
            self._walks.add(container, Reason.CATCH_UP)

    def wait_for_marker(self, unit: Unit, descriptor: int) -> None:
        """Give a hint when the marker comes into a unit; ``descriptor`` is its container's."""
        try:
            self._units.attach_unit(unit, descriptor)
        except OSError as error:
            self._without_watch[unit] = None
            self._walker.say(unit[0].join(unit[1]), error)
        else:
            self._end_trouble(unit)

    def stop_waiting(self, unit: Unit) -> None:
        """Wait for a unit's marker no longer."""
        self._units.detach_unit(unit)
        self._end_trouble(unit)

    def _end_trouble(self, unit: Unit) -> None:
        if unit in self._without_watch:
            del self._without_watch[unit]
            self._walker.say(unit[0].join(unit[1]), None)
