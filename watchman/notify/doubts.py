"""Files about which the events that are still unread may tell more than a look at them."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from watchman.sources.inotify import CONTENT, Hints, Source
from watchman.sources.nodes import Node

Key = tuple[Node, str]
T = TypeVar("T")


class Doubts(Generic[T]):
    """Holds what was seen of files until every event of that time has become a hint.

    A file that was free when it was looked at had been closed before, so that by then a write to
    it has shown as its ``IN_CLOSE_WRITE``, which decides. After an overflow nothing here holds:
    the scan that follows decides.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._groups: collections.deque[tuple[int, dict[Key, T]]] = collections.deque()
        self._overflows = source.overflows

    def __contains__(self, key: Key) -> bool:
        return any(key in group for _, group in self._groups)

    def add(self, items: Mapping[Key, T]) -> None:
        """Take over files that have just been looked at."""
        self._groups.append((self._source.mark(), dict(items)))

    def sort_out(self, hints: Hints) -> None:
        """Drop the files that the hints tell more about."""
        if self._overflows != self._source.overflows:
            self._overflows = self._source.overflows
            self._groups.clear()
        for _, group in self._groups:
            for key in [key for key in group if hints.get(key, 0) & CONTENT]:
                del group[key]

    def settled(self) -> Iterator[dict[Key, T]]:
        """Yield what is beyond doubt by now, in the order in which it was added."""
        while self._groups and self._groups[0][0] <= self._source.parsed:
            _, group = self._groups.popleft()
            if group:
                yield group
