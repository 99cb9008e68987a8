"""Directories that are kept open for a moment, because many files in them are looked at."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

LIFETIME = 0.1
"""Seconds after which directories are opened afresh: others may have taken their places."""
MOST = 200
"""Directories open at a time: descriptors are limited."""

Key = TypeVar("Key", bound=Hashable)


class DirectoryCache(Generic[Key]):
    """Directories by key. A context manager: all are closed at its end.

    ``open_(key)`` returns a descriptor, or a negative number that says why there is none.
    """

    def __init__(self, open_: Callable[[Key], int]) -> None:
        self._open_one = open_
        self._open: dict[Key, int] = {}
        self._since = 0.0

    def __enter__(self) -> DirectoryCache[Key]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all."""
        for descriptor in self._open.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()

    def renew(self) -> None:
        """Close all that may be out of date; to be called now and then."""
        now = time.monotonic()
        if now - self._since > LIFETIME:
            self.close()
            self._since = now

    def get(self, key: Key) -> int:
        """Return the descriptor of the directory ``key``. Raises what ``open`` raises."""
        found = self._open.get(key)
        if found is None:
            if len(self._open) >= MOST:
                self.close()
            found = self._open[key] = self._open_one(key)
        return found
