"""What a batch of events leaves to be found out by a look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from watchman.sources.nodes import Node, Reason
from watchman.sources.tree import Tree
from watchman.sources.watched import Watched


class Aftermath:
    """Directories of which the events of one batch do not tell enough.

    ``queue(node, reason)`` has a directory walked again.
    """

    def __init__(self, tree: Tree, watched: Watched, queue: Callable[[Node, Reason], None]) -> None:
        self._tree = tree
        self._watched = watched
        self._queue = queue
        self.leaving: dict[Node, None] = {}
        """Those that were renamed, until it is known where to."""
        self.altered: dict[Node, None] = {}
        """Those that were given other permissions, or other times."""
        self._unheard: deque[tuple[int, Collection[Node]]] = deque()
        """(mark, directories): what walks found gone; by that mark their events are parsed."""

    def await_events(self, mark: Callable[[], int]) -> None:
        """Wait for the events of what the walks so far found gone; to be called before a batch."""
        if self._tree.unheard:
            self._unheard.append((mark(), self._tree.unheard))
            self._tree.unheard = {}

    def settle(self, parsed: int) -> None:
        """Look at all of them; to be called when the events of a batch are ``parsed``."""
        if self.leaving:
            self._let_go()
        while self._unheard and self._unheard[0][0] <= parsed:
            for node in self._unheard.popleft()[1]:
                if not (node.is_left or node.is_there()):
                    self._tree.remove(node)
        if self._watched.contests:
            self._settle_contests()
        if self.altered:
            self._inspect_altered()

    def _let_go(self) -> None:
        """Forget the directories that left and did not come back under another name."""
        for child in self.leaving:
            if child.is_left:
                self._tree.detach(child)
            elif child.is_there():
                # Of two that are exchanged, the second leaves after the first has come to its
                # place (renameat2(2)).
                self._queue(child, Reason.NEW)
            else:
                self._tree.remove(child)
        self.leaving.clear()

    def _settle_contests(self) -> None:
        """Walk again what lost its watch to another path, unless that is where it is now.

        A walk that is inside a directory when that is renamed goes on under the old name, and may
        come after the one that has found it under the new name.
        """
        queued: set[Node] = set()
        for before, now in self._watched.take_contests():
            if before.is_left or before.wd >= 0 or not queued.isdisjoint(before.above()):
                continue
            found = before.found_there()
            # One that is mounted in two places is watched in the last one.
            if found is not None and found != now.found_there():
                queued.add(before)
                self._queue(before, Reason.NEW)

    def _inspect_altered(self) -> None:
        for node in self.altered:
            if not node.is_left and self._tree.inspect(node) and self._tree.has_trouble(node.path):
                self._queue(node, Reason.READABLE)
        self.altered.clear()
