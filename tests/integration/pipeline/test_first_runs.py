"""What was there before a first run, where a watch is widened, narrowed or becomes another one."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.checks.scanning import unknown
from watchman.journal import Journal
from watchman.journal.journal_reader import open_reader
from watchman.journal.runs import run_of
from watchman.model import Config, Existing, Watch, WatchKind
from watchman.pipeline import watch_scan
from watchman.sources import walk
from watchman.sources.tree import Listing

DIRECTORIES = {"kind": WatchKind.DIRECTORIES}


@pytest.fixture
def root(root: Path) -> Path:
    (root / "a").mkdir()
    return root


@pytest.fixture
def state(state: Path) -> Path:
    state.mkdir()
    return state


def config_of(root: Path, state: Path, path: Path, **options: Any) -> Config:
    return dataclasses.replace(config_for(root, state), watches=(Watch(str(path), **options),))


def upload(path: Path) -> None:
    """Write a file; one that is empty would wait for what may still be written."""
    path.write_text("x")


def await_next_tick(path: Path) -> None:
    """Wait until what is made now is newer than what is there, whatever the clock's grain."""
    probe = path / ".in.probe."
    probe.touch()
    after = probe.stat().st_ctime_ns + 100_000_000

    def is_later() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns > after

    wait_until(is_later, what="the clock goes on")
    probe.unlink()


def sent_by_a_run(config: Config, last: Path) -> list[str]:
    """Watch until what is made then is sent; return what was sent before, in order of paths."""
    await_next_tick(last.parent.parent)
    with running(config) as (_, sent):
        make = Path.mkdir if config.watches[0].kind is WatchKind.DIRECTORIES else upload
        make(last)
        wait_until(lambda: str(last) in sent.paths, what="the last task")
    last.rmdir() if last.is_dir() else last.unlink()
    await_next_tick(last.parent.parent)
    return sorted(set(sent.paths) - {str(last)})


@pytest.mark.parametrize("rec", [True, False])
def test_what_came_while_down_is_sent_where_the_watch_is_widened(
    root: Path, state: Path, rec: bool
) -> None:
    upload(root / "a/old")
    (root / "b").mkdir()
    upload(root / "b/old")
    assert sent_by_a_run(config_of(root, state, root / "a", rec=rec), root / "a/live") == []
    upload(root / "a/late")
    upload(root / "b/late")
    wide = config_of(root, state, root, rec=True)
    with open_reader(str(state)) as reader:
        told = {one.path: one.note for one in unknown(wide, reader)}
    before = "existing is 'new': what is there before the first run is not sent"
    assert told == {f"{root}/a/late": "", f"{root}/b/late": before, f"{root}/b/old": before}
    # What is newly covered has its first run.
    assert sent_by_a_run(wide, root / "a/live") == [f"{root}/a/late"]
    upload(root / "b/later")
    assert sent_by_a_run(wide, root / "a/live") == [f"{root}/b/later"]


def test_what_came_while_down_is_sent_where_the_watch_is_narrowed(root: Path, state: Path) -> None:
    assert sent_by_a_run(config_of(root, state, root, rec=True), root / "a/live") == []
    upload(root / "a/late")
    narrow = config_of(root, state, root / "a", rec=True)
    assert sent_by_a_run(narrow, root / "a/live") == [f"{root}/a/late"]


@pytest.mark.parametrize("existing", [Existing.NEW, Existing.NONE])
def test_a_file_that_settles_while_a_reload_widens_its_watch(
    root: Path, state: Path, existing: Existing
) -> None:
    narrow = config_of(root, state, root / "a", rec=True, settle=3600.0, existing=existing)
    late = root / "a/late"
    with running(narrow) as (pipeline, sent):
        upload(late)
        wait_until(lambda: len(pipeline.parts.local.files.incomplete) == 1, what="it settles")
    assert not sent.paths
    upload(root / "elsewhere")
    await_next_tick(root)
    wide = config_of(root, state, root, rec=True, existing=existing)
    with running(wide, resumed=True) as (_, sent):
        wait_until(lambda: sent.paths == [str(late)], what="its task")


@pytest.mark.parametrize("directories", [False, True])
def test_what_rec_brings_has_a_first_run(root: Path, state: Path, directories: bool) -> None:
    options: dict[str, Any] = DIRECTORIES if directories else {}
    make = Path.mkdir if directories else upload
    config = config_of(root, state, root, **options)
    if directories:  # one that has no task is entered
        ((_, route),) = config.patterns
        wanted = ((f"{root}/a/*", route), (f"{root}/x*", route))
        config = dataclasses.replace(config, patterns=wanted)
    make(root / "a/of years ago")
    assert sent_by_a_run(config, root / "xlive") == []
    make(root / "xlate")
    with_rec = dataclasses.replace(
        config, watches=(dataclasses.replace(config.watches[0], rec=True),)
    )
    assert sent_by_a_run(with_rec, root / "a/live") == [f"{root}/xlate"]
    make(root / "a/late")
    assert sent_by_a_run(with_rec, root / "a/live") == [f"{root}/a/late"]


def test_a_directory_is_touched_before_the_first_run_comes_to_it(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that it is in is watched, and is being listed in parts."""

    def touched_meanwhile(scanner: watch_scan.Scanner, listing: Listing) -> None:
        listed(scanner, listing)
        if not touched.is_set():
            touched.set()
            assert not listing.last
            os.utime(root / "a")
            scanner._files.handle(scanner._source.wait(10.0))

    touched, listed = threading.Event(), watch_scan.Scanner._listed
    monkeypatch.setattr(walk, "LISTING", 2)
    monkeypatch.setattr(watch_scan.Scanner, "_listed", touched_meanwhile)
    upload(root / "a/old")
    for n in range(5):
        upload(root / f"old{n}")
    config = config_of(root, state, root, rec=True, auto_add=True)
    assert sent_by_a_run(config, root / "a/live") == []
    assert touched.is_set()


def test_another_kind_has_a_first_run(root: Path, state: Path) -> None:
    upload(root / "a/old")
    assert sent_by_a_run(config_of(root, state, root, rec=True), root / "a/live") == []
    assert sent_by_a_run(config_of(root, state, root, **DIRECTORIES), root / "live") == []
    (root / "b").mkdir()
    directories = config_of(root, state, root, **DIRECTORIES)
    assert sent_by_a_run(directories, root / "live") == [f"{root}/b"]


def test_a_first_run_that_was_cut_short_counts_for_a_wider_watch(root: Path, state: Path) -> None:
    upload(root / "a/old")
    await_next_tick(root)
    journal = Journal(str(state))
    narrow = Watch(f"{root}/a", rec=True)
    journal.begin_first_runs([run_of(narrow)], os.stat(root / "a/old").st_ctime_ns + 50_000_000)
    journal.close()
    upload(root / "a/late")
    assert sent_by_a_run(config_of(root, state, root, rec=True), root / "a/live") == [
        f"{root}/a/late"
    ]


@pytest.mark.parametrize("rec", [True, False])
def test_what_an_older_version_noted_is_what_its_watch_is_now(
    root: Path, state: Path, rec: bool
) -> None:
    journal = Journal(str(state))
    journal.note_first_run([str(root)])
    journal.close()
    upload(root / "late")
    upload(root / "a/late")
    config = config_of(root, state, root, rec=rec)
    found = [f"{root}/a/late", f"{root}/late"] if rec else [f"{root}/late"]
    assert sent_by_a_run(config, root / "live") == found
    # With `rec`, given later, what is newly covered has its first run.
    assert sent_by_a_run(config_of(root, state, root, rec=True), root / "live") == []
    with open_reader(str(state)) as reader:
        assert reader.runs().before_ns(WatchKind.FILES, f"{root}/a") < 0
        # Nothing is said of whole directories.
        assert reader.runs().before_ns(WatchKind.DIRECTORIES, str(root)) > 0
