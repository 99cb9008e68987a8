"""Recorded times against the wall clock, which may have been set back since.

A time from the future tells nothing of how long ago something was: it may have been at any time.
"""

from __future__ import annotations

from collections.abc import Iterable


def latest(times_ns: Iterable[int], now_ns: int) -> int:
    """Return the last of some times, 0 being none; one from the future where there is no other."""
    times = [one for one in times_ns if one]
    return max((one for one in times if one <= now_ns), default=max(times, default=0))


def is_recent(time_ns: int, now_ns: int, seconds: float) -> bool:
    """Whether something was within the last ``seconds``, as far as its time tells."""
    return now_ns - int(seconds * 1e9) < time_ns <= now_ns
