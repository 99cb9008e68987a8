"""Watches whose file system is not mounted any more.

What lies behind a mount point is a directory like any other, and is watched: nothing but the table
of mounts tells that it is not the one that was meant.
"""

from __future__ import annotations

from collections.abc import Iterable

from watchman import mounts
from watchman.model import Watch
from watchman.text import printable
from watchman.troubles import Troubles

_UNMOUNTED = "unmounted"
"""The kind of this trouble."""


class LostMounts:
    """Remembers what was mounted on the way to each watch, and says what is missing of it.

    ``seen`` has the mount points by path of the watch, as long as it is one: a reload forgets
    none, since it comes from logrotate too.
    """

    def __init__(self, seen: dict[str, set[str]], troubles: Troubles) -> None:
        self._seen = seen
        self._troubles = troubles
        self._changes = mounts.Changes()
        self._looked_at: set[str] = set()

    def close(self) -> None:
        """Let go of what is held."""
        self._changes.close()

    def check(self, watches: Iterable[Watch]) -> None:
        """Look at the table of mounts, if it has changed, or at new watches."""
        paths = {watch.path for watch in watches}
        if not self._changes.any() and paths == self._looked_at:
            return
        for path in self._looked_at - paths:  # it matched a pattern, and is gone
            self._seen.pop(path, None)
            self._troubles.end(path, _UNMOUNTED)
        self._looked_at = paths
        table = mounts.mounts()
        for path in paths:
            self._look(path, table)

    def _look(self, path: str, table: dict[str, mounts.Mount]) -> None:
        real = mounts.trace(path, table)[0]
        seen = self._seen.setdefault(path, set())
        seen.update(point for point in table if mounts.leads_to(point, real))
        missing = [point for point in seen if point not in table and mounts.leads_to(point, real)]
        if missing:
            why = (
                f"nothing is mounted at {printable(max(missing, key=len))} any more, and what is "
                "there now is watched; mount it again, or restart watchman if that is meant"
            )
            self._troubles.begin(path, why, _UNMOUNTED)
        else:
            self._troubles.end(path, _UNMOUNTED, line="%s: what was mounted there is back")
