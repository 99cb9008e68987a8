"""Takes over what a scout found ahead of the walk of a start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from watchman.sources.nodes import Node
from watchman.sources.scout import Report, Scout
from watchman.sources.watched import Watched

_PACE = 16
"""Directories that the walk visits between two looks at what the scout reports."""


class Vanguard:
    """What the walk sees of a scout. ``known(path)`` says whether anything was ever known there."""

    def __init__(self, scout: Scout, watched: Watched, known: Callable[[str], bool]) -> None:
        self._scout = scout
        self._watched = watched
        self._known = known
        self._visits = 0
        watched.doubtful = set()

    @property
    def busy(self) -> bool:
        """Whether something has not been reported yet."""
        return self._scout.busy

    def is_due(self) -> bool:
        """Say whether it is time to :meth:`go` on; to be asked at each directory."""
        self._visits += 1
        return self._visits % _PACE == 0

    def go(self, shelves: Sequence[deque[Node]], *, wait: bool) -> list[Node]:
        """Lend from ``shelves``; return the directories of the reports that must be visited.

        ``wait``: there is nothing else to do.
        """
        self._scout.lend(shelves)
        left: list[Node] = []
        for report in self._scout.reports(wait=wait):
            left += self._take_over(report)
        return left

    def dismiss(self) -> None:
        """End the scout."""
        self._scout.dismiss()
        self._watched.doubtful = None

    def _take_over(self, report: Report) -> list[Node]:
        if not report.sights:
            return report.lent
        lent = {node.name: node for node in report.lent}
        directory = report.lent[0].parent
        assert directory is not None
        prefix = directory.path.rstrip("/")
        adopt, known = self._watched.adopt, self._known
        left: list[Node] = []
        # For each sight: its node and path, where those below it are to be taken over.
        taken: list[tuple[Node, str] | None] = []
        for position, name, wd, done in report.sights:
            taken.append(None)
            if position < 0:
                node, path = lent[name], f"{prefix}/{name}"
                gone = node.is_left
            else:
                above = taken[position]
                gone = above is None
                if above is not None:
                    node, path = above[0].child(name) or above[0].add(name), f"{above[1]}/{name}"
            if gone:
                self._watched.unclaim(wd)
            elif adopt(node, wd) and done and not known(path):
                node.listed = True
                taken[-1] = (node, path)
            else:
                left.append(node)
        return left
