from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.mover.rig import Rig
from watchman.mover.rename_process import RenameProcess


def make_rig(inbox: Path, root: Path, process: RenameProcess | None = None) -> Rig:
    inbox.mkdir()
    root.mkdir()
    return Rig(inbox, root, process)


@pytest.fixture
def helping(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenameProcess]:
    """A rename process that takes every batch, however small."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    # Threads that earlier tests have left behind hold no lock that it needs.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("watchman.mover.rename_process.FEW", 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process = RenameProcess.start()
    assert process is not None
    yield process
    process.end()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Source and destination on one file system."""
    return make_rig(tmp_path / "in", tmp_path / "out")


@pytest.fixture
def helped(tmp_path: Path, helping: RenameProcess) -> Rig:
    """The same, with a rename process."""
    return make_rig(tmp_path / "in", tmp_path / "out", helping)


@pytest.fixture
def far(tmp_path: Path, other_device: Path) -> Rig:
    """Source and destination on two file systems."""
    return make_rig(other_device / "in", tmp_path / "out")


@pytest.fixture(params=["rig", "helped", "far"])
def any_rig(request: pytest.FixtureRequest) -> Rig:
    """Each: what must hold for renames and for copies."""
    rig: Rig = request.getfixturevalue(request.param)
    return rig


@pytest.fixture(params=["rig", "far"])
def own_rig(request: pytest.FixtureRequest) -> Rig:
    """The same without a rename process, for what is patched in this process."""
    rig: Rig = request.getfixturevalue(request.param)
    return rig
