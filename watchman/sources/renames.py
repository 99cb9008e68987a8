"""Directories of which events alone do not tell where they are: settled by a look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from watchman.sources.tree import Node, Reason
from watchman.sources.walk import Walker, Walks
from watchman.sources.watch_table import WatchTable


class Renames:
    """Renames, exchanges and changes of permissions, from the events of one batch to the next."""

    def __init__(self, walker: Walker, watch_table: WatchTable, walks: Walks) -> None:
        self._walker = walker
        self._watch_table = watch_table
        self._walks = walks
        self.moved_from: dict[Node, None] = {}
        """Directories that left their names (IN_MOVED_FROM). A dict for a set that keeps its order.

        One that comes to another name within the watch is taken out before the batch ends."""
        self.attrib_changed: dict[Node, None] = {}
        """Directories that were given other permissions or times (IN_ATTRIB)."""
        self._unheard: deque[tuple[int, Collection[Node]]] = deque()
        """(mark, directories): what walks found gone before its events were read.

        When as many bytes as the mark are parsed, the events have told where they went."""

    def await_events(self, mark: Callable[[], int]) -> None:
        """Have :meth:`settle` wait for the events of what the walks so far found gone.

        To be called before a batch is taken, which may have them already.
        """
        if self._walker.unheard:
            self._unheard.append((mark(), self._walker.unheard))
            self._walker.unheard = {}

    def settle(self, parsed: int) -> None:
        """Look at all of them; to be called when a batch has become hints.

        ``parsed``: bytes of events that have become hints since the start.
        """
        # First what moved: what has left the tree by then needs no other look.
        if self.moved_from:
            self._settle_moved()
        while self._unheard and self._unheard[0][0] <= parsed:
            for node in self._unheard.popleft()[1]:
                if not (node.is_left or node.is_there()):
                    self._walker.remove(node)
        if self._watch_table.conflicts:
            self._settle_conflicts()
        if self.attrib_changed:
            self._inspect_changed()

    def _settle_moved(self) -> None:
        """Forget the directories that left and did not come back under another name."""
        for child in self.moved_from:
            if child.is_left:
                self._walker.detach(child)
            elif child.is_there():
                # Of two that are exchanged, the second leaves after the first has come to its
                # place (renameat2(2)).
                self._walks.add(child, Reason.NEW)
            else:
                self._walker.remove(child)
        self.moved_from.clear()

    def _settle_conflicts(self) -> None:
        """Find out which of two names a directory has that two walks found.

        A walk that is inside a directory when that is renamed goes on under the old name. If it
        comes after the walk that has found the new name, it takes the watch from where it belongs.
        """
        queued: set[Node] = set()
        for before, now in self._watch_table.take_conflicts():
            if before.is_left or before.wd >= 0 or not queued.isdisjoint(before.above()):
                continue
            found = before.found_there()
            # One that is mounted in two places is watched in the last one.
            if found is not None and found != now.found_there():
                queued.add(before)
                self._walks.add(before, Reason.NEW)

    def _inspect_changed(self) -> None:
        """Walk what can be read again, and say what can not."""
        for node in self.attrib_changed:
            if node.is_left or not self._walker.inspect(node):
                continue
            if self._walker.has_trouble(node.path):
                self._walks.add(node, Reason.READABLE)
        self.attrib_changed.clear()
