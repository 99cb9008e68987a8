"""What an uploader puts in the place of that whose task waits is not announced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.bench import ROUTE, Bench
from tests.running import Remembering, config_for, running
from tests.waiting import wait_until
from watchman.directory_identity import identify
from watchman.file_access import version_of
from watchman.journal import NewDelivery
from watchman.model import ACCEPTED, Answer, Outcome, State, Version, WatchKind
from watchman.sender import sender


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "f").write_text("secret")
    (directory / "d").mkdir()
    return directory


def identity(path: Path) -> Version:
    """Return what is recorded of a directory."""
    above = os.open(path.parent, os.O_PATH)
    try:
        found = identify(path.name, above)
    finally:
        os.close(above)
    assert found is not None
    return found[0]


def record(bench: Bench, path: Path, *, moved: bool) -> None:
    """Record what is there, as an upload that stays, or one that was moved there."""
    directory = path.is_dir()
    version = identity(path) if directory else version_of(path.stat())
    source, final = (bench.root / path.name, str(path)) if moved else (path, None)
    kind = "directories" if directory else "files"
    bench.journal.record([NewDelivery(path.name, str(source), final, version, 1, ROUTE, kind)])
    if moved:
        bench.journal.note([(1, State.READY, "")])


def link_to_file(path: Path, outside: Path) -> None:
    path.rename(outside / "aside")
    path.symlink_to(outside / "f")


def link_to_directory(path: Path, outside: Path) -> None:
    path.rename(outside / "aside")
    path.symlink_to(outside / "d")


def link_to_itself(path: Path, outside: Path) -> None:
    path.rename(outside / "aside")
    path.symlink_to(outside / "aside")


def another_kind(path: Path, outside: Path) -> None:
    path.rename(outside / "aside")
    path.mkdir() if (outside / "aside").is_file() else path.touch()


def fifo(path: Path, outside: Path) -> None:
    path.rename(outside / "aside")
    os.mkfifo(path)


def linked_directory(path: Path, outside: Path) -> None:
    path.parent.rename(outside / "above")
    path.parent.symlink_to(outside / "above")


SWAPS = [link_to_file, link_to_directory, link_to_itself, another_kind, fifo, linked_directory]


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_what_is_not_what_was_recorded_vanishes(
    bench: Bench, outside: Path, swap: Callable[[Path, Path], None], kind: str, moved: bool
) -> None:
    path = bench.root / "anna/x"
    path.parent.mkdir()
    path.touch() if kind == "file" else path.mkdir()
    record(bench, path, moved=moved)
    swap(path, outside)
    bench.sender.start()
    bench.until(VANISHED=1)
    assert not bench.publisher.paths


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
def test_a_directory_that_is_filled_meanwhile_is_the_same(bench: Bench, moved: bool) -> None:
    path = bench.root / "set"
    path.mkdir()
    record(bench, path, moved=moved)
    (path / "more").touch()
    bench.sender.start()
    bench.until(SENT=1)
    assert bench.publisher.paths == [str(path)]


def test_a_directory_that_is_made_anew_has_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the task for the first one waits."""
    monkeypatch.setattr(sender, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(sender, "LONGEST_RETRY", 0.05)
    root, state = tmp_path / "up", tmp_path / "state"
    root.mkdir()
    config = config_for(root, state, watch={"kind": WatchKind.DIRECTORIES})
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    with running(config, publisher) as (pipeline, sent):
        (root / "set").mkdir()
        wait_until(lambda: pipeline.parts.senders["b"].trouble, what="it cannot be sent")
        (root / "set").rename(tmp_path / "aside")
        (root / "set").mkdir()
        wait_until(lambda: pipeline.journal.last_seq() == 2, what="the second is recorded")
        publisher.answer = ACCEPTED
        wait_until(lambda: sent.paths, what="a task")
        wait_until(lambda: not pipeline.journal.page_ready("b", 0, 9), what="nothing waits")
    assert sent.paths == [str(root / "set")]
