"""What a pipeline says of itself at its end, and while it waits for the journal's disk."""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.running import Remembering, config_for, running
from tests.waiting import wait_until
from watchman.model import Answer, Outcome
from watchman.monitoring import Monitoring
from watchman.pipeline import heartbeat
from watchman.status import Snapshot, read
from watchman.status.status_file import HEARTBEAT
from watchman.troubles import Lasting

QUEUE = "queue big of broker b"


def is_past(time_ns: int) -> bool:
    return time.time_ns() > time_ns


def test_each_trouble_of_a_subject_has_its_own_time(root: Path, state: Path) -> None:
    with running(config_for(root, state), Remembering()) as (pipeline, _):
        times = []
        for kind in ("one", "other"):
            pipeline.troubles.begin("/log", f"the {kind}", kind)
            wait_until(partial(is_past, time.time_ns()))
        for _ in range(2):
            found = [
                one for one in pipeline.snapshots.take()["troubles"] if one["subject"] == "/log"
            ]
            assert [one["message"] for one in found] == ["the one", "the other"]
            times.append([one["since_ns"] for one in found])
        assert times[0] == times[1] == [one.since_ns for one in pipeline.troubles.all()]
        assert times[0][0] < times[0][1]


class Told(Monitoring):
    """Keeps which troubles the hooks are shown, each time."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[list[str]] = []

    def look_at(self, snapshot: Snapshot) -> None:
        self.looks.append([one["subject"] for one in snapshot["troubles"]])


def test_what_lasts_is_in_its_last_word(root: Path, state: Path, tmp_path: Path) -> None:
    """A queue that takes nothing, and a destination that is missing: a stop is the end of neither.

    Of the destination tells the mover, and what is told of it besides is left out.
    """
    told, lasting, publisher = Told(), Lasting(), Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "it is full", "queue big")
    config = config_for(root, state, moves=((str(root / "sub"), str(tmp_path / "store")),))
    (root / "sub").mkdir()

    def word() -> Snapshot | None:
        """Return what the pipeline that runs says, as soon as it has met both."""
        found = read(str(state))
        if found is None or not found["watching"] or not found["moves"][0]["reason"]:
            return None
        return found if [one["subject"] for one in found["troubles"]] == [QUEUE] else None

    with running(config, publisher, monitoring=told, lasting=lasting) as (pipeline, _):
        (root / "file").touch()
        (root / "sub" / "moved").touch()
        before = wait_until(word, 30)
        assert pipeline.snapshots.renew(before)["troubles"] == before["troubles"]
        told.looks.clear()
    last = read(str(state))
    assert last is not None
    assert not last["watching"]
    assert last["troubles"] == before["troubles"]
    assert told.looks[-1] == [QUEUE]
    # It lasts since then, whatever the next pipeline has found by itself.
    with running(config, publisher, monitoring=told, lasting=lasting) as (pipeline, _):
        again = wait_until(word, 30)
        assert again["troubles"][0]["since_ns"] == before["troubles"][0]["since_ns"]
        assert pipeline.snapshots.renew(again)["troubles"] == again["troubles"]


def test_a_state_directory_that_is_read_only_ends_nothing(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fails is mounted so by the kernel; a full one refuses it on Btrfs."""
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    utime = os.utime
    tried: list[str] = []

    def refused(path: str, *rest: Any, **more: Any) -> None:
        if str(path) == str(state / HEARTBEAT):
            tried.append(path)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        utime(path, *rest, **more)

    with running(config_for(root, state)) as (pipeline, publisher):
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", refused)
            pipeline._local.check_soon()
            wait_until(lambda: len(tried) > 1, 20, "it beats twice")
            (root / "file").touch()
            wait_until(lambda: publisher.paths == [str(root / "file")], what="its task")
        said = [r.getMessage() for r in caplog.records if "heartbeat" in r.getMessage()]
        assert len(said) == 1
        assert said[0].startswith(f"{state}/heartbeat cannot be touched: Read-only file system; ")
        before = (state / HEARTBEAT).stat().st_mtime_ns
        wait_until(lambda: (state / HEARTBEAT).stat().st_mtime_ns > before, 20, "it beats again")
