"""Times at which to look at something again, by key."""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_FEW = 1000
"""So many entries more than there are keys may hold no more before they are dropped."""


class Timers(Generic[Key]):
    """Each key is due once, at the last time that was set for it. Any one clock will do."""

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        """With entries that do not hold any more, ``_FEW`` more than the others at the most."""
        self._ties = itertools.count()

    def set(self, key: Key, due: float) -> None:
        """Have a key due at ``due``, and at no other time."""
        if self._times.get(key) != due:
            self._times[key] = due
            heapq.heappush(self._heap, (due, next(self._ties), key))
            self._drop_what_is_over()

    def drop(self, key: Key) -> None:
        """Never come back to a key; it may have no time."""
        if self._times.pop(key, None) is not None:
            self._drop_what_is_over()

    def __contains__(self, key: Key) -> bool:
        return key in self._times

    def take(self, now: float, most: int = sys.maxsize) -> list[Key]:
        """Return up to ``most`` keys that are due, in their order; their times are forgotten."""
        keys: list[Key] = []
        while self._heap and self._heap[0][0] <= now and len(keys) < most:
            due, _, key = heapq.heappop(self._heap)
            if self._times.get(key) == due:
                del self._times[key]
                keys.append(key)
        return keys

    def next(self) -> float | None:
        """Return when the first key is due; None where there is none."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _drop_what_is_over(self) -> None:
        """Drop entries that do not hold: their times may be an hour ahead, and many a second."""
        if len(self._heap) > 2 * len(self._times) + _FEW:
            self._heap = [one for one in self._heap if self._times.get(one[2]) == one[0]]
            heapq.heapify(self._heap)
