"""The top directories of the watches: there, gone, another one, or with mounts inside."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from watchman import mounts
from watchman.file_access import LATER_ERRNOS, status_of_watch
from watchman.model import Method, Watch
from watchman.sources.at_start import Starts
from watchman.sources.tree import Node, Reason, Root
from watchman.sources.walk import Walker, Walks

_NOT_RETRIED = frozenset({errno.ENOSPC, errno.ENAMETOOLONG})
"""Troubles of single directories that a walk of each would not heal.

ENOSPC, no more watches: it concerns every directory without a watch, and these are walked together.
ENAMETOOLONG: a directory has the same path until it is moved, of which events tell.
"""


class Roots:
    """Compares the directories that are watched as roots with what is at their paths."""

    def __init__(
        self, watches: Sequence[Watch], walker: Walker, walks: Walks, starts: Starts
    ) -> None:
        self._walker = walker
        self._walks = walks
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
        self._walker.roots = self.all
        return root

    def remove(self, watch: Watch) -> list[Root]:
        """Let go of a watch; what is queued for its root comes to nothing."""
        left = [root for root in self.all if root.watch.path == watch.path]
        # Another list: other threads may be reading this one.
        self.all = self._walker.roots = [root for root in self.all if root not in left]
        for root in left:
            root.is_given_up = True
            root.identity = None
            self._walker.detach(root)
        return left

    def find(self, path: str) -> Node | None:
        """Return the watched directory at ``path``."""
        for root in self.all:
            if path == root.watch.path:
                return root
            if path.startswith(root.watch.prefix):
                node: Node | None = root
                for name in path[len(root.watch.prefix) :].split("/"):
                    node = node and node.child(name)
                if node is not None:
                    return node
        return None

    def check(self) -> None:
        """Walk again every root that is not the directory that was watched.

        No event tells that something was mounted over a directory, or that a root that was
        missing is there.
        """
        # First: what was mounted below changes which directories are to be listed.
        if self._changes.any():
            self._follow_mounts()
        for root in self.all:
            try:
                status = status_of_watch(root.watch)
            except OSError as error:
                if error.errno in LATER_ERRNOS:
                    continue  # what matches a pattern takes a descriptor: unknown is not gone
                self._lose(root)
                if not root.just_gone.may_be_given_up(error):
                    self._walker.say(root.watch.path, error)
                continue
            root.just_gone.is_there()
            if root.missed or (status.st_dev, status.st_ino) != root.identity:
                root.missed = False
                self._lose(root)
                root.polled = mounts.is_polled(root.watch)
                self._walks.add(root, root.reason)
            elif root.wd < 0 and not root.polled and root.watch.path not in self._walker.troubled:
                self._walks.add(root, Reason.CATCH_UP)

    def poll(self, root: Root) -> None:
        """Queue a catch-up of what can change in a watch without an event."""
        if root.polled:
            self._walks.add(root, Reason.CATCH_UP)
            return
        for path in root.remote:
            node = self.find(path.rstrip("/"))
            if node is not None:
                self._walks.add(node, Reason.CATCH_UP)

    def retry_unwatched(self) -> None:
        """Queue a catch-up of the directories that are not watched as they should be."""
        troubled = self._walker.troubled
        for path in [path for path, number in troubled.items() if number not in _NOT_RETRIED]:
            node = self.find(path)
            if node is not None and node.root.identity is not None:
                self._walks.add(node, Reason.CATCH_UP)
        if errno.ENOSPC not in troubled.values():
            return
        # From the top, and no further than the first without a watch: its walk goes to the bottom.
        pending: list[Node] = [r for r in self.all if not r.polled and r.identity is not None]
        while pending:
            node = pending.pop()
            if node.wd < 0:
                self._walks.add(node, Reason.CATCH_UP)
            else:
                pending.extend((node.children or {}).values())

    def _lose(self, root: Root) -> None:
        """Let go of a directory that is not at the path of the watch any more."""
        if root.identity is not None:
            root.identity = None
            self._walker.detach(root)

    def _follow_mounts(self) -> None:
        table = mounts.mounts()
        for root in self.all:
            now = mounts.below(root.watch.path, table)
            before = root.mounts
            self._take_over(root, now)
            for path in sorted(now.keys() | before.keys()):
                if now.get(path) == before.get(path):
                    continue
                node = self.find(path)
                if node is not None:
                    # What was seen below has not left: it is hidden, or can be seen again.
                    self._walker.detach(node)
                    self._walks.add(node, Reason.CATCH_UP)

    @staticmethod
    def _take_over(root: Root, below: dict[str, mounts.Mount]) -> None:
        root.mounts = dict(below)
        if root.watch.method is Method.AUTO:
            remote = [path for path, mount in below.items() if mounts.is_remote(mount.type)]
            root.remote = tuple(f"{path}/" for path in remote)
