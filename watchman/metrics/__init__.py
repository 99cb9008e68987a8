"""Watchman in numbers, and whether it is well: for Prometheus, Nagios and their like.

What is asked here is asked again every few seconds, maybe by several, so nothing of it grows with
the history or with what waits. ``facts`` has what is so at the moment; the others are made of it.
"""

from watchman.metrics.exposition import CONTENT_TYPE, exposition
from watchman.metrics.facts import Facts, of_now
from watchman.metrics.health import MAX_AGE, Health, Level, health, judge

__all__ = [
    "CONTENT_TYPE",
    "MAX_AGE",
    "Facts",
    "Health",
    "Level",
    "exposition",
    "health",
    "judge",
    "of_now",
]
