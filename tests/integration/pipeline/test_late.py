"""What is not there yet: a watch's directory, what matches a pattern, a destination."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.mounted import mounted, unmount
from tests.running import Remembering, config_for, running, troubles
from tests.waiting import wait_until
from watchman.config.globs import expand
from watchman.model import Config, Criteria, Criterion, Existing, Method, Watch, WatchKind
from watchman.pipeline import Pipeline
from watchman.sources import just_gone
from watchman.sources.at_start import Starts
from watchman.sources.instance import IN_CREATE

pytestmark = pytest.mark.usefixtures("often")
heard: list[str] = []


def await_count(sent: Remembering, count: int) -> None:
    """Wait until so many tasks were sent, and no more."""
    wait_until(lambda: len(sent.paths) >= count, what=f"{count} tasks")
    assert len(sent.paths) == count


def processor(event: Any) -> None:
    """Stand for a processor of the user's own."""
    heard.append(event.pathname)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that is not there yet, nor the one above it."""
    return tmp_path / "mnt/up"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def config_of(root: Path, state: Path, *watches: Watch, **changes: Any) -> Config:
    return dataclasses.replace(config_for(root, state), watches=watches, **changes)


KINDS: dict[str, dict[str, Any]] = {
    "files": {"rec": True},
    "polled files": {"rec": True, "method": Method.POLL, "interval": 0.1, "settle": 0.0},
    "directories": {"kind": WatchKind.DIRECTORIES},
    "polled directories": {"kind": WatchKind.DIRECTORIES, "method": Method.POLL, "interval": 0.1},
}

PROCESSOR = {"mask": 0x100, "processor": processor, "processor_name": "p"}

LATER = "create it or mount it: it is watched as soon as it is there"


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_that_is_missing_at_the_start_is_watched_as_soon_as_it_is_there(
    root: Path, state: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(str(root), **KINDS[kind])
    with running(config_of(root, state, watch)) as (pipeline, sent):
        missing = f"No such file or directory; {LATER}"
        assert troubles(pipeline) == {str(root): missing}
        root.mkdir(parents=True)
        wait_until(lambda: not troubles(pipeline), what="it is watched")
        arrival = root / "arrival"
        arrival.mkdir() if watch.kind is WatchKind.DIRECTORIES else arrival.write_text("1")
        wait_until(lambda: sent.paths == [str(arrival)], what="its task")
    said = [r.message for r in caplog.records if f"{root}" in r.message and r.levelno > 20]
    assert said == [f"Not watching {root}: {missing}", f"Watching {root} again"]


def test_a_processor_whose_root_is_missing_at_the_start(root: Path, state: Path) -> None:
    watch = Watch(str(root), mask=0x100, processor=processor, processor_name="p")
    heard.clear()
    with running(config_of(root, state, watch)) as (pipeline, _):
        assert list(troubles(pipeline)) == [str(root)]
        root.mkdir(parents=True)
        wait_until(lambda: not troubles(pipeline), what="it is watched")
        (root / "made").touch()
        wait_until(lambda: heard == [str(root / "made")], what="the event")


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_what_a_late_mount_brings_along_was_there_before_the_first_run(
    root: Path, state: Path, tmp_path: Path, kind: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    names = ("old", "new")
    make = Path.mkdir if kind == "directories" else Path.touch
    make(disk / names[0])
    await_next_tick(disk / names[0])
    with running(config_of(root, state, Watch(str(root), **KINDS[kind]))) as (_, sent):
        make(disk / names[1])
        root.parent.mkdir()
        disk.rename(root)
        wait_until(lambda: sent.paths, what="the task of what came since")
    assert sent.paths == [str(root / "new")]
    # The next run has nothing before it.
    make(root / "down")
    with running(config_of(root, state, Watch(str(root), **KINDS[kind]))) as (_, sent):
        wait_until(lambda: sent.paths, what="the task of what came while it was down")
        assert sent.paths == [str(root / "down")]


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_a_watch_that_a_reload_brings_has_a_first_run(root: Path, state: Path, kind: str) -> None:
    root.mkdir(parents=True)
    make = Path.mkdir if kind == "directories" else Path.touch
    make(root / "old")
    await_next_tick(root / "old")
    config = config_of(root, state, Watch(str(root), **KINDS[kind]))
    with running(config, resumed=True) as (_, sent):
        make(root / "new")
        await_count(sent, 1)
    assert sent.paths == [str(root / "new")]


def await_next_tick(path: Path) -> None:
    """Wait until what is made now is newer than what is at the path, whatever the clock's grain."""
    probe = path.parent / ".probe"
    after = os.stat(path).st_ctime_ns + 100_000_000

    def is_later() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns > after

    wait_until(is_later, what="the clock goes on")
    probe.unlink()


# Patterns


def globbing(root: Path, state: Path, **changes: Any) -> Config:
    pattern = str(root / "*/in")
    changes = changes or {"rec": True, "auto_add": True}
    one = Watch(pattern, pattern=pattern, **changes)
    return config_of(root, state, *expand((), [one]).watches, globs=(one,))


def watched(pipeline: Pipeline) -> list[str]:
    return [watch.path for watch in pipeline.config.watches]


def test_what_begins_to_match_a_pattern_is_watched(root: Path, state: Path) -> None:
    with running(globbing(root, state)) as (pipeline, sent):
        pattern = f"{root}/*/in"
        assert troubles(pipeline) == {pattern: f"no directory matches; {LATER}"}
        for number, name in enumerate(("anna", "bert"), 1):
            # With a file in it before anybody has looked.
            (root / name / "in/below").mkdir(parents=True)
            (root / name / "in/below/first.csv").touch()
            await_count(sent, number)
            assert watched(pipeline)[-1] == str(root / name / "in")
        wait_until(lambda: not troubles(pipeline), what="the pattern is well")
        (root / "bert/in/below/live.csv").touch()
        await_count(sent, 3)
        assert pipeline.parts.covers(pipeline.config.watches[1]) == 2
        assert pipeline.parts.local.scanner.progress.paths == watched(pipeline)


def test_what_begins_to_match_asks_what_its_pattern_does(root: Path, state: Path) -> None:
    asked = Criteria((Criterion("marker", "{name}.done"),))
    config = globbing(root, state, rec=True, auto_add=True, criteria=asked)
    with running(config) as (pipeline, sent):
        for number, name in enumerate(("anna", "bert"), 1):
            directory = root / name / "in"
            directory.mkdir(parents=True)
            (directory / "a.csv").write_text("1")
            wait_until(lambda n=number: pipeline.parts.partial == n, what="it waits")  # type: ignore[misc]  # — binds n
        assert sent.paths == []
        (root / "anna/in/a.csv.done").touch()
        await_count(sent, 1)
        (root / "anna").rename(root / "anna.away")
        wait_until(lambda: watched(pipeline) == [f"{root}/{n}/in" for n in ("bert", "anna.away")])
        (root / "bert/in/a.csv.done").touch()
        wait_until(lambda: f"{root}/bert/in/a.csv" in sent.paths, what="it is still asked")


def test_what_waited_in_a_directory_that_is_late_goes_on_waiting(
    root: Path, state: Path, tmp_path: Path
) -> None:
    asked = {"rec": True, "criteria": Criteria((Criterion("marker", "{name}.done"),))}
    (root / "anna/in").mkdir(parents=True)
    with running(globbing(root, state, **asked)) as (pipeline, _):
        (root / "anna/in/a.csv").write_text("1")
        (before,) = wait_until(lambda: pipeline.journal.partial.below(str(root)))
    (root / "anna").rename(tmp_path / "aside")
    with running(globbing(root, state, **asked)) as (pipeline, sent):
        (tmp_path / "aside").rename(root / "anna")
        wait_until(lambda: pipeline.parts.partial, what="it waits again")
        assert pipeline.journal.partial.below(str(root)) == [before]
        (root / "anna/in/a.csv.done").touch()
        await_count(sent, 1)
        wait_until(lambda: not pipeline.journal.partial.below(str(root)))


def test_what_begins_to_match_has_the_mask_of_its_pattern(root: Path, state: Path) -> None:
    with running(globbing(root, state, mask=IN_CREATE)) as (pipeline, sent):
        directory = root / "anna/in"
        directory.mkdir(parents=True)
        wait_until(lambda: any(map(pipeline.parts.covers, pipeline.config.watches)))
        # Most are made, written and closed before anybody looks: one hint, of the last event.
        for number in range(300):
            (directory / f"{number}.csv").write_text("1")
        await_count(sent, 300)


def test_what_a_pattern_asks_of_files_is_asked_where_a_directory_begins_to_match(
    root: Path, state: Path
) -> None:
    asked = Criteria((Criterion("format", "gzip"), Criterion("marker", "{name}.done")))
    config = globbing(root, state, rec=True, auto_add=True, criteria=asked)
    whole = gzip.compress(b"rain\n" * 500)
    with running(config) as (pipeline, sent):
        (root / "anna/in").mkdir(parents=True)
        wait_until(lambda: watched(pipeline) == [f"{root}/anna/in"], what="it is watched")
        half, file = root / "anna/in/half.gz", root / "anna/in/whole.gz"
        for path, contents in ((half, whole[:-5]), (file, whole)):
            path.write_bytes(contents)
            Path(f"{path}.done").touch()
        await_count(sent, 1)
        rows = pipeline.journal.partial.below
        wait_until(lambda: [one.path for one in rows(str(root))] == [str(half)], what="it waits")
        assert sent.paths == [str(file)]


def test_a_processor_of_another_watch_goes_on_where_a_directory_begins_to_match(
    root: Path, state: Path
) -> None:
    (root / "one").mkdir(parents=True)
    heard.clear()
    options: dict[str, Any] = {"mask": 0x100, "processor": processor, "processor_name": "p"}
    one = Watch(f"{root}/one", **options)
    pattern = Watch(f"{root}/*/in", pattern=f"{root}/*/in", **options)
    config = config_of(root, state, one, globs=(pattern,))
    with running(config) as (pipeline, _):
        (root / "anna/in").mkdir(parents=True)
        wait_until(lambda: f"{root}/anna/in" in watched(pipeline), what="it is watched")
        wait_until(lambda: pipeline.parts.covers(pipeline.config.watches[1]) == 1)
        (root / "anna/in/x").touch()
        wait_until(lambda: heard == [f"{root}/anna/in/x"], what="the new one's event")
        (root / "one/y").touch()
        wait_until(lambda: heard[1:] == [f"{root}/one/y"], what="the other one's")


def test_a_processor_is_told_that_nobody_has_watched_during_a_reload(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir(parents=True)
    told: list[tuple[str, str]] = []

    def tell(event: Any) -> None:
        told.append((event.maskname, event.pathname))

    watch = Watch(str(root), mask=0x100, processor=tell, processor_name="p")
    config, starts = config_of(root, state, watch), Starts()
    lost = ("IN_Q_OVERFLOW", str(root))
    for number in range(3):
        caplog.clear()
        # In between there is one without it: then nothing is lost.
        with running(config if number != 1 else config_for(root, state), starts=starts):
            pass
        told.clear()
        with (
            caplog.at_level(logging.INFO),
            running(config, starts=starts, resumed=True),
        ):
            (root / f"{number}").touch()
            made = ("IN_CREATE", f"{root}/{number}")
            expected = [made] if number == 1 else [lost, made]
            wait_until(lambda one=expected: told == one, what=f"{expected}")  # type: ignore[misc]  # — binds now
        line = (
            f"Nobody has watched {root} for a moment: the processor p gets IN_Q_OVERFLOW for what "
            "it may have missed"
        )
        assert [r.message for r in caplog.records if "Q_OVERFLOW" in r.message] == (
            [] if number == 1 else [line]
        )


def test_what_began_to_match_while_it_was_down_is_no_first_run(root: Path, state: Path) -> None:
    (root / "anna/in").mkdir(parents=True)
    (root / "anna/in/old.csv").touch()
    await_next_tick(root / "anna/in/old.csv")
    with running(globbing(root, state)) as (_, sent):
        pass
    assert not sent.paths
    (root / "bert/in").mkdir(parents=True)
    (root / "bert/in/new.csv").touch()
    with running(globbing(root, state)) as (_, sent):
        wait_until(lambda: sent.paths == [str(root / "bert/in/new.csv")], what="its task")


@pytest.mark.parametrize("level", ["", "/in"])
@pytest.mark.parametrize("kind", [*KINDS, "processor"])
def test_a_directory_that_is_gone_is_watched_no_more(
    root: Path, state: Path, tmp_path: Path, level: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "watchman")
    for name in ("anna", "bert"):
        (root / name / "in").mkdir(parents=True)
    changes = KINDS.get(kind, PROCESSOR)
    with running(globbing(root, state, **changes)) as (pipeline, _):
        (root / f"anna{level}").rename(tmp_path / "aside")
        # A pipeline that ends has left a configuration for the next, as in the service.
        wait_until(lambda: watched(pipeline) == [f"{root}/bert/in"], what="it is given up")
        config = pipeline.config
    assert [r.message for r in caplog.records if "no more" in r.message] == [
        f"{root}/anna/in is gone, and watched no more"
    ]
    assert not [r.message for r in caplog.records if "Not watching" in r.message]
    heard.clear()
    with running(config, resumed=True) as (pipeline, sent):
        assert not troubles(pipeline)
        (tmp_path / "aside").rename(root / f"anna{level}")
        wait_until(lambda: watched(pipeline) == [f"{root}/bert/in", f"{root}/anna/in"])
        config = pipeline.config
    with running(config, resumed=True) as (pipeline, sent):
        arrival = root / "anna/in/arrival"
        arrival.mkdir() if "directories" in kind else arrival.write_text("1")
        wait_until(lambda: str(arrival) in (heard if kind == "processor" else sent.paths))


def test_a_directory_that_matches_again_is_watched_in_the_same_loop(
    root: Path, state: Path, tmp_path: Path
) -> None:
    (root / "anna/in").mkdir(parents=True)
    (root / "bert").mkdir()
    with running(globbing(root, state)) as (pipeline, sent):
        for number in range(1, 4):
            (root / "anna").rename(tmp_path / "aside")
            wait_until(lambda: watched(pipeline) == [], what="it is given up")
            wait_until(lambda: list(troubles(pipeline)) == [f"{root}/*/in"], what="none matches")
            (tmp_path / "aside").rename(root / "anna")
            wait_until(lambda: watched(pipeline) == [f"{root}/anna/in"], what="it is there")
            wait_until(lambda: not troubles(pipeline), what="all is well")
            (root / f"anna/in/{number}.csv").touch()
            await_count(sent, number)
            assert len(pipeline.parts.local.source.roots) == 1


@pytest.mark.parametrize("mount_point", [False, True])
def test_what_may_only_be_unmounted_is_missed(
    root: Path,
    state: Path,
    tmp_path: Path,
    mount_point: bool,
    other_device: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mount is played by a symlink before the wildcard, or by a device that was another one."""
    monkeypatch.setattr(just_gone, "WITHIN", 0.5)
    (other_device / "anna/in").mkdir(parents=True)
    root.parent.mkdir()
    root.symlink_to(other_device)
    empty = tmp_path / "empty"
    empty.mkdir()
    with running(globbing(root, state)) as (pipeline, sent):
        root.unlink()
        if mount_point:
            root.symlink_to(empty)
        wait_until(lambda: list(troubles(pipeline)) == [f"{root}/anna/in"], what="it is missed")
        assert watched(pipeline) == [f"{root}/anna/in"]
        root.unlink(missing_ok=True)
        root.symlink_to(other_device)
        wait_until(lambda: not troubles(pipeline))
        (root / "anna/in/x.csv").touch()
        wait_until(lambda: sent.paths == [f"{root}/anna/in/x.csv"])


def test_what_is_given_up_with_its_mount_is_no_trouble(root: Path, state: Path) -> None:
    """What lies behind the mount point tells that it is no empty one."""
    (root / "anna").mkdir(parents=True)
    (root / "anna/behind").touch()
    with mounted(root / "anna"):
        (root / "anna/in").mkdir()
        with running(globbing(root, state)) as (pipeline, _):
            unmount(root / "anna")
            wait_until(lambda: watched(pipeline) == [], what="it is given up")
            wait_until(lambda: list(troubles(pipeline)) == [f"{root}/*/in"], what="none matches")


def test_a_symlink_that_matches_is_no_way_out(root: Path, state: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "in/secret.csv").touch()
    (root / "anna").mkdir(parents=True)
    store = tmp_path / "store"
    store.mkdir()
    config = dataclasses.replace(globbing(root, state), moves=((str(root), str(store)),))
    with running(config) as (pipeline, sent):
        (root / "evil").symlink_to(outside)
        (root / "anna/in").symlink_to(outside / "in")
        (root / "dora/in").mkdir(parents=True)
        wait_until(lambda: watched(pipeline) == [f"{root}/dora/in"], what="what is one")
        (root / "dora/in/x.csv").touch()
        await_count(sent, 1)
    assert sent.paths == [f"{store}/dora/in/x.csv"]
    assert (outside / "in/secret.csv").exists()


@pytest.mark.parametrize("level", ["", "/in"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_that_matched_is_swapped_for_a_symlink(
    root: Path, state: Path, tmp_path: Path, level: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(just_gone, "WITHIN", 0.5)
    (root / "anna/in").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    for directory in (outside, outside / "in"):
        (directory / "secret.csv").touch()
        (directory / "secret").mkdir()
    changes = {"rec": True, "auto_add": True, "existing": Existing.ALL, **KINDS[kind]}
    # Before anybody has seen that it matches no more.
    config = dataclasses.replace(globbing(root, state, **changes), globs=())
    with running(config) as (pipeline, sent):
        (root / f"anna{level}").rename(tmp_path / "aside")
        (root / f"anna{level}").symlink_to(f"{outside}{level}")
        wait_until(lambda: "Not a directory" in str(troubles(pipeline)), what="it is missed")
        assert not sent.paths
        (root / f"anna{level}").unlink()
        (tmp_path / "aside").rename(root / f"anna{level}")
        wait_until(lambda: not troubles(pipeline), what="it is back")
        arrival = root / "anna/in/arrival"
        arrival.mkdir() if "directories" in kind else arrival.write_text("1")
        await_count(sent, 1)
    assert sent.paths == [str(arrival)]


def test_without_descriptors_what_matches_is_not_gone(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "anna/in").mkdir(parents=True)
    tries: list[Watch] = []

    def no_descriptor(watch: Watch) -> os.stat_result:
        tries.append(watch)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with running(globbing(root, state)) as (pipeline, sent):
        monkeypatch.setattr("watchman.sources.roots.status_of_watch", no_descriptor)
        wait_until(lambda: len(tries) > 3, what="it is looked for")
        assert not troubles(pipeline)
        (root / "anna/in/x.csv").touch()
        await_count(sent, 1)


def test_what_would_be_watched_twice_is_left_out_and_said_once(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "bert").mkdir(parents=True)
    config = globbing(root, state)
    around = Watch(f"{root}/bert", rec=True, auto_add=True)
    with running(dataclasses.replace(config, watches=(around,))) as (pipeline, sent):
        (root / "bert/in").mkdir()
        (root / "carl/in").mkdir(parents=True)
        wait_until(lambda: watched(pipeline) == [f"{root}/bert", f"{root}/carl/in"])
        (root / "dora/in").mkdir(parents=True)
        wait_until(lambda: watched(pipeline)[-1] == f"{root}/dora/in")
        (root / "bert/in/x.csv").touch()
        wait_until(lambda: sent.paths)
    said = f"{root}/bert/in matches {root}/*/in and is left out: it would be watched twice"
    assert [r.message for r in caplog.records if "left out" in r.message] == [f"WATCHES: {said}"]
    assert sent.paths == [f"{root}/bert/in/x.csv"]


def test_what_is_left_out_is_said_also_where_it_came_just_before_the_first_look(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "bert").mkdir(parents=True)
    around = Watch(f"{root}/bert", rec=True, auto_add=True)
    config = dataclasses.replace(globbing(root, state), watches=(around,))
    (root / "bert/in").mkdir()  # since the configuration was loaded
    with running(config) as (pipeline, _):
        (root / "carl/in").mkdir(parents=True)
        wait_until(lambda: watched(pipeline)[-1] == f"{root}/carl/in")
        # Nothing of it is kept: whoever makes and removes directories could fill the memory.
        assert pipeline.config.warnings == ()
    said = f"{root}/bert/in matches {root}/*/in and is left out: it would be watched twice"
    assert [r.message for r in caplog.records if "left out" in r.message] == [f"WATCHES: {said}"]


# Destinations


def test_a_destination_that_is_missing_is_shown_before_there_is_a_file(
    root: Path, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir(parents=True)
    store = tmp_path / "store"
    move = (str(root), str(store))
    with running(config_for(root, state, moves=(move,))) as (pipeline, sent):
        subject = f"moving {root} to {store}"
        reason = (
            f"{store}: No such file or directory; create it, or mount what belongs there: files "
            "wait"
        )
        assert troubles(pipeline) == {subject: reason}
        (root / "a.csv").touch()
        wait_until(lambda: pipeline.parts.mover.status()[0].reason, what="the mover meets it")
        shown = pipeline.snapshots.take()
        assert [t for t in shown["troubles"] if t["subject"] == subject] == []  # once is enough
        store.mkdir()
        wait_until(lambda: sent.paths == [f"{store}/a.csv"], 20, "it is moved and sent")
        wait_until(lambda: not troubles(pipeline))
    said = [r.message for r in caplog.records if r.message.startswith(subject)]
    assert said == [f"{subject}: {reason}", f"{subject} is possible again"]


def test_a_destination_that_is_a_file(root: Path, state: Path, tmp_path: Path) -> None:
    root.mkdir(parents=True)
    store = tmp_path / "store"
    store.touch()
    with running(config_for(root, state, moves=((str(root), str(store)),))) as (pipeline, _):
        [reason] = troubles(pipeline).values()
        assert reason == f"{store} is no directory; put one there, or correct MOVES: files wait"
