"""Processors of the user's own: the exact events, in order, whatever happens to directories."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyinotify
import pytest

from tests.listeners import NoTrouble, UnwatchedHeard
from tests.waiting import wait_until
from watchman import processors, signals
from watchman.model import Watch
from watchman.processors.dispatch import ProcessorWatches
from watchman.processors.exact_events import ExactEvents
from watchman.sources import instance, just_gone

ALL = pyinotify.ALL_EVENTS
CHANGES = (
    pyinotify.IN_CREATE
    | pyinotify.IN_DELETE
    | pyinotify.IN_MOVED_FROM
    | pyinotify.IN_MOVED_TO
    | pyinotify.IN_CLOSE_WRITE
)
Seen = tuple[str, str]


class Recorder(pyinotify.ProcessEvent):
    """Keeps every event."""

    def my_init(self, **_: Any) -> None:
        self.events: list[Any] = []

    def process_default(self, event: Any) -> None:
        self.events.append(event)

    def process_IN_Q_OVERFLOW(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
        self.events.append(event)

    @property
    def seen(self) -> list[Seen]:
        return [(event.maskname, event.pathname) for event in self.events]


@contextmanager
def watching(
    path: Path, processor: Any, listener: UnwatchedHeard | None = None, **options: Any
) -> Iterator[Callable[[], int]]:
    """Watch ``path``; yield a function that says how many directories are watched."""
    watch = Watch(str(path), processor=processor, processor_name="tests.Recorder", **options)
    part = ProcessorWatches([watch], listener or NoTrouble())
    part.start()
    try:
        yield lambda: part.directories(watch)
    finally:
        part.stop()
        assert part.error is None


def is_watched(directory: Path) -> bool:
    """Say whether this process has a watch on it, as the kernel tells (proc(5), fdinfo)."""
    wanted = f" ino:{directory.stat().st_ino:x} "
    texts = []
    for path in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            texts.append(path.read_text(encoding="ascii"))
    return any(wanted in text for text in texts)


def finish(recorder: Recorder, directory: Path) -> list[Seen]:
    """Return all that was seen before now, without the mark that says so."""
    mark = directory / "the-end"
    mark.mkdir()
    last = ("IN_CREATE|IN_ISDIR", str(mark))
    wait_until(lambda: last in recorder.seen, what=f"the end in {recorder.seen[-5:]}")
    return recorder.seen[: recorder.seen.index(last)]


class Operations:
    """Random operations on files and directories, with the events each must give."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.expected: list[Seen] = []
        self.count = 0
        self.places = [root / "d0", root / "d1"]
        self.files: list[Path] = []
        for place in self.places:
            place.mkdir()

    def tell(self, *events: tuple[str, Path]) -> None:
        self.expected += [(f"IN_{kind}", str(path)) for kind, path in events]

    def step(self) -> None:
        self.count += 1
        choices = [self.write, self.make_and_remove_directory, self.rename_directory]
        if self.files:
            choices += [self.read, self.append, self.chmod, self.move, self.remove, self.link]
        self.random.choice(choices)()

    def fresh(self) -> Path:
        name = self.random.choice(["f%d", "naïve %d", "b\udcff%d", "x" * 200 + "%d"]) % self.count
        return self.random.choice(self.places) / name

    def take(self) -> Path:
        return self.files.pop(self.random.randrange(len(self.files)))

    def write(self) -> None:
        path = self.fresh()
        path.write_bytes(b"x")
        self.files.append(path)
        self.tell(("CREATE", path), ("OPEN", path), ("MODIFY", path), ("CLOSE_WRITE", path))

    def append(self) -> None:
        path = self.random.choice(self.files)
        with path.open("ab", buffering=0) as file:
            file.write(b"y")
        self.tell(("OPEN", path), ("MODIFY", path), ("CLOSE_WRITE", path))

    def read(self) -> None:
        path = self.random.choice(self.files)
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 10)
        os.close(descriptor)
        self.tell(("OPEN", path), ("ACCESS", path), ("CLOSE_NOWRITE", path))

    def chmod(self) -> None:
        path = self.random.choice(self.files)
        path.chmod(0o600)
        self.tell(("ATTRIB", path))

    def move(self) -> None:
        path, target = self.take(), self.fresh()
        path.rename(target)
        self.files.append(target)
        self.tell(("MOVED_FROM", path), ("MOVED_TO", target))

    def remove(self) -> None:
        path = self.take()
        path.unlink()
        self.tell(("DELETE", path))

    def link(self) -> None:
        path, other = self.random.choice(self.files), self.fresh()
        # A hard link's own events would come under both names: drop it at once.
        os.link(path, other)
        other.unlink()
        self.tell(("CREATE", other), ("DELETE", other))

    def make_and_remove_directory(self) -> None:
        path = self.root / f"passing{self.count}"
        path.mkdir()
        path.rmdir()
        self.tell(("CREATE|IN_ISDIR", path), ("DELETE|IN_ISDIR", path))

    def rename_directory(self) -> None:
        number = self.random.randrange(2)
        before, after = self.places[number], self.root / f"d{number}-{self.count}"
        before.rename(after)
        self.places[number] = after
        self.files = [after / f.name if f.parent == before else f for f in self.files]
        self.tell(("MOVED_FROM|IN_ISDIR", before), ("MOVED_TO|IN_ISDIR", after))


def of_operations(seen: list[Seen]) -> list[Seen]:
    """Leave out what directories themselves are told besides what their parent is told."""
    own = ("IN_MOVE_SELF", "IN_ATTRIB|IN_ISDIR", "IN_ATTRIB")
    extra = ("IN_DELETE_SELF", "IN_IGNORED")
    return [
        item
        for item in seen
        if item[0] not in extra and not (item[0] in own and os.path.basename(item[1])[0] == "d")
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_1000_operations_of_all_kinds_in_order(tmp_path: Path, seed: int) -> None:
    operations = Operations(tmp_path, seed)
    recorder = Recorder()
    # Without auto_add no directory is listed, so that all events are the operations' own.
    with watching(tmp_path, recorder, mask=ALL, rec=True):
        for _ in range(1000):
            operations.step()
        seen = finish(recorder, tmp_path)
    # Reading and linking change a file's atime and link count, of which the kernel may tell.
    wanted = [item for item in operations.expected if item[0] != "IN_ATTRIB"]
    assert [item for item in of_operations(seen) if item[0] != "IN_ATTRIB"] == wanted
    told = {item for item in seen if item[0] == "IN_ATTRIB"}
    assert {item for item in operations.expected if item[0] == "IN_ATTRIB"} <= told
    assert len({kind for kind, _ in wanted}) == 13


def test_a_signal_receiver_sees_the_same(tmp_path: Path) -> None:
    seen: list[Seen] = []

    def receive(sender: object, event: Any) -> None:
        assert isinstance(sender, processors.AllEventsSignaler)
        seen.append((event.maskname, event.pathname))

    recorder = Recorder()
    kinds = [s for n, s in vars(signals).items() if n.startswith("in_")]
    for signal in kinds:
        signal.connect(receive)
    operations = Operations(tmp_path, 4)
    with (
        watching(tmp_path, processors.AllEventsSignaler, mask=ALL, rec=True),
        watching(tmp_path, recorder, mask=ALL, rec=True),
    ):
        for _ in range(300):
            operations.step()
        expected = finish(recorder, tmp_path)
        wait_until(lambda: ("IN_CREATE|IN_ISDIR", str(tmp_path / "the-end")) in seen)
    # The two watches have started one after the other: the second walk is seen by the first.
    assert [s for s in seen if "ISDIR" not in s[0]][: len(expected)] == [
        s for s in expected if "ISDIR" not in s[0]
    ]


def test_an_event_has_what_pyinotify_gives(tmp_path: Path) -> None:
    recorder = Recorder()
    with watching(tmp_path, recorder, mask=ALL):
        (tmp_path / "hello").mkdir()
        (tmp_path / "hello").rename(tmp_path / "there")
        finish(recorder, tmp_path)
    made, left, came = recorder.events[:3]
    assert isinstance(made, pyinotify.Event)
    assert vars(made) == {
        "name": "hello",
        "maskname": "IN_CREATE|IN_ISDIR",
        "wd": 1,
        "dir": True,
        "path": str(tmp_path),
        "pathname": str(tmp_path / "hello"),
        "mask": pyinotify.IN_CREATE | pyinotify.IN_ISDIR,
    }
    assert left.cookie == came.cookie > 0
    assert came.src_pathname == str(tmp_path / "hello")


def test_only_the_events_of_the_mask(tmp_path: Path) -> None:
    recorder = Recorder()
    below = tmp_path / "below"
    below.mkdir()
    mask = pyinotify.IN_CLOSE_WRITE
    with watching(tmp_path, recorder, mask=mask, rec=True, auto_add=True) as directories:
        (below / "a").write_bytes(b"a")
        below.rename(tmp_path / "renamed")
        (tmp_path / "renamed" / "b").write_bytes(b"b")
        (tmp_path / "new").mkdir()
        wait_until(lambda: directories() == 3)
        (tmp_path / "new" / "c").write_bytes(b"c")
        wait_until(lambda: len(recorder.events) == 3)
    assert recorder.seen == [
        ("IN_CLOSE_WRITE", str(below / "a")),
        ("IN_CLOSE_WRITE", str(tmp_path / "renamed" / "b")),
        ("IN_CLOSE_WRITE", str(tmp_path / "new" / "c")),
    ]


def test_a_plain_watch_is_the_directory_alone(tmp_path: Path) -> None:
    recorder = Recorder()
    (tmp_path / "old").mkdir()
    with watching(tmp_path, recorder, mask=CHANGES) as directories:
        (tmp_path / "old" / "inside").write_bytes(b"")
        (tmp_path / "new").mkdir()
        assert finish(recorder, tmp_path) == [("IN_CREATE|IN_ISDIR", str(tmp_path / "new"))]
        assert directories() == 1


@pytest.mark.parametrize("mask", [CHANGES, pyinotify.IN_CLOSE_WRITE])
def test_files_in_new_directories_are_each_told_once(tmp_path: Path, mask: int) -> None:
    recorder = Recorder()
    wanted = []
    with watching(tmp_path, recorder, mask=mask, rec=True, auto_add=True):
        for number in range(300):
            deep = tmp_path / str(number) / "b" / "c"
            deep.mkdir(parents=True)
            (deep / "file").write_bytes(b"x")
            wanted.append(str(deep / "file"))
        closed: Callable[[], list[str]] = lambda: [  # noqa: E731 — read again and again
            path for kind, path in recorder.seen if kind == "IN_CLOSE_WRITE"
        ]
        wait_until(lambda: set(closed()) == set(wanted))
        (tmp_path / "last").write_bytes(b"x")
        wait_until(lambda: closed()[-1] == str(tmp_path / "last"))
    assert sorted(closed()[:-1]) == sorted(wanted)
    if mask == CHANGES:
        created = [p for kind, p in recorder.seen if kind.startswith("IN_CREATE")]
        assert len(created) == len(set(created)) == 300 * 4 + 1


def test_directories_moved_in_and_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "tree" / "deep").mkdir(parents=True)
    recorder = Recorder()
    with watching(root, recorder, mask=CHANGES, rec=True, auto_add=True) as directories:
        (outside / "tree").rename(root / "tree")
        wait_until(lambda: directories() == 3)
        (root / "tree" / "deep" / "file").write_bytes(b"")
        (root / "tree").rename(outside / "tree")
        wait_until(lambda: directories() == 1)
        (outside / "tree" / "deep" / "unseen").write_bytes(b"")
        seen = finish(recorder, root)
    path = str(root / "tree" / "deep" / "file")
    assert [kind for kind, p in seen if p == path] == ["IN_CREATE", "IN_CLOSE_WRITE"]
    assert not [p for _, p in seen if "unseen" in p]
    assert [k for k, _ in seen][-1] in ("IN_MOVED_FROM|IN_ISDIR", "IN_IGNORED")


def test_renamed_over_and_made_again(tmp_path: Path) -> None:
    recorder = Recorder()
    for name in "abc":
        (tmp_path / name).mkdir()
    with watching(tmp_path, recorder, mask=CHANGES, rec=True, auto_add=True) as directories:
        for number in range(100):
            for path in (tmp_path / "b").iterdir():
                path.unlink()
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "b").rename(tmp_path / "x")
            (tmp_path / "c").rename(tmp_path / "b")
            (tmp_path / "x").rename(tmp_path / "c")
            (tmp_path / "a").mkdir()
            for name in "abc":
                (tmp_path / name / f"{name}{number}").write_bytes(b"")
        finish(recorder, tmp_path)
        # What was removed again before its directory was watched could not be seen; nothing is
        # told twice.
        told = [e.name for e in recorder.events if e.maskname == "IN_CLOSE_WRITE"]
        assert told
        assert len(set(told)) == len(told)
        (tmp_path / "the-end").rmdir()
        wait_until(lambda: directories() == 4)
        for name in "abc":
            (tmp_path / name / "last").write_bytes(b"")
        wait_until(lambda: recorder.seen[-1] == ("IN_CLOSE_WRITE", str(tmp_path / "c" / "last")))
    assert {p for _, p in recorder.seen if p.endswith("/last")} == {
        str(tmp_path / name / "last") for name in "abc"
    }


def test_a_lost_and_remade_root_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder()
    heard = UnwatchedHeard()
    with watching(root, recorder, heard, mask=CHANGES) as directories:
        root.rename(tmp_path / "away")
        wait_until(lambda: heard.well == [False])
        root.mkdir()
        wait_until(lambda: heard.well == [False, True] and directories() == 1)
        (root / "file").write_bytes(b"")
        wait_until(lambda: ("IN_CLOSE_WRITE", str(root / "file")) in recorder.seen)


@pytest.mark.parametrize("how", ["removed", "renamed", "moved out", "overflow"])
def test_what_cannot_be_watched_is_no_trouble_once_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    add = instance.Instance.add

    def refuse(self: instance.Instance, descriptor: int, mask: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/bad"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return add(self, descriptor, mask)

    monkeypatch.setattr(instance.Instance, "add", refuse)
    root, heard = tmp_path / "root", UnwatchedHeard()
    (root / "a").mkdir(parents=True)
    watch = Watch(str(root), rec=True, auto_add=True, mask=CHANGES)
    source = ExactEvents(watch, heard)
    try:
        source.start()
        bad = root / "a/bad"
        bad.mkdir()
        wait_until(lambda: source.take(0.1) and heard.said == [(str(bad), "Permission denied")])
        if how == "renamed":
            (root / "a").rename(root / "b")
        elif how == "moved out":
            (root / "a").rename(tmp_path / "outside")
        else:
            bad.rmdir()
        if how == "overflow":
            source._pending.clear()
            source._instance.drain()
            source._handle(instance.Raw(-1, pyinotify.IN_Q_OVERFLOW, 0, ""))
        wait_until(lambda: source.take(0.1) is not None and heard.gone == [str(bad)])
        later = [(str(root / "b/bad"), "Permission denied")] if how == "renamed" else []
        assert heard.said[1:] == later
    finally:
        source.close()


def test_a_function_is_called_with_each_event(tmp_path: Path) -> None:
    events: list[Any] = []
    with watching(tmp_path, events.append, mask=pyinotify.IN_CLOSE_WRITE):
        (tmp_path / "file").write_bytes(b"x")
        wait_until(lambda: events)
    assert [(e.maskname, e.pathname) for e in events] == [
        ("IN_CLOSE_WRITE", str(tmp_path / "file"))
    ]


def test_auto_add_alone_leaves_out_what_was_there_at_the_start(tmp_path: Path) -> None:
    """Also after an overflow, and under another name."""
    (tmp_path / "before/below").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    watch = Watch(str(tmp_path), auto_add=True, mask=CHANGES)
    source = ExactEvents(watch, NoTrouble())
    try:
        source.start()
        (tmp_path / "later/deep").mkdir(parents=True)
        wait_until(lambda: source.take(0.1) and source.directories == 3)
        (tmp_path / "before").rename(tmp_path / "later/before")
        told: list[str] = []
        while told[-2:] != ["before", "before"]:
            told += [event.name for event in source.take(10)]
        source._handle(instance.Raw(-1, pyinotify.IN_Q_OVERFLOW, 0, ""))
        assert source.directories == 3
        (tmp_path / "other").rmdir()
        (tmp_path / "other").mkdir()
        wait_until(lambda: source.take(0.1) and source.directories == 4)
    finally:
        source.close()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_root_that_is_renamed_away_and_back_is_never_deaf(
    tmp_path: Path, meanwhile: bool
) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    (root / "below").mkdir(parents=True)
    recorder = Recorder()
    heard = UnwatchedHeard()
    expected: list[Seen] = []

    def write(directory: Path, name: str) -> None:
        (directory / name).write_bytes(b"")
        expected.append(("IN_CLOSE_WRITE", str(root / name)))

    mask = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVE_SELF
    with watching(root, recorder, heard, mask=mask, rec=True, auto_add=True):
        for number in range(20):
            write(root, f"before{number}")
            root.rename(away)
            if meanwhile:
                expected.append(("IN_MOVE_SELF", str(root)))
                wait_until(lambda count=number: heard.well.count(False) > count)  # type: ignore[misc]  # — binds now
                write(away, f"away{number}")
                # Of what is elsewhere nothing is told, as long as it is.
                assert [name for _, name in recorder.seen if name.endswith(f"away{number}")] == []
            away.rename(root)
            if meanwhile:
                expected.append(("IN_MOVE_SELF", str(root)))
            write(root, f"after{number}")
            if meanwhile:
                wait_until(lambda count=number: heard.well.count(True) > count)  # type: ignore[misc]  # — binds now
        wait_until(lambda: expected[-1] in recorder.seen, what="all is told")
    # The kernel merges two renames of which the first is still unread.
    seen = [one for one in recorder.seen if meanwhile or one[0] != "IN_MOVE_SELF"]
    assert seen == expected


def test_a_root_that_matches_a_pattern_is_swapped_for_a_symlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "up/root", tmp_path / "outside"
    root.mkdir(parents=True)
    outside.mkdir()
    watch = Watch(str(root), processor=Recorder(), mask=CHANGES, pattern=str(tmp_path / "up/*"))
    heard = UnwatchedHeard()
    source = ExactEvents(watch, heard)
    source.start()
    try:
        root.rename(tmp_path / "aside")
        root.symlink_to(outside)
        source.take(0)
        source.check_root()
        assert heard.said == []  # it may soon be given up
        monkeypatch.setattr(just_gone, "WITHIN", 0.0)
        source.check_root()
        assert heard.said == [(str(root), "Not a directory")]
        (outside / "secret").touch()
        assert not source.take(0)
        assert not is_watched(outside)
    finally:
        source.close()


def test_what_a_root_that_was_away_held_is_told_before_what_came_since(tmp_path: Path) -> None:
    """Be it that it is away again when that is read."""
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    told: list[Any] = []
    mask = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVE_SELF
    source = ExactEvents(Watch(str(root), processor=Recorder(), mask=mask), UnwatchedHeard())
    source.start()
    try:
        root.rename(away)
        told += source.take(5.0)
        (away / "held").write_bytes(b"")
        assert source.take(5.0) == []
        away.rename(root)
        source.check_root()
        (root / "since").write_bytes(b"")
        root.rename(away)
        told += source.take(5.0)
        (away / "again").write_bytes(b"")
        away.rename(root)
        source.check_root()
        while len(told) < 7:
            told += source.take(5.0)
    finally:
        source.close()
    left = back = "IN_MOVE_SELF"
    names = [event.name or event.maskname for event in told]
    assert names == [left, "held", back, "since", left, "again", back]


def test_directories_made_in_a_root_that_is_away_are_followed_when_it_is_back(
    tmp_path: Path,
) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    recorder = Recorder()
    heard = UnwatchedHeard()
    with watching(root, recorder, heard, mask=CHANGES, auto_add=True) as directories:
        root.rename(away)
        wait_until(lambda: heard.well == [False])
        (away / "made").mkdir()
        (away / "made/early").write_bytes(b"")
        away.rename(root)
        wait_until(lambda: directories() == 2)
        (root / "made/late").write_bytes(b"")
        for name in ("early", "late"):
            wait_until(lambda n=name: ("IN_CLOSE_WRITE", str(root / "made" / n)) in recorder.seen)  # type: ignore[misc]  # — binds now


@pytest.mark.parametrize("again", ["removed", "renamed"])
def test_a_root_that_is_made_anew_at_once_is_watched(tmp_path: Path, again: str) -> None:
    """Perhaps with the inode number of the one before."""
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder()
    with watching(root, recorder, UnwatchedHeard(), mask=CHANGES):
        for number in range(20):
            if again == "removed":
                for path in root.iterdir():
                    path.unlink()
                root.rmdir()
            else:
                root.rename(tmp_path / f"away{number}")
                (tmp_path / f"away{number}" / "elsewhere").write_bytes(b"")
            root.mkdir()
            wait_until(lambda: is_watched(root), 1, "the new one is watched", interval=0.001)
            (root / f"file{number}").write_bytes(b"")
            seen = ("IN_CLOSE_WRITE", str(root / f"file{number}"))
            wait_until(lambda one=seen: one in recorder.seen, 1, f"{seen} is told")  # type: ignore[misc]  # — binds now
    assert not [path for _, path in recorder.seen if path.endswith("elsewhere")]


def test_a_failing_processor_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def process_IN_CREATE(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
            self.events.append(event)
            if event.name == "2":
                raise SystemExit(3)
            if event.name == "1":
                raise asyncio.CancelledError
            raise ValueError("no\nway")

    processor = Failing()
    with caplog.at_level(logging.INFO), watching(tmp_path, processor, mask=ALL):
        for number in range(3):
            (tmp_path / str(number)).mkdir()
        finish(processor, tmp_path)
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    path = tmp_path / "0"
    assert messages[0] == (
        f"The processor tests.Recorder failed on IN_CREATE|IN_ISDIR {path}: ValueError: no\\x0away"
    )
    assert len(messages) == 4
    assert not any(record.exc_info for record in caplog.records)


def test_a_slow_processor_is_told_of_an_overflow_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchman.processors.dispatch.LIMIT", 10)
    monkeypatch.setattr("watchman.sources.reader.LIMIT", 1000)
    monkeypatch.setattr("watchman.sources.reader.CHUNK", 1000)
    go = threading.Event()

    class Slow(Recorder):
        def process_default(self, event: Any) -> None:
            go.wait(60)
            super().process_default(event)

    slow, quick = Slow(), Recorder()
    mask = pyinotify.IN_MODIFY | pyinotify.IN_CREATE
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if limit > 100_000:
        pytest.skip("filling so long a queue takes too long")
    with watching(tmp_path, slow, mask=mask), watching(tmp_path, quick, mask=mask):
        descriptors = [
            os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT, 0o600) for name in ("a", "b")
        ]
        wait_until(lambda: len(quick.events) == 2)
        while not slow.events and len(quick.events) < limit + 2000:
            all_of_them = len(quick.events) + 1000
            for _ in range(500):
                for descriptor in descriptors:
                    os.pwrite(descriptor, b"x", 0)
            wait_until(lambda count=all_of_them: len(quick.events) >= count)  # type: ignore[misc]  # — binds now
        for descriptor in descriptors:
            os.close(descriptor)
        assert not slow.events
        go.set()
        wait_until(lambda: "IN_Q_OVERFLOW" in {kind for kind, _ in slow.seen}, timeout=30)
        event = next(event for event in slow.events if event.maskname == "IN_Q_OVERFLOW")
        assert event.path == str(tmp_path)
        assert "IN_Q_OVERFLOW" not in {kind for kind, _ in quick.seen}
        (tmp_path / "later").touch()
        wait_until(lambda: ("IN_CREATE", str(tmp_path / "later")) in slow.seen)
