"""What was there before watchman looked: is it an arrival, or only noted (``existing``)?"""

from __future__ import annotations

import time
from collections.abc import Iterable

from watchman.journal import Journal
from watchman.model import Existing, Watch

CLOCK_GRAIN_NS = 10_000_000
"""A ctime comes from the kernel's coarse clock, up to 10 ms behind (CONFIG_HZ=100)."""


class FirstRuns:
    """The watches of one loop, by path, that no run has scanned to the end yet.

    When a first run began is on disk when this has been made: one that is killed before its scan
    is over does not make old what came in between.
    """

    def __init__(self, journal: Journal, paths: Iterable[str]) -> None:
        self._journal = journal
        self._started_ns = time.time_ns() - CLOCK_GRAIN_NS
        self._began_ns: dict[str, int] = {}
        """By path: when the first run began, maybe in an earlier process."""
        self._begin(paths, self._started_ns)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._began_ns)

    def __contains__(self, path: str) -> bool:
        return path in self._began_ns

    def begin(self, paths: Iterable[str]) -> None:
        """Begin those of these watches' first runs that are still to come."""
        self._begin(paths, time.time_ns() - CLOCK_GRAIN_NS)

    def is_only_noted(self, watch: Watch, changed_ns: int) -> bool:
        """Whether what changed last then is no arrival: it was there before the run that notes."""
        if watch.existing is Existing.ALL:
            return False
        if watch.existing is Existing.NONE:
            return changed_ns < self._started_ns
        began_ns = self._began_ns.get(watch.path)
        # Not 0 for a watch that has had its first run: a time may be before 1970.
        return began_ns is not None and changed_ns < began_ns

    def end(self, there: Iterable[str]) -> None:
        """Note that all that was in these watches before their first runs has been seen.

        A watch that is not there, say because it is not mounted yet, has its first run before it.
        """
        over = self._began_ns.keys() & there
        if over:
            self._journal.note_first_run(over)
            for path in over:
                del self._began_ns[path]

    def _begin(self, paths: Iterable[str], now_ns: int) -> None:
        first = self._journal.first_runs(paths)
        self._began_ns |= self._journal.begin_first_runs(first, now_ns)
