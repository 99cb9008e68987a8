"""A receiver of what hooks tell, and hooks that do not dawdle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.monitoring.receiver import Receiver
from watchman.monitoring import hook_thread, hooks


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test need not wait for."""
    monkeypatch.setattr(hook_thread, "PAUSE", 0.0)
    monkeypatch.setattr(hooks, "GATHER", 0.2)
