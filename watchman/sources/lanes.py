"""Walks that are waiting for their turn."""

from __future__ import annotations

from collections.abc import Generator

from watchman.sources.nodes import Listing, Node, Reason
from watchman.sources.tree import Tree


class Lane:
    """Directories to walk, one walk after the other."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._jobs: dict[tuple[Node, Reason], None] = {}
        self._walk: Generator[Listing, None, None] | None = None

    def __bool__(self) -> bool:
        return self._walk is not None or bool(self._jobs)

    def add(self, node: Node, reason: Reason) -> None:
        """Queue a walk, unless the same one is queued already."""
        self._jobs[node, reason] = None

    def next(self) -> Listing | None:
        """Return the next listing; None if there is nothing left to walk."""
        while self:
            if self._walk is None:
                job = next(iter(self._jobs))
                del self._jobs[job]
                self._walk = self._tree.walk(*job)
            listing = next(self._walk, None)
            if listing is not None:
                return listing
            self._walk = None
        return None

    def close(self) -> None:
        """End the walk that is under way."""
        if self._walk is not None:
            self._walk.close()
