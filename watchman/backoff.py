"""A delay that doubles after each failed attempt, up to a limit."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait between attempts. For one thread."""

    __slots__ = ("_first", "_jitter", "_longest", "delay")

    def __init__(self, first: float, longest: float, *, jitter: float = 0.0) -> None:
        """``jitter`` is the share of a delay that may be left out, from 0 to 1.

        With it, those who failed at the same moment do not all come back at the same moment.
        """
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.delay = 0.0
        """The delay after the last failure, without jitter; 0 after :meth:`reset`."""

    def next(self) -> float:
        """Take note of a failure; return the seconds until the next attempt."""
        self.delay = min(self.delay * 2 or self._first, self._longest)
        return self.pause()

    def pause(self) -> float:
        """Return the seconds of the current delay, with its jitter."""
        return self.delay * random.uniform(1.0 - self._jitter, 1.0)  # noqa: S311 — no secret

    def reset(self) -> None:
        """Take note of a success: the next delay is the first again."""
        self.delay = 0.0
