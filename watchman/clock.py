"""Recorded times against the wall clock, which may have been set back since.

A time from the future tells nothing of how long ago something was: it may have been at any time.
What this process has begun itself is timed by a clock that nobody sets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

_STEP_NS = 500_000_000
"""What the clocks differ by more than this has been set; two looks are never at the same time."""


def latest(times_ns: Iterable[int], now_ns: int) -> int:
    """Return the last of some times, 0 being none; one from the future where there is no other."""
    times = [one for one in times_ns if one]
    return max((one for one in times if one <= now_ns), default=max(times, default=0))


def is_recent(time_ns: int, now_ns: int, seconds: float) -> bool:
    """Whether something was within the last ``seconds``, as far as its time tells."""
    return now_ns - int(seconds * 1e9) < time_ns <= now_ns


class Begun:
    """When something began, and how long it has lasted, whatever the wall clock is set to."""

    __slots__ = ("_monotonic", "ns")

    def __init__(self) -> None:
        self.ns = time.time_ns()
        """By the wall clock of then, as it is shown."""
        self._monotonic = time.monotonic()

    @property
    def seconds(self) -> float:
        """For how long it lasts."""
        return time.monotonic() - self._monotonic


class ClockSteps:
    """By how much the wall clock was set since this was made."""

    def __init__(self) -> None:
        self._begun_ns = _ahead_ns()
        self.ns = 0
        """As of the last look; negative where it was set back."""

    def look(self) -> int:
        """Return it as it is by now."""
        found = _ahead_ns() - self._begun_ns
        if abs(found - self.ns) > _STEP_NS:
            self.ns = found
        return self.ns


def _ahead_ns() -> int:
    # Not the monotonic clock: that stands still while the machine is suspended.
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
