"""A prescan goes ahead of the first walk, and everything is watched just as without one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT
from tests.integration.sources.uploads import LONG


def prescanning(root: Path, deed: str = "nothing", known: str = "") -> dict[str, Any]:
    """Run ``tests/integration/sources/prescanning.py`` and return what it prints."""
    argv = [sys.executable, "-m", "tests.integration.sources.prescanning", str(root), deed, known]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert not done.stderr, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def directories(root: Path) -> list[str]:
    """Return all directories that are to be watched."""
    found = []
    for path, names, _ in os.walk(root):
        found.append(path)
        names[:] = [name for name in names if not name.startswith(".ignored")]
    return found


def check_watched(root: Path, found: dict[str, Any]) -> None:
    """Hold what was found against the tree, and against the kernel's own list."""
    expected = directories(root)
    assert sorted(found["watched"]) == sorted(expected)
    assert found["paths"] == len(expected)
    inodes = {int(wd): inode for wd, inode in found["inodes"].items()}
    assert {wd: os.stat(path).st_ino for path, wd in found["watched"].items()} == inodes
    assert found["children"] == 0


@pytest.fixture
def tree(root: Path) -> Path:
    """600 directories in 20."""
    for n in range(600):
        (root / f"d{n % 20}" / f"e{n}").mkdir(parents=True)
    return root


def test_most_of_a_large_tree_is_never_visited(tree: Path) -> None:
    found = prescanning(tree)
    assert found["sent"]
    assert len(found["visited"]) < 300
    check_watched(tree, found)


def test_what_the_prescan_does_not_decide_is_visited(tree: Path, tmp_path: Path) -> None:
    files = []
    for n in range(0, 600, 5):
        files.append(tree / f"d{n % 20}" / f"e{n}" / "file")
        files[-1].write_text("x")
    (tree / "d19" / "e19" / "link").symlink_to(tmp_path)
    (tree / "d18" / ".ignored" / "inside").mkdir(parents=True)
    (tree / os.fsdecode(b"d17/\xff\xfe") / "inside").mkdir(parents=True)
    (tree / "d16").joinpath(*(["deep"] * 50)).mkdir(parents=True)
    (tree / "d15" / "n" / ("long" * 60) / ("long" * 60) / ("long" * 60)).mkdir(parents=True)
    for n in range(1200):
        (tree / "d14" / f"wide{n}").mkdir()
    found = prescanning(tree)
    assert set(map(str, files)) <= set(found["entries"])
    check_watched(tree, found)


def test_a_directory_in_which_something_was_known_is_visited(tree: Path) -> None:
    """What is missing there can only be told by a look."""
    leaf = next(path for path in directories(tree) if path.endswith("/e599"))
    found = prescanning(tree, known=leaf)
    assert found["sent"]
    assert leaf in found["visited"]
    assert len(found["visited"]) < 300
    check_watched(tree, found)


@pytest.mark.parametrize("deed", ["kill", "stop", "reaped"])
def test_a_prescan_that_is_lost(tree: Path, deed: str) -> None:
    found = prescanning(tree, deed)
    assert found["sent"]
    check_watched(tree, found)


@pytest.mark.parametrize("seed", range(200 if LONG else 12))
def test_a_tree_that_changes_meanwhile(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    made = [root]
    for n in range(chance.randrange(20, 400)):
        made.append(chance.choice(made[-30:]) / f"d{n}")
        made[-1].mkdir()
    found = prescanning(root, f"churn:{seed}")
    assert found["sent"]
    check_watched(root, found)


def test_no_prescan_beside_other_threads(tree: Path) -> None:
    """A fork takes only the thread that forks along, and all the locks that others hold."""
    found = prescanning(tree, "threads")
    assert not found["sent"]
    check_watched(tree, found)
