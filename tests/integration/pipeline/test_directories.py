"""Finished directories on a real file system, with a real journal: each announced once."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyinotify
import pytest

from tests.listeners import PartsHeard, UnwatchedHeard
from tests.mounted import mounted
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman import completeness, directory_identity
from watchman.file_access import DIRECTORY_FLAGS, Look, Seen, look, version_of
from watchman.journal import Journal
from watchman.model import Delivery, Existing, Method, Route, State, Watch, WatchKind
from watchman.pipeline import schedule
from watchman.pipeline.directories import Directories, DirectoryWatcher
from watchman.pipeline.watcher import WatcherThread
from watchman.router import Router
from watchman.sources import directory_version
from watchman.sources.at_start import Starts
from watchman.sources.directory_source import DirectorySource, Hint
from watchman.sources.instance import Instance
from watchman.troubles import Troubles

pytestmark = pytest.mark.usefixtures("often")
GRAIN_NS = 10_000_000
"""How far the kernel's coarse clock may be behind."""


class Scene:
    """A watched directory, a place outside it, and a journal that outlives watchers."""

    def __init__(self, base: Path) -> None:
        self.data, self.outside, self.state = base / "data", base / "outside", base / "state"
        for path in (self.data, self.outside, self.state):
            path.mkdir()
        self.journal = Journal(str(self.state))
        self.pattern = f"{self.data}/*"
        self.moves: tuple[tuple[str, str], ...] = ()
        self.dry_run: tuple[str, ...] = ()
        self.heard = PartsHeard()
        self.unwatched = UnwatchedHeard()
        self.troubles = Troubles()

    @contextmanager
    def watching(self, **options: Any) -> Iterator[DirectoryWatcher]:
        watch = Watch(str(self.data), kind=WatchKind.DIRECTORIES, **options)
        router = Router([(self.pattern, Route("b", "import"))], self.moves, [".w*"], self.dry_run)
        source = DirectorySource([watch], router, self.unwatched, Starts())
        watcher = DirectoryWatcher(
            source, self.journal, router, self.heard, self.troubles, resumed=False
        )
        thread = WatcherThread(watcher, self.journal)
        thread.start()
        try:
            wait_until(lambda: watcher.watching)
            yield watcher
        finally:
            thread.stop()
            assert thread.join(30)
            assert thread.error is None

    @property
    def deliveries(self) -> list[Delivery]:
        ready = self.journal.page_ready("b", 0, 10_000)
        return sorted([*ready, *self.journal.page_strays((), 10_000)], key=lambda d: d.seq)

    @property
    def announced(self) -> list[str]:
        return [os.path.relpath(d.source, self.data) for d in self.deliveries]

    def flush(self) -> list[str]:
        """Return what was announced, after all that happened before now has been handled."""
        mark = self.data / f"mark{time.monotonic_ns()}"
        mark.mkdir()
        wait_until(lambda: mark.name in self.announced, what=f"{mark.name} in the journal")
        return [name for name in self.announced if not name.startswith("mark")]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.journal.close()


def age(path: Path) -> None:
    """Wait until what is there was changed longer ago than the clock's grain."""
    changed = path.stat().st_ctime_ns
    wait_until(lambda: time.time_ns() > changed + 3 * GRAIN_NS)


def test_the_documented_log_lines(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.dry_run = (f"{scene.data}/test*",)
    lines: Callable[[], list[str]] = lambda: [  # noqa: E731 — read again and again
        record.getMessage().replace(str(scene.data), "/data")
        for record in caplog.records
        if record.name == "watchman.notify" and record.levelno >= logging.INFO
    ]
    with caplog.at_level(logging.DEBUG), scene.watching():
        (scene.data / "test_finished").mkdir()
        (scene.data / "test_notfinished.tmp1234").mkdir()
        (scene.data / "test_notfinished.tmp1234").rename(scene.data / "test_nowfinished")
        wait_until(lambda: len(lines()) >= 6)
        assert lines() == [
            "1|CREATE EVENT: /data/test_finished",
            "2|FINISHED: /data/test_finished",
            "1|CREATE EVENT: /data/test_notfinished.tmp1234",
            "2|NOTFINISHED: /data/test_notfinished.tmp1234",
            "1|MOVEDTO EVENT: /data/test_nowfinished",
            "2|FINISHED: /data/test_nowfinished",
        ]
        assert scene.flush() == []
    adding = f"Adding watch on {scene.data}, processed by watchman.processors.FinishedDirectories"
    assert ("watchman.notify", logging.DEBUG, adding) in caplog.record_tuples


def test_200_directories_by_slow_writers_across_restarts(scene: Scene) -> None:
    chance = random.Random(5)
    wanted: list[str] = []

    def fill(number: int) -> None:
        base = scene.outside if number % 3 == 0 else scene.data
        unfinished, final = base / f"s{number}.tmp{number}", scene.data / f"s{number}"
        for depth in range(number % 4):
            inside = unfinished.joinpath(*(f"d{level}" for level in range(depth + 1)))
            inside.mkdir(parents=True)
            (inside / "image.dcm").write_bytes(b"x" * 100)
        unfinished.mkdir(exist_ok=True)
        unfinished.rename(final)
        (final / "more.dcm").write_bytes(b"y")

    def write() -> None:
        for number in range(200):
            fill(number)
            wanted.append(f"s{number}")

    with scene.watching():
        pass
    writer = threading.Thread(target=write)
    writer.start()
    # Watchers come and go while the writer works; its last directories may find none of them.
    while writer.is_alive():
        with scene.watching():
            goal = len(scene.announced) + chance.randrange(1, 50)
            wait_until(lambda goal=goal: len(scene.announced) >= goal or not writer.is_alive())  # type: ignore[misc]  # — binds now
    writer.join()
    with scene.watching() as watcher:
        wait_until(lambda: len(scene.announced) >= 200)
        watcher.rescan()
        scene.flush()
    assert len(wanted) == 200
    found = [name for name in scene.announced if not name.startswith("mark")]
    assert sorted(found) == sorted(wanted)
    assert len({d.task_id for d in scene.deliveries}) == len(scene.deliveries)
    assert {d.kind for d in scene.deliveries} == {"directories"}


def test_changes_inside_announce_nothing(scene: Scene) -> None:
    (scene.outside / "a" / "deep").mkdir(parents=True)
    with scene.watching():
        (scene.outside / "a").rename(scene.data / "a")
        wait_until(lambda: scene.announced)
        (scene.data / "a" / "deep" / "new").mkdir()
        (scene.data / "a" / "file").write_bytes(b"x")
        (scene.data / "a").chmod(0o700)
        assert scene.flush() == ["a"]
    (scene.data / "a" / "while-down").mkdir()
    with scene.watching() as watcher:
        watcher.rescan()
        assert scene.flush() == ["a"]


def test_a_directory_made_anew_is_a_new_one(scene: Scene) -> None:
    with scene.watching():
        for count in (1, 2):
            (scene.data / "a").mkdir()
            assert scene.flush() == ["a"] * count
            (scene.data / "a").rmdir()
            scene.flush()
        (scene.data / "a").mkdir()
        assert scene.flush() == ["a"] * 3
    inode = (scene.data / "a").stat().st_ino
    # While nobody watches, the same name often gets the same inode number again.
    (scene.data / "a").rmdir()
    age(scene.data)
    (scene.data / "a").mkdir()
    with scene.watching():
        assert scene.flush() == ["a"] * 4, inode
    assert len({d.task_id for d in scene.deliveries}) == len(scene.deliveries)


def test_finished_again_after_it_was_taken_back(scene: Scene) -> None:
    with scene.watching():
        (scene.data / "a").mkdir()
        assert scene.flush() == ["a"]
        (first,) = [d for d in scene.deliveries if d.source.endswith("/a")]
        scene.journal.note([(first.seq, State.SENT, "")])
        (scene.data / "a").rename(scene.data / "a.tmp")
        assert scene.flush() == []
        (scene.data / "a.tmp").rename(scene.data / "a")
        assert scene.flush() == ["a"]
    (second,) = [d for d in scene.deliveries if d.source.endswith("/a")]
    assert second.task_id != first.task_id


def test_one_that_comes_back_before_it_was_sent_is_the_delivery_that_is_there(
    scene: Scene,
) -> None:
    with scene.watching():
        (scene.data / "a").mkdir()
        assert scene.flush() == ["a"]
        for _ in range(3):
            (scene.data / "a").rename(scene.data / "a.tmp")
            assert scene.flush() == ["a"]
            (scene.data / "a.tmp").rename(scene.data / "a")
            assert scene.flush() == ["a"]


@pytest.mark.parametrize(
    ("existing", "first"), [(Existing.NEW, []), (Existing.ALL, ["old"]), (Existing.NONE, [])]
)
def test_what_was_there_before_the_first_run(
    scene: Scene, existing: Existing, first: list[str]
) -> None:
    (scene.data / "old").mkdir()
    (scene.data / "old.tmp").mkdir()
    age(scene.data)
    with scene.watching(existing=existing):
        assert scene.flush() == first
    (scene.data / "down").mkdir()
    age(scene.data)
    with scene.watching(existing=existing):
        (scene.data / "old.tmp").rename(scene.data / "late")
        found = scene.flush()
    assert found == [*first, *(["late"] if existing is Existing.NONE else ["down", "late"])]


def test_only_directories_directly_in_the_watch(scene: Scene) -> None:
    with scene.watching():
        (scene.data / "file").write_bytes(b"x")
        (scene.data / "link").symlink_to(scene.outside)
        os.mkfifo(scene.data / "fifo")
        (scene.data / ".w-temporary").mkdir()
        (scene.data / "a.tmp" / "inner").mkdir(parents=True)
        (scene.data / "b" / "inner").mkdir(parents=True)
        assert scene.flush() == ["b"]


def test_rec_enters_what_was_never_announced(scene: Scene) -> None:
    scene.pattern = f"{scene.data}/*/s*"
    (scene.data / "scanner1").mkdir()
    age(scene.data)
    with scene.watching(rec=True) as watcher:
        assert watcher.source.covers(watcher.source.roots[0].watch) == 2
        (scene.data / "scanner1" / "s1.tmp").mkdir()
        (scene.data / "scanner1" / "s1.tmp").rename(scene.data / "scanner1" / "s1")
        (scene.data / "scanner2" / "s2" / "inner").mkdir(parents=True)
        wait_until(lambda: scene.announced == ["scanner1/s1", "scanner2/s2"])
        (scene.data / "scanner1").rename(scene.data / "scanner3")
        wait_until(lambda: scene.announced[2:] == ["scanner3/s1"])
        (scene.data / "scanner3" / "s3").mkdir()
        wait_until(lambda: scene.announced[3:] == ["scanner3/s3"])
    with scene.watching(rec=True):
        (scene.data / "scanner2" / "s4").mkdir()
        wait_until(lambda: scene.announced[4:] == ["scanner2/s4"])


def test_the_marker(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with scene.watching(marker="DONE"):
        (scene.data / "a").mkdir()
        (scene.data / "a" / "other").write_bytes(b"x")
        wait_until(lambda: f"2|NOTFINISHED: {scene.data}/a" in caplog.messages)
        assert scene.announced == []
        with (scene.data / "a" / "DONE").open("wb"):
            (scene.data / "b").mkdir()
            wait_until(lambda: f"2|NOTFINISHED: {scene.data}/b" in caplog.messages)
            assert scene.announced == []
        wait_until(lambda: scene.announced == ["a"])
    assert caplog.messages[-2:] == [
        f"1|MARKER EVENT: {scene.data}/a",
        f"2|FINISHED: {scene.data}/a",
    ]
    (scene.data / "b" / "DONE").symlink_to("/etc/hostname")
    with scene.watching(marker="DONE"):
        wait_until(lambda: caplog.messages[-1] == f"2|NOTFINISHED: {scene.data}/b")
        (scene.data / "b" / "DONE").unlink()
        (scene.data / "b" / "DONE").write_bytes(b"")
        wait_until(lambda: scene.announced == ["a", "b"])


def test_a_marker_that_the_closing_writer_still_holds_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of the end of writing before the writer has let go."""
    busy = iter([Look(Seen.BUSY)] * 5)
    monkeypatch.setattr(directory_version, "look", lambda *names: next(busy, None) or look(*names))
    with scene.watching(marker="DONE"):
        (scene.data / "a").mkdir()
        (scene.data / "a" / "DONE").write_bytes(b"x")
        wait_until(lambda: scene.announced == ["a"])
    assert list(busy) == []


def test_an_empty_marker_counts_when_it_is_closed_or_old(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a new file before it counts its writer."""
    looked = threading.Event()

    def free(*names: Any) -> Look:
        found = look(*names)
        if found.seen is Seen.BUSY:
            looked.set()
            path = scene.data / "a" / "DONE"
            return Look(Seen.COMPLETE, version_of(path.stat()))
        return found

    monkeypatch.setattr(directory_version, "look", free)
    monkeypatch.setattr(completeness, "EMPTY_AGE", 3600.0)
    with scene.watching(marker="DONE"):
        (scene.data / "a").mkdir()
        with (scene.data / "a" / "DONE").open("wb"):
            assert looked.wait(10)
            (scene.data / "b").mkdir()
            (scene.data / "b" / "DONE").write_bytes(b"x")
            wait_until(lambda: scene.announced == ["b"])
        wait_until(lambda: scene.announced == ["b", "a"])
        (scene.outside / "c").mkdir()
        (scene.outside / "c" / "DONE").touch()
        (scene.outside / "c").rename(scene.data / "c")
        wait_until(lambda: scene.announced == ["b", "a", "c"])
        # Nothing tells of the end of writing here.
        monkeypatch.setattr(completeness, "EMPTY_AGE", 0.05)
        (scene.outside / "DONE").touch()
        (scene.data / "d").mkdir()
        os.link(scene.outside / "DONE", scene.data / "d" / "DONE")
        wait_until(lambda: scene.announced == ["b", "a", "c", "d"])


def test_settle_waits_for_writers_and_for_quiet(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with scene.watching(settle=0.3):
        (scene.outside / "a" / "deep").mkdir(parents=True)
        with (scene.outside / "a" / "deep" / "file").open("wb") as file:
            (scene.outside / "a").rename(scene.data / "a")
            (scene.data / "b").mkdir()
            wait_until(lambda: scene.announced == ["b"])
            file.write(b"x")
            (scene.data / "c").mkdir()
            wait_until(lambda: scene.announced == ["b", "c"])
            closed = time.monotonic()
        wait_until(lambda: scene.announced == ["b", "c", "a"])
        assert time.monotonic() - closed >= 0.3
    assert f"1|SETTLED EVENT: {scene.data}/a" in caplog.messages


def test_moves_wake_the_mover_and_tasks_the_broker(scene: Scene) -> None:
    with scene.watching():
        (scene.data / "a").mkdir()
        scene.flush()
    assert set(scene.heard.woken) == {"b"}
    scene.heard.woken.clear()
    scene.moves = ((str(scene.data), str(scene.outside)),)
    with scene.watching():
        (scene.data / "b").mkdir()
        scene.flush()
    assert set(scene.heard.woken) == set(scene.moves)
    (delivery,) = [d for d in scene.deliveries if d.source.endswith("/b")]
    assert delivery.final == str(scene.outside / "b")


def test_names_that_are_not_utf8(scene: Scene) -> None:
    with scene.watching():
        (scene.data / "b\udcff.tmp").mkdir()
        (scene.data / "b\udcff.tmp").rename(scene.data / "b\udcff\n")
        assert scene.flush() == ["b\udcff\n"]


def test_the_mask_says_which_events_count(scene: Scene) -> None:
    with scene.watching(mask=pyinotify.IN_MOVED_TO) as watcher:
        (scene.data / "made").mkdir()
        (scene.outside / "a").mkdir()
        (scene.outside / "a").rename(scene.data / "a")
        wait_until(lambda: scene.announced == ["a"])
        (scene.outside / "b").mkdir()
        watcher.rescan()
        (scene.outside / "b").rename(scene.data / "b")
        wait_until(lambda: scene.announced == ["a", "b"])


@pytest.mark.parametrize(
    ("unfinished", "announced"),
    [(None, ["study.tmpl.final", "b.d"]), (("*.tmp*", "*.new"), ["b.d"]), ((), None)],
)
def test_the_extension_tells_unless_unfinished_says_otherwise(
    scene: Scene, unfinished: tuple[str, ...] | None, announced: list[str] | None
) -> None:
    names = ["a.tmp", "a.tmp1234", "study.tmpl.final", "b.new.tmpl", "b.d"]
    with scene.watching(unfinished=unfinished):
        for name in names:
            (scene.data / name).mkdir()
        wait_until(lambda: "b.d" in scene.announced)
    assert scene.announced == (names if announced is None else announced)


def test_polling_needs_no_events(scene: Scene) -> None:
    with scene.watching(method=Method.POLL, interval=0.1, marker="DONE") as watcher:
        assert watcher.source.covers(watcher.source.roots[0].watch) == 1
        assert not watcher.source._watch_table.nodes  # the kernel watches none
        (scene.data / "a").mkdir()
        (scene.data / "a" / "DONE").touch()
        wait_until(lambda: scene.announced == ["a"])


def test_a_lost_and_remade_root_is_watched_again(scene: Scene) -> None:
    with scene.watching():
        scene.data.rename(scene.outside / "away")
        wait_until(lambda: scene.unwatched.said == [(str(scene.data), "No such file or directory")])
        (scene.outside / "away" / "unseen").mkdir()
        scene.data.mkdir()
        (scene.data / "a").mkdir()
        wait_until(lambda: scene.announced == ["a"])
        assert scene.unwatched.said[1:] == [(str(scene.data), None)]


def test_a_marker_is_waited_for_in_a_root_that_is_made_again(scene: Scene) -> None:
    with scene.watching(marker="DONE") as watcher:
        watch = watcher.source.roots[0].watch
        (scene.data / "a").mkdir()
        wait_until(lambda: watcher.source.covers(watch) == 2)
        scene.data.rename(scene.outside / "away")
        wait_until(lambda: scene.unwatched.said)
        assert watcher.source.covers(watch) == 0
        (scene.data / "a").mkdir(parents=True)
        wait_until(lambda: watcher.source.covers(watch) == 2)
        (scene.data / "a" / "DONE").touch()
        wait_until(lambda: scene.announced == ["a"])


@pytest.mark.parametrize(
    ("limited", "pattern", "options"),
    [("scanner1", "*/s*", {"rec": True}), ("s1", "*", {"marker": "DONE"})],
)
def test_what_has_no_watch_is_tried_again(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    limited: str,
    pattern: str,
    options: dict[str, Any],
) -> None:
    """The limit of watches is reached, and raised later: no event tells of that."""
    monkeypatch.setattr("watchman.pipeline.schedule.RETRY_UNWATCHED", 0.05)
    full, add = True, Instance.add

    def add_if_not_full(instance: Instance, directory: int, mask: int) -> int:
        if full and os.readlink(f"/proc/self/fd/{directory}").endswith(f"/{limited}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(instance, directory, mask)

    monkeypatch.setattr(Instance, "add", add_if_not_full)
    scene.pattern = f"{scene.data}/{pattern}"
    path = scene.data / limited
    path.mkdir()
    with scene.watching(existing=Existing.ALL, **options):
        wait_until(lambda: scene.unwatched.said == [(str(path), os.strerror(errno.ENOSPC))])
        full = False
        wait_until(lambda: scene.unwatched.said[1:] == [(str(path), None)])
        (path / "s2").mkdir()
        (path / "DONE").touch()
        wait_until(lambda: scene.announced == ["s1" if "marker" in options else "scanner1/s2"])


def test_a_directory_that_takes_the_name_of_one_that_waits_is_waited_for(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed and made anew before anybody looks: at no time is there nothing of that name."""
    caplog.set_level(logging.INFO)
    a, b = scene.data / "a", scene.data / "b"
    is_to_be_renamed, handle = threading.Event(), Directories.handle

    def rename_first(directories: Directories, hints: Sequence[Hint]) -> None:
        if is_to_be_renamed.is_set():
            is_to_be_renamed.clear()
            a.rename(b)
            a.mkdir()
        handle(directories, hints)

    monkeypatch.setattr(Directories, "handle", rename_first)
    with scene.watching(marker="DONE"):
        a.mkdir()
        wait_until(lambda: f"2|NOTFINISHED: {a}" in caplog.messages)
        is_to_be_renamed.set()
        wait_until(lambda: f"2|NOTFINISHED: {b}" in caplog.messages)
        (b / "DONE").write_bytes(b"x")
        wait_until(lambda: scene.announced == ["b"])
        (a / "DONE").write_bytes(b"x")
        wait_until(lambda: scene.announced == ["b", "a"])


def test_what_is_mounted_over_a_container_is_watched(scene: Scene) -> None:
    scene.pattern = f"{scene.data}/*/s*"
    (scene.data / "scanner1").mkdir()
    with scene.watching(rec=True):
        (scene.data / "scanner1" / "s1").mkdir()
        wait_until(lambda: scene.announced == ["scanner1/s1"])
        with mounted(scene.data / "scanner1"):
            (scene.data / "scanner1" / "s2").mkdir()
            wait_until(lambda: scene.announced[1:] == ["scanner1/s2"])


def test_an_overflow_is_made_up_by_a_scan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if limit > 100_000:
        pytest.skip("filling so long a queue takes too long")
    monkeypatch.setattr("watchman.sources.reader.LIMIT", 1000)
    with scene.watching() as watcher:
        handle, go = watcher.handler.handle, threading.Event()

        def stuck(hints: Any) -> None:
            go.wait(60)
            handle(hints)

        monkeypatch.setattr(watcher.handler, "handle", stuck)
        (scene.data / "first").mkdir()
        held, other = scene.data / "x.tmp", scene.data / "y.tmp"
        held.mkdir()
        for _ in range(limit + 10_000):
            held.rename(other)
            held, other = other, held
        (scene.data / "lost").mkdir()
        go.set()
        wait_until(lambda: "lost" in scene.announced, timeout=30)
        assert watcher.source.overflows >= 1
        assert scene.flush() == ["first", "lost"]


def test_what_cannot_be_told_of_a_unit_is_not_that_it_is_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []

    def identify(name: str, directory: int) -> object:
        if name == "u" and not refused and watcher.handler.next_due() is None:
            refused.append(name)  # when its time to settle is over
            raise OSError(errno.EACCES, "no permission")
        return directory_identity.identify(name, directory)

    with scene.watching(settle=0.3) as watcher:
        monkeypatch.setattr("watchman.pipeline.directories.identify", identify)
        (scene.data / "u").mkdir()
        wait_until(lambda: scene.announced == ["u"], 20)
    assert refused


def test_a_marker_that_cannot_be_looked_at_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    refused: list[object] = []
    opened = os.open

    def no_descriptor(path: str, *arguments: Any, **options: Any) -> int:
        if path == "u" and marked and not refused:
            refused.append(path)
            raise OSError(errno.EMFILE, "too many open files")
        return opened(path, *arguments, **options)

    marked: list[bool] = []
    with scene.watching(marker="done.txt"):
        (scene.data / "u").mkdir()
        wait_until(lambda: "2|NOTFINISHED" in caplog.text)
        monkeypatch.setattr("watchman.sources.directory_version.os.open", no_descriptor)
        marked.append(True)
        # A single event.
        (scene.outside / "done.txt").write_text("1")
        (scene.outside / "done.txt").rename(scene.data / "u" / "done.txt")
        wait_until(lambda: scene.announced == ["u"], 20)
    assert refused


def test_a_unit_whose_marker_cannot_be_waited_for_is_told_and_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY_UNWATCHED", 0.2)
    opened, lacking = os.open, [True]

    def no_descriptor(path: str, flags: int, *arguments: Any, **options: Any) -> int:
        if path == "u" and flags == DIRECTORY_FLAGS and lacking:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr("watchman.sources.directory_source.os.open", no_descriptor)
    with scene.watching(marker="done.txt"):
        (scene.data / "u").mkdir()
        wait_until(lambda: scene.unwatched.said, what="it is told")
        lacking.clear()
        wait_until(lambda: len(scene.unwatched.said) > 1, what="it is over")
        (scene.data / "u" / "done.txt").write_text("1")
        wait_until(lambda: scene.announced == ["u"], 20)
    unit = str(scene.data / "u")
    assert scene.unwatched.said == [(unit, os.strerror(errno.EMFILE)), (unit, None)]


def test_the_path_of_a_watch_may_be_a_unit_of_another_that_waits(tmp_path: Path) -> None:
    up, box = tmp_path / "up", tmp_path / "up" / "box"
    up.mkdir()
    outer = Watch(str(up), kind=WatchKind.DIRECTORIES, marker="done.txt")
    inner = Watch(str(box), kind=WatchKind.DIRECTORIES)
    config = config_for(up, tmp_path / "state")
    with running(replace(config, watches=(outer, inner))) as (pipeline, sent):
        box.mkdir()
        wait_until(lambda: pipeline.parts.covers(inner), what="box is watched as well")
        (box / "u").mkdir()
        wait_until(lambda: sent.paths == [str(box / "u")], what="a unit in it")
        (box / "done.txt").write_text("1")
        wait_until(lambda: sent.paths == [str(box / "u"), str(box)], what="box itself")
        (box / "v").mkdir()
        wait_until(lambda: str(box / "v") in sent.paths, what="another unit in it")
