"""What the parts of a pipeline tell one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from watchman.model import Delivery, Move


class PartsListener(Protocol):
    """Told by the parts, each from its own thread; passes it on to those whom it concerns."""

    def wake(self, concerned: Iterable[str | Move]) -> None:
        """There are new deliveries for these: brokers by name, and MOVES entries."""
        ...

    def changed(self, paths: Sequence[str]) -> None:
        """Files or directories at these paths are to be looked at again."""
        ...

    def failed(self, deliveries: list[Delivery]) -> None:
        """No retry can help these, and that is noted."""
        ...
