"""What was there before watchman looked: is it an arrival, or only noted (``existing``)?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from watchman.journal import Journal
from watchman.journal.runs import run_of
from watchman.model import Existing, Watch
from watchman.sources.tree import Reason

CLOCK_GRAIN_NS = 10_000_000
"""A ctime comes from the kernel's coarse clock, up to 10 ms behind (CONFIG_HZ=100)."""


class FirstRuns:
    """The watches of one loop of which no run has seen all that was there before it.

    When a first run began is on disk when this has been made: one that is killed before its scan
    is over does not make old what came in between. ``resumed``: this process has watched before.
    """

    def __init__(self, journal: Journal, watches: Iterable[Watch], *, resumed: bool) -> None:
        self._journal = journal
        self._resumed = resumed
        self._started_ns = time.time_ns() - CLOCK_GRAIN_NS
        self._pending: set[str] = set()
        """The names of the runs."""
        self._begin(watches, self._started_ns)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._pending)

    def __contains__(self, watch: Watch) -> bool:
        return run_of(watch) in self._pending

    def begin(self, watches: Iterable[Watch]) -> None:
        """Begin those of these watches' first runs that are still to come."""
        self._begin(watches, time.time_ns() - CLOCK_GRAIN_NS)

    def before_ns(self, watch: Watch, directory: str, reason: Reason) -> float:
        """Return the time before which what changed last is no arrival, but only noted.

        ``reason`` is that of the walk: only at a start is anything old.

        It was there before the run that notes; -inf where nothing was: a time may be before 1970.
        What another watch had seen to the end is not there before: it came while nobody watched.
        """
        if reason is not Reason.START or watch.existing is Existing.ALL:
            return -math.inf
        before_ns = -math.inf
        if watch in self:
            before_ns = self._runs.before_ns(watch.kind, directory)
        if watch.existing is Existing.NONE and not (self._resumed and before_ns == -math.inf):
            return self._started_ns
        return before_ns

    def end(self, there: Iterable[Watch]) -> None:
        """Note that all that was in these watches before their first runs has been seen.

        A watch that is not there, say because it is not mounted yet, has its first run before it.
        """
        over = self._pending.intersection(map(run_of, there))
        if over:
            self._journal.note_first_run(over)
            self._pending -= over

    def _begin(self, watches: Iterable[Watch], now_ns: int) -> None:
        first = self._journal.first_runs(map(run_of, watches))
        self._journal.begin_first_runs(first, now_ns)
        self._pending |= first
        self._runs = self._journal.runs()
