"""Times at which to look at something again, by key."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """Each key is due once, at the last time that was set for it. Any one clock will do."""

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        """With entries that do not hold any more: they are passed over when their time comes."""
        self._ties = itertools.count()

    def set(self, key: Key, due: float) -> None:
        """Have a key due at ``due``, and at no other time."""
        if self._times.get(key) != due:
            self._times[key] = due
            heapq.heappush(self._heap, (due, next(self._ties), key))

    def drop(self, key: Key) -> None:
        """Never come back to a key; it may have no time."""
        self._times.pop(key, None)

    def take(self, now: float) -> list[Key]:
        """Return the keys that are due, in their order; their times are forgotten."""
        keys = []
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._times.get(key) == due:
                del self._times[key]
                keys.append(key)
        return keys

    def next(self) -> float | None:
        """Return before which time :meth:`take` has nothing to return; None for ever."""
        return self._heap[0][0] if self._heap else None
