"""The top directories of the watches: there, gone, another one, or with mounts inside."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from watchman import mounts
from watchman.model import Watch
from watchman.sources.at_start import Starts
from watchman.sources.nodes import Node, Reason, Root
from watchman.sources.tree import Tree

_NOT_RETRIED = frozenset({errno.ENOSPC, errno.ENAMETOOLONG})
"""One is for all directories without a watch; the other stays until they are moved."""


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
        starts: Starts,
    ) -> None:
        self._tree = tree
        self._queue = queue
        self._find = find
        self._starts = starts
        self.all: list[Root] = []
        self._changes = mounts.Changes()
        for watch in watches:
            self.add(watch)

    def close(self) -> None:
        """Let go of what is held."""
        self._changes.close()

    def add(self, watch: Watch) -> Root:
        """Take another watch; its root is to be queued."""
        root = Root(watch, self._starts.of(watch), polled=mounts.is_polled(watch))
        self._take_over(root, mounts.below(watch.path, mounts.mounts()))
        self.all.append(root)
        return root

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
            if root.missed or (status.st_dev, status.st_ino) != root.identity:
                root.missed = False
                self._lose(root)
                root.polled = mounts.is_polled(root.watch)
                self._queue(root, root.reason)
            elif root.wd < 0 and not root.polled and root.watch.path not in self._tree.troubled:
                self._queue(root, Reason.CATCH_UP)

    def poll(self, root: Root) -> None:
        """Queue a catch-up of what can change in a watch without an event."""
        if root.polled:
            self._queue(root, Reason.CATCH_UP)
            return
        for path in root.remote:
            node = self._find(path.rstrip("/"))
            if node is not None:
                self._queue(node, Reason.CATCH_UP)

    def retry_unwatched(self) -> None:
        """Queue a catch-up of the directories that are not watched as they should be."""
        troubled = self._tree.troubled
        for path in [path for path, number in troubled.items() if number not in _NOT_RETRIED]:
            node = self._find(path)
            if node is not None and node.root.identity is not None:
                self._queue(node, Reason.CATCH_UP)
        if errno.ENOSPC not in troubled.values():
            return
        # Below a directory without a watch everything is scanned with it.
        pending: list[Node] = [r for r in self.all if not r.polled and r.identity is not None]
        while pending:
            node = pending.pop()
            if node.wd < 0:
                self._queue(node, Reason.CATCH_UP)
            else:
                pending.extend((node.children or {}).values())

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
