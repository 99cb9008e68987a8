"""Directories that many of these tests work in."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory to watch."""
    directory = tmp_path / "up"
    directory.mkdir()
    return directory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory for the journal."""
    return tmp_path / "state"
