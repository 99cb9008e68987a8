"""SIGKILL before and after every step that changes anything, then a restart (and another)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def crash_everywhere(scenario: str, inbox: Path, root: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.mover.crashing", scenario, str(inbox), str(root)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["problems"] == []
    return int(result["steps"])


@pytest.mark.timeout(300)  # hundreds of processes, and each waits for the disk
@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        ("plain", 20),
        ("taken", 16),
        ("norename", 24),
        ("norename-taken", 20),
        ("tree", 8),
        ("tree-norename", 10),
    ],
)
def test_one_file_system(scenario: str, at_least: int, tmp_path: Path) -> None:
    assert crash_everywhere(scenario, tmp_path, tmp_path) >= at_least


@pytest.mark.timeout(300)  # hundreds of processes, and each waits for the disk
@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        ("plain", 60),
        ("sparse", 64),
        ("vanished", 30),
        ("renamed", 60),
        ("twice", 60),
        ("taken", 60),
        ("nolink", 60),
        ("nolink-taken", 64),
        ("tree", 60),
        ("tree-taken", 50),
    ],
)
def test_two_file_systems(scenario: str, at_least: int, tmp_path: Path, other_device: Path) -> None:
    assert crash_everywhere(scenario, other_device, tmp_path) >= at_least
