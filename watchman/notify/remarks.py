"""What is said once for each watch: files that cannot be judged by the lease, or not at all."""

from __future__ import annotations

import logging

from watchman.arrivals import UNTESTED_SETTLE
from watchman.filesystem import PATH_MAX
from watchman.sources.nodes import Root
from watchman.text import printable

log = logging.getLogger("watchman.notify")


class Remarks:
    """Remembers what has been said."""

    def __init__(self) -> None:
        self._said: set[tuple[Root, str]] = set()

    def _is_new(self, root: Root, subject: str) -> bool:
        new = (root, subject) not in self._said
        self._said.add((root, subject))
        return new

    def untested(self, root: Root) -> None:
        """Say that the lease test cannot be made."""
        if not self._is_new(root, "lease"):
            return
        settle = root.watch.settle
        log.warning(
            "%s: whether a file is still open for writing cannot be told for all of them (a lease "
            "needs their owner, or CAP_LEASE); such a file counts as complete when its size and "
            "time have not changed for %g s; run watchman as the uploads' owner or as root",
            printable(root.watch.path),
            UNTESTED_SETTLE if settle is None else settle,
        )

    def too_long(self, root: Root, path: str) -> None:
        """Say that a file cannot be announced, because no program can open its path."""
        if not self._is_new(root, "path"):
            return
        log.warning(
            "%s: files whose paths are longer than %d bytes are not announced, because no program "
            "can open them by their path; the first begins with %s",
            printable(root.watch.path),
            PATH_MAX,
            printable(path[:200]),
        )
