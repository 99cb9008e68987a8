"""Files about which events that are still unread may tell more than a look at them."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from watchman.file_access import Look, Seen
from watchman.identity import is_same_content
from watchman.model import Version
from watchman.sources.source import CONTENT, Hints, Source
from watchman.sources.tree import Node

CONFIRMED = 1 << 16
"""A bit that the kernel's masks do not use: no event that is still unread can tell more."""

Key = tuple[Node, str]
T = TypeVar("T")


class PendingEvents(Generic[T]):
    """Keeps files from the look at them until every event of before that look has become a hint.

    A file that was free when it was looked at had been closed before, so the ``IN_CLOSE_WRITE`` of
    a write to it is in the queue by then. If it comes, it decides, and the file is dropped here; if
    the queue has been read up to the look without it, there was none, and the file is settled.
    After an overflow events are missing: all are dropped, since the scan that follows decides.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._groups: collections.deque[tuple[int, dict[Key, T]]] = collections.deque()
        """(:meth:`Source.mark` after the look, files): settled when as much has been parsed."""
        self._overflows = source.overflows

    def __contains__(self, key: object) -> bool:
        return any(key in group for _, group in self._groups)

    def add(self, items: Mapping[Key, T]) -> None:
        """Take over files that have just been looked at: no event of before is behind the mark."""
        self._groups.append((self._source.mark(), dict(items)))

    def sort_out(self, hints: Hints) -> None:
        """Drop the files that these hints decide about; to be called with all hints, and first."""
        if self._overflows != self._source.overflows:
            self._overflows = self._source.overflows
            self._groups.clear()
        for _, group in self._groups:
            for key in [key for key in group if hints.get(key, 0) & CONTENT]:
                del group[key]

    def settled(self) -> Iterator[dict[Key, T]]:
        """Yield files of which no event can tell more, in the order in which they were added."""
        while self._groups and self._groups[0][0] <= self._source.parsed:
            _, group = self._groups.popleft()
            if group:
                yield group


class EarlyFiles(PendingEvents[Version]):
    """Files that were complete in a version before an event had said so."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._confirmed: dict[Key, Version] = {}

    def confirm(self, hints: Hints) -> None:
        """Add those to the hints of which no event can tell more; to be handled at once."""
        self._confirmed.clear()
        for group in self.settled():
            self._confirmed |= group
            for key in group:
                hints[key] = hints.get(key, 0) | CONFIRMED

    def is_confirmed(self, key: Key, seen: Look) -> bool:
        """Say whether a file is as it was when it was complete.

        It need not settle once more: where others are written all the time, it never would.
        """
        version = self._confirmed.get(key)
        if version is None or seen.version is None or seen.seen is Seen.BUSY:
            return False
        return is_same_content(version, seen.version)
