"""The top directories of the watches: there, gone, another one, or with mounts inside."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from watchman import mounts
from watchman.model import Watch
from watchman.sources.nodes import Node, Reason, Root
from watchman.sources.tree import Tree


class Roots:
    """Compares the watches' roots with what is there.

    ``queue(node, reason)`` has a directory walked again; ``find(path)`` returns the node of one.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        tree: Tree,
        queue: Callable[[Node, Reason], None],
        find: Callable[[str], Node | None],
    ) -> None:
        self._tree = tree
        self._queue = queue
        self._find = find
        self.all = [Root(watch, polled=mounts.is_polled(watch)) for watch in watches]
        self._changes = mounts.Changes()
        table = mounts.mounts()
        for root in self.all:
            self._take_over(root, mounts.below(root.watch.path, table))

    def close(self) -> None:
        """Let go of what is held."""
        self._changes.close()

    def check(self) -> None:
        """Walk again every root that is not the directory that was watched.

        No event tells that something was mounted over a directory, or that a root that was
        missing is there.
        """
        if self._changes.any():
            self._follow_mounts()
        for root in self.all:
            try:
                status = os.stat(root.watch.path)
            except OSError as error:
                self._lose(root)
                self._tree.say(root.watch.path, error)
                continue
            if (status.st_dev, status.st_ino) != root.identity:
                self._lose(root)
                root.polled = mounts.is_polled(root.watch)
                self._queue(root, root.reason)
            elif root.wd < 0 and not root.polled and root.watch.path not in self._tree.troubled:
                self._queue(root, Reason.CATCH_UP)

    def _lose(self, root: Root) -> None:
        if root.identity is not None:
            root.identity = None
            self._tree.detach(root)

    def _follow_mounts(self) -> None:
        table = mounts.mounts()
        for root in self.all:
            now = mounts.below(root.watch.path, table)
            before = root.mounts
            self._take_over(root, now)
            for path in sorted(now.keys() | before.keys()):
                if now.get(path) == before.get(path):
                    continue
                node = self._find(path)
                if node is not None:
                    # What was seen below has not left: it is hidden, or can be seen again.
                    self._tree.detach(node)
                    self._queue(node, Reason.CATCH_UP)

    @staticmethod
    def _take_over(root: Root, below: dict[str, mounts.Mount]) -> None:
        root.mounts = dict(below)
        if root.watch.method == "auto":
            remote = [path for path, mount in below.items() if mounts.is_remote(mount.type)]
            root.remote = tuple(f"{path}/" for path in remote)
