"""How many deliveries come and go a second, over the last minute, from counters that only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

WINDOW = 60.0
"""Seconds over which a rate is told."""
_PACE = 2.0
"""Seconds between two samples: so many of them are kept that they cover the window."""


class Rates:
    """Counters by name as they were during the last minute. Used from one thread.

    The times are of the monotonic clock.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=int(WINDOW / _PACE) + 1)

    def sample(self, now: float, totals: Mapping[str, int]) -> None:
        """Keep the counters as they are now, unless that was done a moment ago."""
        if not self._samples or now - self._samples[-1][0] >= _PACE:
            self._samples.append((now, dict(totals)))

    def per_second(self, now: float, totals: Mapping[str, int]) -> dict[str, float]:
        """Return by how much each counter has grown in a second of the last minute.

        Shortly after the start it is that of the time since then.
        """
        since, before = next(
            (sample for sample in self._samples if now - sample[0] <= WINDOW), (now, {})
        )
        seconds = max(now - since, 1.0)
        return {name: (total - before.get(name, total)) / seconds for name, total in totals.items()}
