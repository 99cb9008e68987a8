"""What a watch sees, by its own settings alone: as in pyinotify, and as the daemon does it."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyinotify
import pytest

from tests.running import Remembering, config_for, running
from tests.waiting import wait_until
from watchman import checks, coverage
from watchman.checks import scanning, trees
from watchman.ignored_names import DEFAULT_IGNORE
from watchman.journal import Journal
from watchman.journal.journal_reader import open_reader
from watchman.model import Config, Existing, Method, Route, Watch, WatchKind
from watchman.router import Router
from watchman.sources.at_start import Starts
from watchman.sources.tree import Node

MOVED_TO: int = pyinotify.IN_MOVED_TO
CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
CREATE: int = pyinotify.IN_CREATE
FLAGS = list(itertools.product((False, True), repeat=2))


def site(tmp_path: Path, *, rec: bool = True, auto_add: bool = True, **watch: object) -> Config:
    root = tmp_path / "up"
    root.mkdir(exist_ok=True)
    plain = {"rescan": 0.0, "existing": Existing.ALL}
    one = Watch(str(root), rec=rec, auto_add=auto_add, **(plain | watch))  # type: ignore[arg-type]  # — values of several types
    return config_for(root, tmp_path / "state", watches=(one,))


def upload(path: Path) -> str:
    path.write_text("x")
    return str(path)


def settled(root: Path, publisher: Remembering) -> set[str]:
    """Return what was sent when all that happened before has been dealt with, but a marker."""
    marker = upload(root / f"marker{len(publisher.paths)}")
    wait_until(lambda: marker in publisher.paths, what="the marker is sent")
    return {os.path.relpath(path, root) for path in publisher.paths if "marker" not in path}


def stock(root: Path, *, rec: bool, auto_add: bool) -> tuple[pyinotify.WatchManager, list[str]]:
    """Watch as pyinotify itself does."""
    closed: list[str] = []
    manager = pyinotify.WatchManager()
    manager.add_watch(
        str(root),
        pyinotify.ALL_EVENTS,
        proc_fun=lambda event: closed.append(event.pathname) if event.mask & CLOSE_WRITE else None,
        rec=rec,
        auto_add=auto_add,
    )
    return manager, closed


@pytest.mark.parametrize(("rec", "auto_add"), FLAGS)
def test_rec_and_auto_add_are_those_of_pyinotify(tmp_path: Path, rec: bool, auto_add: bool) -> None:
    config = site(tmp_path, rec=rec, auto_add=auto_add)
    root = tmp_path / "up"
    (root / "before/below").mkdir(parents=True)
    manager, closed = stock(root, rec=rec, auto_add=auto_add)
    notifier = pyinotify.Notifier(manager, timeout=10)

    def dispatch() -> None:
        while notifier.check_events():
            notifier.read_events()
            notifier.process_events()

    with running(config) as (pipeline, publisher):
        (root / "later").mkdir()
        dispatch()
        covered = 1 + 2 * rec + auto_add
        wait_until(
            lambda: pipeline.parts.covers(config.watches[0]) == covered, what="all is watched"
        )
        for directory in ("", "before", "before/below", "later"):
            upload(root / directory / "file")
        wait_until(lambda: len(publisher.paths) == covered, what="one of each is sent")
        (root / "before/below").rename(root / "renamed")
        dispatch()
        covered += auto_add and not rec  # then nothing tells where it came from
        wait_until(
            lambda: pipeline.parts.covers(config.watches[0]) == covered, what="all is watched"
        )
        upload(root / "renamed/next")
        dispatch()
        settled(root, publisher)
        pipeline.rescan()  # finds nothing but what is watched
        sent = settled(root, publisher)
    notifier.stop()
    by_pyinotify = {os.path.relpath(path, root) for path in closed} - {"file"}
    assert sent - {"file"} >= by_pyinotify
    # A directory that is renamed is announced under its new name as well.
    assert sent - by_pyinotify <= {"file", "renamed/file"}
    assert ("renamed/next" in sent, "later/file" in sent) == (rec or auto_add, auto_add)


def test_auto_add_alone_follows_what_is_moved_in_or_made_deep(tmp_path: Path) -> None:
    config = site(tmp_path, rec=False)
    root = tmp_path / "up"
    (root / "old/deep").mkdir(parents=True)
    moved = tmp_path / "moved"
    (moved / "in").mkdir(parents=True)
    upload(moved / "in/file")
    with running(config) as (pipeline, publisher):
        (root / "a/b/c").mkdir(parents=True)
        upload(root / "a/b/c/file")
        moved.rename(root / "moved")
        wait_until(lambda: len(publisher.paths) == 2, what="both are sent")
        # What was there at the start stays left out under any name, and by any event or scan.
        (root / "old").rename(root / "a/older")
        (root / "a/older").chmod(0o700)
        upload(root / "a/older/deep/file")
        pipeline.rescan()
        assert settled(root, publisher) == {"a/b/c/file", "moved/in/file"}
        # Another directory takes the name.
        (root / "old").mkdir()
        upload(root / "old/file")
        wait_until(lambda: str(root / "old/file") in publisher.paths, what="the new one is seen")


def test_auto_add_alone_goes_on_after_a_reload(tmp_path: Path) -> None:
    config = site(tmp_path, rec=False)
    root = tmp_path / "up"
    (root / "before").mkdir()
    starts = Starts()
    with running(config, starts=starts) as (pipeline, _):
        (root / "later").mkdir()
        wait_until(lambda: pipeline.parts.covers(config.watches[0]) == 2, what="it is watched")
    with running(config, starts=starts, resumed=True) as (_, publisher):
        upload(root / "later/file")
        upload(root / "before/file")
        wait_until(lambda: str(root / "later/file") in publisher.paths, what="it is sent")
        assert settled(root, publisher) == {"later/file"}


def test_auto_add_alone_begins_anew_where_another_directory_takes_the_path(
    tmp_path: Path,
) -> None:
    config = site(tmp_path, rec=False)
    root = tmp_path / "up"
    (root / "later").mkdir()
    with running(config) as (pipeline, publisher):
        root.rename(tmp_path / "away")
        (tmp_path / "next/before").mkdir(parents=True)
        (tmp_path / "next").rename(root)
        assert settled(root, publisher) == set()
        upload(root / "before/file")
        pipeline.rescan()
        assert settled(root, publisher) == set()


def test_rec_alone_takes_in_what_was_hidden_or_unreadable_at_the_start(tmp_path: Path) -> None:
    config = site(tmp_path, auto_add=False)
    root = tmp_path / "up"
    (root / "before").mkdir()
    with running(config) as (_, publisher):
        root.rename(tmp_path / "away")
        (tmp_path / "away").rename(root)
        upload(root / "before/file")
        wait_until(lambda: str(root / "before/file") in publisher.paths, what="it is sent")


# The mask


def test_a_scan_keeps_to_the_mask(tmp_path: Path) -> None:
    """What was written in place is known when a scan comes, live or at the next start."""
    config = site(tmp_path, mask=MOVED_TO, rescan=0.2)
    root = tmp_path / "up"
    with running(config) as (pipeline, publisher):
        upload(root / "written")
        (root / "renamed.part").write_text("x")
        (root / "renamed.part").rename(root / "renamed")
        os.link(root / "written", root / "linked")
        wait_until(lambda: publisher.paths == [str(root / "renamed")], what="it is sent")
        known = pipeline.journal.known.versions
        wait_until(lambda: len(known([str(root / "written"), str(root / "linked")])) == 2)
        pipeline.rescan()
    with running(config, publisher) as (_, publisher):
        (tmp_path / "marker").write_text("x")
        (tmp_path / "marker").rename(root / "marker")
        wait_until(lambda: str(root / "marker") in publisher.paths, what="the marker is sent")
    assert publisher.paths == [str(root / "renamed"), str(root / "marker")]


@pytest.mark.parametrize(
    "mask", [MOVED_TO, CLOSE_WRITE, CREATE, pyinotify.IN_MODIFY, CLOSE_WRITE | MOVED_TO]
)
def test_an_event_that_is_asked_for_decides_whatever_others_say(tmp_path: Path, mask: int) -> None:
    """Each file has all three kinds of events, in one batch or in several."""
    config = site(tmp_path, mask=mask, rescan=0.2)
    root = tmp_path / "up"
    with running(config) as (_, publisher):
        expected = set()
        for number in range(200):
            path = root / f"f{number}"
            (root / f"{number}.part").write_text("x")
            (root / f"{number}.part").rename(path)
            if mask == CREATE:
                path.unlink()
            with path.open("a") as file:
                file.write("y")
                if number % 10 == 0:
                    file.flush()
                    os.sched_yield()
            expected.add(str(path))
        wait_until(lambda: set(publisher.paths) == expected, what="all are sent")


def test_a_slow_upload_is_sent_at_the_event_that_the_mask_asks_for(tmp_path: Path) -> None:
    config = site(tmp_path, mask=CLOSE_WRITE, rescan=0.1)
    root = tmp_path / "up"
    with running(config) as (pipeline, publisher):
        with (root / "slow").open("w") as file:
            file.write("x")
            file.flush()
            wait_until(lambda: len(pipeline.parts.local.files.incomplete), what="it is looked at")
        wait_until(lambda: publisher.paths == [str(root / "slow")], what="it is sent")


def test_a_delivery_follows_its_file_where_the_mask_leaves_the_change_out(tmp_path: Path) -> None:
    config = site(tmp_path, mask=MOVED_TO)
    config = replace(config, brokers={})
    root = tmp_path / "up"
    with running(config) as (pipeline, _):
        (tmp_path / "f").write_text("x")
        (tmp_path / "f").rename(root / "f")
        known = pipeline.journal.known.versions
        first = wait_until(lambda: known([str(root / "f")]), what="it is recorded")
        upload(root / "f")
        wait_until(lambda: known([str(root / "f")]) != first, what="the new version is known")


def test_a_mask_without_any_event_that_completes_sends_nothing(tmp_path: Path) -> None:
    config = site(tmp_path, mask=pyinotify.IN_DELETE)
    root = tmp_path / "up"
    upload(root / "before")
    with running(config) as (pipeline, publisher):
        upload(root / "now")
        mark = pipeline.parts.local.source.mark()
        wait_until(lambda: pipeline.parts.local.source.parsed >= mark, what="all is heard of")
        pipeline.rescan()
        wait_until(lambda: pipeline.parts.local.source.certain, what="it is scanned")
        assert publisher.paths == []
    with running(config, publisher):
        assert publisher.paths == []
    found = checks.match(config, str(root / "f"))
    assert found.watch is None
    assert "'mask'" in found.reason


@pytest.mark.parametrize("event", ["created", "renamed"])
def test_whole_directories_keep_to_the_mask(tmp_path: Path, event: str) -> None:
    mask = CREATE if event == "created" else MOVED_TO
    config = site(
        tmp_path, rec=False, auto_add=False, mask=mask, kind=WatchKind.DIRECTORIES, rescan=0.2
    )
    root = tmp_path / "up"
    with running(config) as (pipeline, publisher):
        (root / "created").mkdir()
        (tmp_path / "renamed").mkdir()
        (tmp_path / "renamed").rename(root / "renamed")
        wait_until(lambda: publisher.paths, what="one is sent")
        known = pipeline.journal.known.versions
        wait_until(lambda: len(known([str(root / "created"), str(root / "renamed")])) == 2)
        pipeline.rescan()
        units = pipeline.parts.loops[0].watcher
        wait_until(lambda: not (units.scanner.pending or units._schedule._asked))
    assert publisher.paths == [str(root / event)]


def test_a_scan_of_whole_directories_waits_for_what_events_say(tmp_path: Path) -> None:
    """The event of a directory that comes while it is listed is still unread."""
    config = site(tmp_path, rec=False, auto_add=False, mask=MOVED_TO, kind=WatchKind.DIRECTORIES)
    root = tmp_path / "up"
    with running(config) as (pipeline, publisher):
        walker = pipeline.parts.loops[0].watcher.source._walker
        attach = walker._watch_table.attach

        def late(node: Node, descriptor: int) -> None:
            (root / "created").mkdir(exist_ok=True)
            attach(node, descriptor)

        walker._watch_table.attach = late  # type: ignore[method-assign]  # — makes it then
        pipeline.rescan()
        known = pipeline.journal.known.versions
        wait_until(lambda: known([str(root / "created")]), what="it is known")
        (tmp_path / "renamed").mkdir()
        (tmp_path / "renamed").rename(root / "renamed")
        wait_until(lambda: str(root / "renamed") in publisher.paths, what="the other is sent")
    assert publisher.paths == [str(root / "renamed")]


# What `match` and `scan` say


@pytest.mark.parametrize(("rec", "auto_add"), FLAGS)
def test_match_says_what_rec_and_auto_add_mean(tmp_path: Path, rec: bool, auto_add: bool) -> None:
    config = site(tmp_path, rec=rec, auto_add=auto_add)
    root = tmp_path / "up"
    found = checks.match(config, str(root / "a/b/f"))
    conditions = {
        (False, False): "",
        (False, True): f"if {root}/a is made while watchman runs ('rec' is not set)",
        (True, False): f"if {root}/a/b is there when watchman starts ('auto_add' is not set)",
        (True, True): "",
    }
    assert found.condition == conditions[rec, auto_add]
    assert (found.condition in found.text()) is True
    assert (found.task is None) == (not rec and not auto_add)
    assert checks.match(config, str(root / "f")).task == "task"


@pytest.mark.parametrize(("rec", "auto_add"), FLAGS)
def test_scan_finds_what_a_start_finds(tmp_path: Path, rec: bool, auto_add: bool) -> None:
    config = site(tmp_path, rec=rec, auto_add=auto_add)
    root = tmp_path / "up"
    (root / "a/b").mkdir(parents=True)
    for directory in ("", "a", "a/b"):
        upload(root / directory / "file")
    (tmp_path / "state").mkdir()
    Journal(config.state_dir).close()
    with open_reader(config.state_dir) as journal:
        unknown = {one.path for one in scanning.unknown(config, journal)}
    with running(config) as (_, publisher):
        settled(root, publisher)
        assert {path for path in publisher.paths if "marker" not in path} == unknown


def test_a_finished_name_is_told_by_its_extension() -> None:
    unfinished = ["a.tmp", "a.tmp1234", ".tmp", "x.y.tmpl"]
    finished = ["study.tmpl.final", "a.tmp.d", "tmp", "a.Tmp", "a"]
    assert all(coverage.is_unfinished(name, None) for name in unfinished)
    assert not any(coverage.is_unfinished(name, None) for name in finished)
    assert coverage.is_unfinished("study.tmpl.final", ("*.tmp*",))


def test_judging_asks_for_directories_and_files_apart() -> None:
    router = Router([], ignore=["*.part"])
    assert coverage.judge(Watch("/w", rec=True, auto_add=True), "/w/d.part/f", router).reason == ""
    found = coverage.judge(Watch("/w", rec=True, auto_add=True), "/w/d/f.part", router)
    assert found.left_out is coverage.LeftOut.IGNORED


# Where they disagreed before they asked in one place (test_same_coverage.py)


def units(tmp_path: Path, **watch: Any) -> Config:
    """A watch for whole directories; those called `a` get a task."""
    config = site(tmp_path, auto_add=False, kind=WatchKind.DIRECTORIES, **watch)
    return replace(config, patterns=(("*/a", Route("b", "task")),))


def scanned(config: Config) -> dict[str, tuple[str, str]]:
    """Return what `scan` finds: state and note, by the path below the watch."""
    Path(config.state_dir).mkdir(exist_ok=True)
    Journal(config.state_dir).close()
    with open_reader(config.state_dir) as journal:
        found = list(scanning.unknown(config, journal))
    return {os.path.relpath(one.path, one.watch): (one.state, one.note) for one in found}


def test_a_directory_without_its_marker_is_no_complete_one(tmp_path: Path) -> None:
    config = units(tmp_path, marker="done")
    root = tmp_path / "up"
    for name in ("a", "with/a", "without/a"):
        (root / name).mkdir(parents=True)
    (root / "with/done").touch()
    assert scanned(config) == {"a": ("being written", ""), "with/a": ("being written", "")}
    (root / "a/done").touch()
    assert scanned(config)["a"] == ("complete", "")
    found = checks.match(config, str(root / "without/a"))
    assert found.condition == f"if done is in {root}/without ('marker')"


def test_a_directory_that_has_to_be_quiet_is_not_called_complete(tmp_path: Path) -> None:
    config = units(tmp_path, settle=5.0)
    (tmp_path / "up/a").mkdir()
    assert scanned(config) == {"a": ("not tested", "")}


def test_scan_finds_another_directory_under_a_known_name(tmp_path: Path) -> None:
    config = units(tmp_path)
    path = tmp_path / "up/a"
    path.mkdir()
    with running(config) as (_, publisher):
        wait_until(lambda: publisher.paths == [str(path)], what="it is sent")
    assert scanned(config) == {}
    path.rename(tmp_path / "away")
    path.mkdir()
    assert scanned(config) == {"a": ("complete", "")}
    with running(config, publisher):
        wait_until(lambda: publisher.paths == [str(path)] * 2, what="the other one is sent")


def test_nothing_below_a_directory_of_a_dry_run_is_looked_at(tmp_path: Path) -> None:
    root = tmp_path / "up"
    config = replace(units(tmp_path), dry_run=(f"{root}/x",))
    (root / "x/a").mkdir(parents=True)
    (root / "y/a").mkdir(parents=True)
    assert scanned(config) == {"x": ("complete", "DRY_RUN matches"), "y/a": ("complete", "")}
    reason = f"DRY_RUN matches {root}/x, and nothing below it is looked at"
    assert checks.match(config, str(root / "x/a")).reason == reason
    with running(config) as (_, publisher):
        wait_until(lambda: publisher.paths == [str(root / "y/a")], what="the other one is sent")


def test_what_came_after_a_first_run_began_is_no_old_one(tmp_path: Path) -> None:
    """The directory was not there then; nobody has scanned it to the end yet."""
    config = site(tmp_path, existing=Existing.NEW)
    root = tmp_path / "up"
    root.rmdir()
    with running(config):
        pass
    root.mkdir()
    upload(root / "f")
    assert scanned(config) == {"f": ("complete", "")}
    with running(config) as (_, publisher):
        wait_until(lambda: publisher.paths == [str(root / "f")], what="it is sent")


def test_a_watch_that_sees_a_path_in_any_case_counts_before_one_that_may(tmp_path: Path) -> None:
    config = site(tmp_path, rec=False)
    root = tmp_path / "up"
    inner = Watch(str(root / "a"), rec=True)
    config = replace(config, watches=(*config.watches, inner))
    assert checks.match(config, str(root / "a/f")).watch == inner.path
    assert checks.match(config, str(root / "a/b/f")).watch == inner.path
    outer = replace(inner, path=str(root), auto_add=True)
    config = replace(config, watches=(inner, outer))
    found = checks.match(config, str(root / "a/b/f"))
    assert (found.watch, found.condition) == (outer.path, "")


def test_match_knows_what_begins_to_match_a_pattern(tmp_path: Path) -> None:
    config = site(tmp_path)
    root = tmp_path / "up"
    glob = Watch(str(root / "*/in"), existing=Existing.ALL, pattern=str(root / "*/in"))
    config = replace(config, watches=(), globs=(glob,))
    made = f"if {root}/a/in is made, which then matches {root}/*/in"
    found = checks.match(config, str(root / "a/in/f"))
    assert (found.watch, found.task, found.condition) == (str(root / "a/in"), "task", made)
    assert checks.match(config, str(root / "a/in/deep/f")).watch is None
    assert checks.match(config, str(root / ".a/in/f")).watch is None
    assert checks.match(config, str(root / "a/b/in/f")).watch is None
    with running(config) as (pipeline, publisher):
        for directory in ("a/in", ".a/in", "a/b/in"):
            (root / directory).mkdir(parents=True)
            upload(root / directory / "f")
        wait_until(lambda: publisher.paths == [str(root / "a/in/f")], what="the one is sent")
        assert checks.match(pipeline.config, str(root / "a/in/f")).condition == ""


def test_whole_directories_arrive_no_deeper_than_rec_says(tmp_path: Path) -> None:
    watch = Watch(str(tmp_path), auto_add=True, kind=WatchKind.DIRECTORIES)
    assert [coverage.may_reach(watch, below) for below in ("", "a", "a/b")] == [True, True, False]
    assert coverage.may_reach(replace(watch, rec=True), "a/b")
    out = replace(watch, rec=True, exclude=lambda path: path.endswith("/out"))
    assert [coverage.may_reach(out, below) for below in ("out", "a/out/b", "a")] == [
        False,
        False,
        True,
    ]


def test_a_path_that_no_program_can_open_is_not_promised(tmp_path: Path) -> None:
    config = site(tmp_path)
    path = str(tmp_path / "up") + "/d" * 2050
    found = checks.match(config, path)
    assert found.task is None
    assert found.reason == "its path is longer than 4095 bytes, so that no program can open it"


def test_check_counts_the_directories_that_are_watched(tmp_path: Path) -> None:
    for name in ("a/below", "b/a", "skip/below", "x.tmp"):
        (tmp_path / name).mkdir(parents=True)
    router = Router([("*/a", Route("b", "task"))], ignore=["skip"])
    files = Watch(str(tmp_path), rec=True)
    assert trees.walk(files, router).directories == 6  # with the watch's own; not what is ignored
    whole = replace(files, kind=WatchKind.DIRECTORIES)
    assert trees.walk(whole, router).directories == 2  # its own and `b`, which is no unit itself
    processor = replace(files, processor=print, processor_name="print")
    assert trees.walk(processor, router).directories == 8


# Names of files in progress


@pytest.mark.parametrize("temporary", ["{}.tmp", "{}.PARTIAL", ".sftpgo-upload.x.{}", ".in.{}"])
def test_a_file_is_not_moved_away_under_its_uploader_s_rename(
    tmp_path: Path, temporary: str
) -> None:
    config = replace(site(tmp_path), ignore=DEFAULT_IGNORE)
    root, store = tmp_path / "up", tmp_path / "store"
    store.mkdir()
    config = replace(config, moves=((str(root), str(store)),))
    with running(config) as (_, publisher):
        for number in range(20):
            early = root / temporary.format(f"f{number}.csv")
            upload(early)
            early.rename(root / f"f{number}.csv")
        expected = {str(store / f"f{number}.csv") for number in range(20)}
        wait_until(lambda: set(publisher.paths) == expected, what="all are sent")


def test_a_directory_with_such_a_name_is_one_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    units = tmp_path / "units"
    (units / "before.tmp").mkdir(parents=True)
    config = replace(site(tmp_path), ignore=DEFAULT_IGNORE)
    config = replace(
        config,
        watches=(
            *config.watches,
            Watch(str(units), kind=WatchKind.DIRECTORIES, existing=Existing.ALL),
        ),
    )
    root = tmp_path / "up"
    (root / "early.part").mkdir()
    with caplog.at_level("INFO"), running(config) as (_, publisher):
        (units / "x.tmp").mkdir()
        (root / "late.tmp").mkdir()
        for name in ("early.part", "late.tmp"):
            sent = upload(root / name / "file")
            wait_until(lambda path=sent: path in publisher.paths, what=sent)  # type: ignore[misc]  # — binds now
        wait_until(lambda: f"2|NOTFINISHED: {units}/x.tmp" in caplog.messages)
        assert checks.match(config, str(root / "early.part/file")).task == "task"


def test_polling_leaves_out_and_follows_the_same(tmp_path: Path) -> None:
    config = site(tmp_path, rec=False, method=Method.POLL, interval=0.1, settle=0.0)
    root = tmp_path / "up"
    (root / "before").mkdir()
    with running(config) as (_, publisher):
        (root / "later/deep").mkdir(parents=True)
        upload(root / "later/deep/file")
        upload(root / "before/file")
        sent = str(root / "later/deep/file")
        wait_until(lambda: sent in publisher.paths, 20, "what came later is sent")
        assert settled(root, publisher) == {"later/deep/file"}
