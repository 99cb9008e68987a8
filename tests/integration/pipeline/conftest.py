"""Fixtures for tests of running pipelines."""

from __future__ import annotations

import pytest


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have roots, patterns and parts looked at often, for tests that wait for that."""
    for module in ("schedule", "pipeline", "watcher", "glob_watcher"):
        monkeypatch.setattr(f"watchman.pipeline.{module}.CHECK", 0.05)
