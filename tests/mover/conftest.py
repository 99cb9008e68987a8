from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mover.rig import Rig

SHARED_MEMORY = "/dev/shm"


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than tmp_path."""
    if not os.path.isdir(SHARED_MEMORY) or (
        os.stat(SHARED_MEMORY).st_dev == os.stat(tmp_path).st_dev
    ):
        pytest.skip("needs /dev/shm on a file system of its own")
    directory = Path(tempfile.mkdtemp(prefix="watchman-test-", dir=SHARED_MEMORY))
    yield directory
    shutil.rmtree(directory)


def make_rig(inbox: Path, root: Path) -> Rig:
    inbox.mkdir()
    root.mkdir()
    return Rig(inbox, root)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Source and destination on one file system."""
    return make_rig(tmp_path / "in", tmp_path / "out")


@pytest.fixture
def far(tmp_path: Path, other_device: Path) -> Rig:
    """Source and destination on two file systems."""
    return make_rig(other_device / "in", tmp_path / "out")


@pytest.fixture(params=["near", "far"])
def any_rig(request: pytest.FixtureRequest) -> Rig:
    """Either: what must hold for renames and for copies."""
    rig: Rig = request.getfixturevalue("rig" if request.param == "near" else "far")
    return rig
