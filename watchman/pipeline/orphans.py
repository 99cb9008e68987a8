"""Deliveries for brokers that have left the configuration: said, and kept for an operator."""

from __future__ import annotations

import logging
from collections.abc import Collection

from watchman.journal import Journal
from watchman.model import State
from watchman.pipeline.parts_listener import PartsListener

log = logging.getLogger("watchman.notify")

REASON = "the pattern's broker no longer exists"
_PAGE = 500
PAUSE = 0.05
"""Seconds between two pages: there may be a million, and files wait meanwhile."""
_NEVER = 1e9


class Orphans:
    """Notes as failed what is ready for a broker that is not among ``brokers``.

    For one thread, but for :meth:`look`.
    """

    def __init__(self, journal: Journal, brokers: Collection[str], listener: PartsListener) -> None:
        self._journal = journal
        self._brokers = brokers
        self._listener = listener
        self._wanted = False
        self._counts: dict[str, int] = {}
        """Of the brokers that are dealt with: how many have failed. The first one is next."""
        self._due = 0.0

    def look(self) -> None:
        """Have the next :meth:`step` look whether there are any; from any thread."""
        self._wanted = True

    @property
    def pause(self) -> float:
        """Seconds after which the next :meth:`step` is of use at the latest."""
        if self._wanted:
            return 0.0
        return PAUSE if self._counts else _NEVER

    def step(self, now: float) -> None:
        """Note some, if it is time; ``now`` is of the monotonic clock."""
        if self._wanted:
            self._wanted = False
            for broker in sorted(self._journal.ready_brokers().difference(self._brokers)):
                self._counts.setdefault(broker, 0)
        if not self._counts or now < self._due:
            return
        broker = next(iter(self._counts))
        completed = 0
        if self._journal.batch_due_in(broker) is not None:
            completed = self._journal.complete_batches(broker, _PAGE, early=True)
        leaders = self._journal.page_ready(broker, 0, _PAGE)
        page, cut = leaders, False
        if leaders:
            page, _, _, cut = self._journal.bundled(leaders, _PAGE)
            changes = [(delivery.seq, State.FAILED, REASON) for delivery in page]
            self._journal.note(changes, ready_for=broker)
            self._counts[broker] += len(page)
            self._listener.failed(page)
        if cut or _PAGE in (completed, len(leaders)):
            self._due = now + PAUSE
            return
        count = self._counts.pop(broker)
        if count:
            log.error(
                "Broker %s is no longer in BROKERS: %d tasks for it have failed; put it back and "
                "run 'notify retry', or drop them with 'notify discard'",
                broker,
                count,
            )
