"""Since when each trouble lasts, across reloads: each pipeline finds its troubles anew."""

from __future__ import annotations

import time
from collections.abc import Mapping

KEEP = 120.0
"""Seconds from the beginning of a pipeline in which it may find a trouble of the one before."""


class Lasting:
    """What troubles there are, by what they are called. For the life of the process."""

    def __init__(self) -> None:
        self._last: Mapping[str, int] = {}
        self._before: dict[str, int] = {}
        self._until = 0.0

    def begin(self) -> None:
        """Begin a pipeline."""
        # One that ends before it has found all troubles passes on those that it was given.
        self._before |= self._last
        self._last = {}
        self._until = time.monotonic() + KEEP

    def settle(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """Return since when (ns since the epoch) each trouble found now lasts."""
        over = self._last.keys() - found.keys()
        if time.monotonic() > self._until:
            over |= self._before.keys() - found.keys()
        for name in over:
            self._before.pop(name, None)
        self._last = {
            name: min(since, self._before.get(name, since)) for name, since in found.items()
        }
        return self._last
