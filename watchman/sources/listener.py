"""Who is told what cannot be watched, by whatever follows directories."""

from __future__ import annotations

from typing import Protocol


class UnwatchedListener(Protocol):
    """Told of each directory once, from the thread that follows it."""

    def say(self, path: str, error: OSError | None) -> None:
        """A directory is not watched, or not as it should be, and why; None: it is, again."""
        ...

    def left(self, path: str) -> None:
        """A directory of which something was said is not there any more."""
        ...
