"""Queues that take no tasks now, while their broker takes those for others: when to try each again.

A full queue, or one whose node is down, must hold up nobody else. Its deliveries stay in the
journal; here is only its name, so that memory does not grow with what waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from watchman.backoff import Backoff
from watchman.model import Answer, Delivery, Outcome

log = logging.getLogger("watchman.notify")

FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0
MOST = 1000
"""Queues in trouble at a time; with more than that the broker counts as being in trouble."""
_SHOWN = 20
_REMEDY = "see to it at the broker: its tasks wait, and the others are sent"


@dataclass
class _Pause:
    """Why a queue takes nothing, and when it is tried again. Times by the monotonic clock."""

    reason: str
    since_ns: int
    first: int
    """The seq of the first delivery that waits for it."""
    backoff: Backoff
    due: float = 0.0
    routes: set[int] = field(default_factory=set)
    """Those (by id) of what it has not taken."""


class PausedTargets:
    """The queues and exchanges in trouble of one broker, by the names that its publisher gives.

    A sender's pass tries those whose pause is over. One that does not take what it is offered is
    paused again, for longer; one that has taken all at the end of the pass is well.
    """

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._paused: dict[str, _Pause] = {}
        self._trying: set[str] = set()
        """Those that are tried in this pass, and have taken all so far."""
        self._unavailable: set[str] = set()
        """Those that have not taken something in this pass."""
        self._proven: set[str] = set()
        """Those that have taken something in it."""

    def __bool__(self) -> bool:
        return bool(self._paused)

    def begin_pass(self, now: float) -> bool:
        """Begin a pass: those whose pause is over are tried. True if there are any."""
        self._trying = {name for name, pause in self._paused.items() if pause.due <= now}
        self._unavailable, self._proven = set(), set()
        return bool(self._trying)

    def end_pass(self) -> None:
        """End a pass that came to its end: those that were tried and took all are well."""
        for name in self._trying:
            del self._paused[name]
            if name in self._proven:
                log.warning("Broker %s takes tasks for %s again", self._broker, name)
            else:
                # Discarded, held, or gone: whether it would take one nobody knows.
                log.warning("Nothing is to be sent to %s of broker %s now", name, self._broker)
        self._trying = set()

    @property
    def paused(self) -> frozenset[str]:
        """Those for which nothing is to be sent now."""
        return frozenset(self._paused.keys() - self._trying)

    @property
    def first_waiting(self) -> int:
        """The seq of the first delivery that waits for one that is tried in this pass."""
        return min((self._paused[name].first for name in self._trying), default=0)

    def all_unavailable(self) -> bool:
        """True when each of those that are tried in this pass has not taken something."""
        return not self._trying

    def passed_over(self, name: str, seq: int) -> None:
        """Note a delivery that was not offered, since its queue is paused."""
        pause = self._paused.get(name)
        if pause is not None:
            pause.first = min(pause.first, seq)

    def taken(self, good: Sequence[Delivery], answers: Sequence[Outcome]) -> set[int]:
        """Return the routes (by id) of what was accepted, where any queue is in trouble.

        Of one that is tried it shows that it takes tasks.
        """
        if not (self._paused or any(outcome.target for outcome in answers)):
            return set()
        pairs = zip(good, answers, strict=True)
        routes = {id(one.route) for one, outcome in pairs if outcome.answer is Answer.ACCEPTED}
        for name in self._trying:
            if not self._paused[name].routes.isdisjoint(routes):
                self._proven.add(name)
        return routes

    def not_taken(
        self, name: str, reason: str, seq: int, *, progress: bool, route: int = 0
    ) -> bool:
        """Pause a queue that did not take a delivery; ``progress``: it took others before that.

        ``route`` is the delivery's, by id. Return False if there is no room for it.
        """
        if name in self._unavailable:
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
            pause = self._paused[name] = _Pause(
                reason, time.time_ns(), seq, Backoff(FIRST_RETRY, LONGEST_RETRY, jitter=0.4)
            )
        pause.reason = reason
        pause.routes.add(route)
        # Of one that was tried, all before this delivery has been taken.
        pause.first = seq if name in self._trying else min(pause.first, seq)
        if progress:
            pause.backoff.reset()
        pause.due = time.monotonic() + pause.backoff.next()
        self._trying.discard(name)
        self._unavailable.add(name)
        return True

    def next_due(self) -> float | None:
        """Return for how many seconds nothing is to be tried again; None if nothing is paused."""
        if not self._paused:
            return None
        return max(0.001, min(pause.due for pause in self._paused.values()) - time.monotonic())

    def troubles(self) -> Iterable[tuple[str, str, int]]:
        """Yield (what, why, since when in ns) for the status; a few, where there are many."""
        paused = list(self._paused.items())
        for name, pause in paused[:_SHOWN]:
            yield f"{name} of broker {self._broker}", f"{pause.reason}; {_REMEDY}", pause.since_ns
        if len(paused) > _SHOWN:
            since = min(pause.since_ns for _, pause in paused[_SHOWN:])
            yield (
                f"broker {self._broker}",
                f"and {len(paused) - _SHOWN} more queues; {_REMEDY}",
                since,
            )
