"""When to scan: a catch-up now and then, polls, and what could not be watched."""

from __future__ import annotations

from typing import Any

from watchman.sources.base_source import BaseSource
from watchman.sources.tree import Root

RETRY_UNWATCHED = 30.0
"""Seconds between two scans of what cannot be watched."""
CHECK = 2.0
"""Seconds between two checks that each watch root is still the directory that is watched, and
that every part is alive; less where a watch is polled more often."""


class Schedule:
    """Queues the scans that are due. Times are seconds of a monotonic clock."""

    def __init__(self, source: BaseSource[Any]) -> None:
        self._source = source
        self._asked = False
        self._scanned: dict[Root, float] = {}
        self._polled: dict[Root, float] = {}
        self._retried = 0.0

    @property
    def pace(self) -> float:
        """Seconds between two checks."""
        polled = [root for root in self._source.roots if root.polled or root.remote]
        return min([CHECK, *(root.watch.interval for root in polled)])

    def ask(self) -> None:
        """Have everything scanned at the next check; may be called from a signal handler."""
        self._asked = True

    def begin(self, now: float) -> None:
        """Count from now on: everything has been scanned for the first time."""
        self._scanned = dict.fromkeys(self._source.roots, now)
        self._polled = dict(self._scanned)
        self._retried = now

    def add(self, root: Root, now: float) -> None:
        """Count for another root from now on."""
        self._scanned[root] = self._polled[root] = now

    def remove(self, root: Root) -> None:
        """Have nothing scanned there any more."""
        self._scanned.pop(root, None)
        self._polled.pop(root, None)

    def check(self, now: float, *, busy: bool, unwatched: bool) -> None:
        """Queue what is due. ``busy``: a scan is still under way; ``unwatched``: some are not."""
        asked, self._asked = self._asked, False
        for root, scanned in self._scanned.items():
            if asked or (root.watch.rescan and now >= scanned + root.watch.rescan):
                self._source.rescan(root)
                self._scanned[root] = now
            # The pause between two polls is that long at least, however long a poll takes.
            if busy:
                self._polled[root] = now
            elif (root.polled or root.remote) and now >= self._polled[root] + root.watch.interval:
                self._source.poll(root)
                self._polled[root] = now
        if busy or not unwatched:
            self._retried = now
        elif now >= self._retried + RETRY_UNWATCHED:
            self._source.retry_unwatched()
            self._retried = now
