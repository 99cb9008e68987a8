"""Which directory each of the kernel's watches stands for."""

from __future__ import annotations

from watchman.sources.kernel import Kernel
from watchman.sources.nodes import Node


class Watched:
    """Directories by the number of their watch, for one inotify instance."""

    def __init__(self, kernel: Kernel, mask: int) -> None:
        self._kernel = kernel
        self._mask = mask
        self.nodes: dict[int, Node] = {}
        self.doubtful: set[int] | None = None
        """While a scout is out, the watches that it may report and that are not what it saw: they
        were ended, or an event came when they stood for no directory. None while there is none."""

        self.contests: list[tuple[Node, Node]] = []
        """(before, now) for each watch that was taken over from a directory of another path."""

    def attach(self, node: Node, descriptor: int) -> None:
        """Watch a directory that is open as ``descriptor``. Raises OSError."""
        if node.root.polled:
            return
        wd = self._kernel.watch(descriptor, self._mask)
        if node.wd != wd:
            self.detach(node)
            before = self.nodes.get(wd)
            if before is not None:
                # The same directory under two names: which of them is the old one, events tell,
                # or a look (sources/aftermath.py).
                before.wd = -1
                self.contests.append((before, node))
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
        if node.wd == wd:
            node.wd = -1

    def take_contests(self) -> list[tuple[Node, Node]]:
        """Return the contests since the last call."""
        contests, self.contests = self.contests, []
        return contests

    def doubt(self, wd: int) -> None:
        """Believe no report about a watch any more."""
        if self.doubtful is not None:
            self.doubtful.add(wd)

    def adopt(self, node: Node, wd: int) -> bool:
        """Have a watch that a scout reports stand for a directory, if that is beyond doubt."""
        if wd < 0 or node.wd >= 0 or wd in self.nodes or wd in (self.doubtful or ()):
            return False
        node.wd = wd
        self.nodes[wd] = node
        return True

    def unclaim(self, wd: int) -> None:
        """End a watch that a scout reports, if it stands for no directory."""
        if wd >= 0 and wd not in self.nodes:
            self._end(wd)

    def _end(self, wd: int) -> None:
        self.doubt(wd)
        self._kernel.forget(wd)
