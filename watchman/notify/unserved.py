"""Deliveries for brokers that have left the configuration: said, and kept for an operator."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from watchman import signals
from watchman.journal import Journal
from watchman.model import State

log = logging.getLogger("watchman.notify")

REASON = "the pattern's broker no longer exists"
_PAGE = 500
_one_at_a_time = threading.Lock()
"""The mover's threads and the pipeline's may meet the same deliveries, and each fails once."""


def fail_unserved(journal: Journal, brokers: Collection[str]) -> None:
    """Note as failed what is ready for a broker that is not among ``brokers``."""
    with _one_at_a_time:
        for broker in sorted(journal.ready_brokers().difference(brokers)):
            count = 0
            while page := journal.page_ready(broker, 0, _PAGE):
                journal.note([(delivery.seq, State.FAILED, REASON) for delivery in page])
                count += len(page)
                signals.announce(signals.failed, page)
            log.error(
                "Broker %s is no longer in BROKERS: %d tasks for it have failed; put it back and "
                "run 'notify retry', or drop them with 'notify discard'",
                broker,
                count,
            )
