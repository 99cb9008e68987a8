"""Receivers of Celery's signals about publishing, which a configuration may connect.

Celery is not imported for that: where nobody has, there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any

_PUBLISHING = ("before_task_publish", "after_task_publish", "task_sent")


class PublishingSignals:
    """A group of signals (``config.belongings.Signals``)."""

    def connected(self) -> frozenset[Hashable]:
        """Return the names of the signals with Celery's own keys of their receivers."""
        return frozenset((name, key) for name, signal in _signals() for key, _ in signal.receivers)

    def disconnect(self, connections: frozenset[Hashable]) -> None:
        """Take these connections away."""
        for name, signal in _signals():
            with signal.lock:
                signal.receivers[:] = [
                    entry for entry in signal.receivers if (name, entry[0]) not in connections
                ]
                signal.sender_receivers_cache.clear()


def _signals() -> list[tuple[str, Any]]:
    module = sys.modules.get("celery.signals")
    found = [(name, getattr(module, name, None)) for name in _PUBLISHING]
    return [(name, signal) for name, signal in found if signal is not None]
