"""Which directory each of the kernel's watches stands for."""

from __future__ import annotations

from watchman.sources.instance import Instance
from watchman.sources.tree import Node


class WatchTable:
    """Directories by the number of their watch, for one inotify instance. Used from one thread."""

    def __init__(self, instance: Instance, mask: int) -> None:
        self.instance = instance
        self._mask = mask
        self.nodes: dict[int, Node] = {}
        self.doubtful: set[int] | None = None
        """While there is a prescan: watches of which its results are not to be believed.

        They were ended meanwhile, or an event came for them before the result did. None else."""
        self.conflicts: list[tuple[Node, Node]] = []
        """(before, now): two nodes for one directory; the first lost its watch to the second."""

    def attach(self, node: Node, descriptor: int) -> None:
        """Watch a directory that is open as ``descriptor``. Raises OSError."""
        if node.root.polled:
            return
        wd = self.instance.add(descriptor, self._mask)
        if node.wd != wd:
            self.detach(node)
            before = self.nodes.get(wd)
            if before is not None:
                # The kernel has one watch for a directory, and two walks found it under two names.
                # The later one gets it, until events or a look tell (sources/renames.py).
                before.wd = -1
                self.conflicts.append((before, node))
            node.wd = wd
            self.nodes[wd] = node

    def detach(self, node: Node) -> None:
        """Watch a directory no longer."""
        if node.wd >= 0:
            if self.nodes.get(node.wd) is node:
                del self.nodes[node.wd]
            self._end(node.wd)
            node.wd = -1

    def dropped(self, wd: int) -> None:
        """Note that the kernel has ended a watch."""
        self.doubt(wd)
        node = self.nodes.pop(wd)
        # It may have another watch by now, or none.
        if node.wd == wd:
            node.wd = -1

    def take_conflicts(self) -> list[tuple[Node, Node]]:
        """Return the conflicts since the last call."""
        conflicts, self.conflicts = self.conflicts, []
        return conflicts

    def doubt(self, wd: int) -> None:
        """Believe no result of the prescan about a watch any more."""
        if self.doubtful is not None:
            self.doubtful.add(wd)

    def adopt(self, node: Node, wd: int) -> bool:
        """Have a watch of the prescan's stand for a directory; say whether it is certain to do so.

        It is not where the number has been met since: as the watch of another directory, in an
        event that was read before the result, or ended.
        """
        if wd < 0 or node.wd >= 0 or wd in self.nodes or wd in (self.doubtful or ()):
            return False
        node.wd = wd
        self.nodes[wd] = node
        return True

    def unclaim(self, wd: int) -> None:
        """End a watch of the prescan's whose directory has left the tree meanwhile."""
        if wd >= 0 and wd not in self.nodes:
            self._end(wd)

    def _end(self, wd: int) -> None:
        # The prescan may have seen it before: its result would tell of a watch that is none.
        self.doubt(wd)
        self.instance.remove(wd)
