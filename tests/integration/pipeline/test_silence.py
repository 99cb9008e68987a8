"""Files that get no task, or get it late: said once, shown as long as it lasts, and recorded."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.running import config_for, running
from tests.waiting import wait_until
from watchman import file_access
from watchman.journal.journal_reader import open_reader
from watchman.model import Noted, Route, Watch, WatchKind
from watchman.pipeline import Pipeline


def notes(pipeline: Pipeline) -> list[str]:
    """Return what the status would say, all of one watch."""
    found = pipeline.snapshots.take()["notes"]
    assert {note["subject"] for note in found} <= {watch.path for watch in pipeline.config.watches}
    return [note["message"] for note in found]


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]


def why(state: Path, path: Path) -> Noted | None:
    with open_reader(str(state)) as journal:
        return journal.noted(str(path))


def test_files_that_no_pattern_matches(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(root, state, patterns=((f"{root}/*.csv", Route("b", "task")),))
    with running(config) as (pipeline, sent):
        assert notes(pipeline) == []
        (root / "first.dat").touch()
        what = "no task is sent, because no pattern matches; add one, or names to IGNORE"
        wait_until(lambda: notes(pipeline) == [f"{root}/first.dat: {what}"])
        for number in range(50):
            (root / f"{number}.dat").touch()
        wait_until(lambda: notes(pipeline)[0].startswith("51 files or directories, such as "))
        (root / "a.csv").touch()
        wait_until(lambda: sent.paths == [f"{root}/a.csv"])
        since = pipeline.snapshots.take()["notes"][0]["since_ns"]
        assert since < os.stat(root / "a.csv").st_ctime_ns
    assert said(caplog, "no pattern matches") == [
        f"{root}: {root}/first.dat: {what}; others like it are counted in 'notify status'"
    ]
    assert why(state, root / "7.dat") is Noted.UNASKED
    assert why(state, root / "a.csv") is None
    assert why(state, root / "never") is None


def test_directories_that_no_pattern_matches(root: Path, state: Path) -> None:
    watch = Watch(str(root), kind=WatchKind.DIRECTORIES)
    with running(config_for(root, state, watches=(watch,), patterns=())) as (pipeline, _):
        (root / "unit").mkdir()
        wait_until(lambda: notes(pipeline) != [])
        assert notes(pipeline)[0].startswith(f"{root}/unit: no task is sent, because no pattern")
    assert why(state, root / "unit") is Noted.UNASKED


@pytest.mark.parametrize("kind", WatchKind)
def test_what_the_first_run_only_notes(
    root: Path, state: Path, kind: WatchKind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    for number in range(3):
        (root / f"{number}").mkdir() if kind is WatchKind.DIRECTORIES else (
            root / f"{number}"
        ).touch()
    probe = state.with_name("probe")
    later = max(os.stat(path).st_ctime_ns for path in root.iterdir()) + 100_000_000

    def is_later() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns > later

    wait_until(is_later, what="the run begins later")
    watch = Watch(str(root), kind=kind)
    with running(config_for(root, state, watches=(watch,))) as (pipeline, _):
        [note] = notes(pipeline)
        assert note.startswith("3 files or directories, such as ")
        assert note.endswith(
            "there before, and not sent because 'existing' is 'new'; touch what is to be sent"
        )
        assert said(caplog, "there before") == [f"{root}: {note}"]
    assert why(state, root / "1") is Noted.BEFORE
    with running(config_for(root, state, watches=(watch,))) as (pipeline, _):
        assert notes(pipeline) == []  # nothing was noted in this run


def test_a_dry_run(root: Path, state: Path) -> None:
    with running(config_for(root, state, dry_run=("*",))) as (pipeline, _):
        (root / "a").touch()
        wait_until(lambda: pipeline.parts.last_arrival_ns)
        wait_until(lambda: why(state, root / "a") is Noted.DRY_RUN)
        assert notes(pipeline) == []


@pytest.mark.usefixtures("often")
def test_a_file_that_is_open_for_long(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    monkeypatch.setattr("watchman.pipeline.file_watcher.LONG", 0.2)
    monkeypatch.setattr("watchman.pipeline.file_watcher.COUNT", 0.0)
    with running(config_for(root, state)) as (pipeline, sent):
        with (root / "open.csv").open("w") as file:
            file.write("begun")
            file.flush()
            wait_until(lambda: notes(pipeline) != [], 20)
            [note] = notes(pipeline)
            assert note.startswith(f"{root}/open.csv: open for writing for more than 5 minutes; ")
            file.write("more")
            file.flush()
        wait_until(lambda: sent.paths == [f"{root}/open.csv"])
        wait_until(lambda: notes(pipeline) == [], 20)
    assert said(caplog, "open for") == [
        f"{root}: {note}",
        f"{root}: no file has been open for long any more",
    ]


def test_where_no_lease_can_be_had(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    names = {name: getattr(fcntl, name) for name in ("F_SETLEASE", "F_RDLCK", "F_UNLCK")}
    monkeypatch.setattr(file_access, "fcntl", SimpleNamespace(fcntl=refuse, **names))
    config = config_for(root, state, watch={"settle": 0.1})
    with running(config) as (pipeline, sent):
        (root / "a").write_text("x")
        (root / "b").write_text("x")
        wait_until(lambda: len(sent.paths) == 2)
        [note] = notes(pipeline)
        assert "its size and time have not changed for 0.1 s" in note
    assert said(caplog, "cannot be told for all") == [f"{root}: {note}"]
