"""Queues that take no tasks now, while their broker takes those for others: when to try each again.

A full queue, or one whose node is down, must hold up nobody else. Its deliveries stay in the
journal; here is only its name, so that memory does not grow with what waits.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

log = logging.getLogger("watchman.notify")

FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0
MOST = 1000
"""Queues in trouble at a time; with more than that the broker counts as being in trouble."""
_SHOWN = 20


@dataclass
class _Pause:
    """Why a queue takes nothing, and when it is tried again. Times by the monotonic clock."""

    reason: str
    since_ns: int
    first: int
    """The seq of the first delivery that waits for it."""
    delay: float
    due: float


class Targets:
    """The queues and exchanges in trouble of one broker, by the names that its publisher gives."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._paused: dict[str, _Pause] = {}
        self._trying: set[str] = set()
        self._balked: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._paused)

    def begin(self, now: float) -> bool:
        """Begin a pass: those whose pause is over are tried. True if there are any."""
        self._trying = {name for name, pause in self._paused.items() if pause.due <= now}
        self._balked = set()
        return bool(self._trying)

    @property
    def held(self) -> frozenset[str]:
        """Those for which nothing is to be sent now."""
        return frozenset(self._paused.keys() - self._trying)

    @property
    def first(self) -> int:
        """The seq of the first delivery that waits for one that is tried in this pass."""
        return min((self._paused[name].first for name in self._trying), default=0)

    def all_balked(self) -> bool:
        """True when none of those that are tried in this pass has taken what it was offered."""
        return not self._trying

    def wait_for(self, name: str, seq: int) -> None:
        """Note a delivery that was passed over."""
        pause = self._paused.get(name)
        if pause is not None:
            pause.first = min(pause.first, seq)

    def balk(self, name: str, reason: str, seq: int, *, progress: bool) -> bool:
        """Note that one took a delivery not; ``progress``: it took others before that.

        Return False if there is no room for it.
        """
        if name in self._balked:
            return True
        pause = self._paused.get(name)
        if pause is None:
            if len(self._paused) >= MOST:
                return False
            log.warning(
                "Broker %s takes no tasks for %s: %s; they wait, and the others are sent",
                self._broker,
                name,
                reason,
            )
            pause = self._paused[name] = _Pause(reason, time.time_ns(), seq, 0.0, 0.0)
        pause.reason = reason
        # All before this one has been taken, or waited for it.
        pause.first = seq if name in self._trying else min(pause.first, seq)
        pause.delay = (
            FIRST_RETRY if progress else min(pause.delay * 2 or FIRST_RETRY, LONGEST_RETRY)
        )
        # Jitter keeps many queues from being tried at the same time.
        pause.due = time.monotonic() + pause.delay * random.uniform(0.6, 1.0)  # noqa: S311 — no secret
        self._trying.discard(name)
        self._balked.add(name)
        return True

    def end(self) -> None:
        """End a pass that came to its end: those that were tried and did not balk are well."""
        for name in self._trying:
            del self._paused[name]
            log.warning("Broker %s takes tasks for %s again", self._broker, name)
        self._trying = set()

    def next_due(self) -> float | None:
        """Return for how many seconds nothing is to be tried again; None if nothing is paused."""
        if not self._paused:
            return None
        return max(0.001, min(pause.due for pause in self._paused.values()) - time.monotonic())

    def troubles(self) -> Iterable[tuple[str, str, int]]:
        """Yield (what, why, since when in ns) for the status; a few, where there are many."""
        paused = list(self._paused.items())
        for name, pause in paused[:_SHOWN]:
            yield f"{name} of broker {self._broker}", pause.reason, pause.since_ns
        if len(paused) > _SHOWN:
            since = min(pause.since_ns for _, pause in paused[_SHOWN:])
            yield f"broker {self._broker}", f"and {len(paused) - _SHOWN} more queues", since
