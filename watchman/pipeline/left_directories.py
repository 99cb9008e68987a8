"""Directories that left their name: what is known in them is forgotten, unless they come back.

One that is renamed there and back holds what was announced, with the same ctimes; what is made anew
under its name has others.
"""

from __future__ import annotations

import time

from watchman.journal import Journal
from watchman.sources.source import Source

LEFT = 30.0
"""Seconds for which a directory that left may come back as it was, and its files are known."""


class LeftDirectories:
    """Forgets a piece at a time. Used from the thread of the source."""

    def __init__(self, journal: Journal, source: Source) -> None:
        self._journal = journal
        self._source = source
        self._due: dict[str, float] = {}
        """By path: when what is known there is to be forgotten, the soonest first."""
        self._forgetting: list[str] = []
        """Those that did not come back, and in which something may be known."""

    def step(self) -> bool:
        """Forget some of what is due; True if directories have left since the last call."""
        now = time.monotonic()
        vanished = self._source.vanished()
        for path in vanished:
            # Behind the others: one that leaves time and again is not to keep them from their time.
            self._due.pop(path, None)
            self._due[path] = now + LEFT
        if self._due and next(iter(self._due.values())) <= now:
            self._give_up(now)
        if self._forgetting:
            self._forget_some()
        return bool(vanished)

    def close(self) -> None:
        """Forget all that is not there now."""
        self._give_up(float("inf"))
        while self._forgetting:
            self._forget_some()

    def _give_up(self, now: float) -> None:
        due = [path for path, time in self._due.items() if time <= now]
        for path in due:
            del self._due[path]
        self._forgetting += due

    def _forget_some(self) -> None:
        # What is there again is listed, and held against what is known, like any directory.
        gone = [path for path in self._forgetting if self._source.find(path) is None]
        self._forgetting = self._journal.known.forget_below(*gone)
