"""Uploaders are not trusted: symlinks, swaps and late writers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import Rig, contents
from tests.waiting import wait_until
from watchman.model import State, Watch
from watchman.mover import obstacles, syscalls
from watchman.mover.rename_process import FEW


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "f").write_bytes(b"secret")
    return directory


def before_rename(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Do something in the instant between the look and the first rename."""
    real = syscalls.rename_noreplace
    todo = [action]

    def racing(*args: Any, **kwargs: Any) -> None:
        if todo:
            todo.pop()()
        real(*args, **kwargs)

    monkeypatch.setattr("watchman.mover.rename.rename_noreplace", racing)


def test_a_source_directory_swapped_for_a_symlink(any_rig: Rig, outside: Path) -> None:
    seq = any_rig.put("d/f")
    shutil.rmtree(any_rig.inbox / "d")
    (any_rig.inbox / "d").symlink_to(outside)
    with any_rig.running():
        any_rig.wait(seq, State.VANISHED)
    assert contents(outside) == {"f": b"secret"}
    assert any_rig.files() == {}


def test_a_directory_that_matches_a_pattern_is_swapped_for_a_symlink(
    any_rig: Rig, outside: Path
) -> None:
    any_rig.heard.watch = Watch(f"{any_rig.inbox}/d", pattern=f"{any_rig.inbox}/*")
    seqs = [any_rig.put(f"d/{name}") for name in ("f", *map(str, range(FEW)))]
    shutil.rmtree(any_rig.inbox / "d")
    (any_rig.inbox / "d").symlink_to(outside)
    with any_rig.running():
        for seq in seqs:
            any_rig.wait(seq, State.VANISHED)
    assert contents(outside) == {"f": b"secret"}
    assert any_rig.files() == {}


def test_a_source_swapped_for_a_symlink(any_rig: Rig, outside: Path) -> None:
    seq = any_rig.put("f")
    (any_rig.inbox / "f").unlink()
    (any_rig.inbox / "f").symlink_to(outside / "f")
    with any_rig.running():
        any_rig.wait(seq, State.VANISHED)
    assert any_rig.files() == {}
    assert "not a file" in any_rig.store.reasons[seq]


def test_a_source_swapped_for_a_symlink_after_the_look(
    rig: Rig, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seq = rig.put("f")

    def swap() -> None:
        (rig.inbox / "f").unlink()
        (rig.inbox / "f").symlink_to(outside / "f")

    before_rename(monkeypatch, swap)
    with rig.running():
        rig.wait(seq, State.VANISHED)
    assert rig.files() == {}
    assert (rig.inbox / "f").is_symlink()
    assert rig.heard.rows == []


def test_a_source_replaced_after_the_look_is_put_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seq = rig.put("f")
    (rig.root / "new").write_bytes(b"newer")
    before_rename(monkeypatch, lambda: (rig.root / "new").replace(rig.inbox / "f"))
    with rig.running():
        wait_until(lambda: rig.heard.paths, what="the newer upload to be reported")
        assert rig.state(seq) is State.MOVING
        assert rig.left() == {"f": b"newer"}
        assert rig.files() == {}


def test_a_writer_that_opens_after_the_look_gets_its_file_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """open(2) waits for our lease; the rename is undone before it returns."""
    seq = rig.put("f")
    path = rig.inbox / "f"
    done = threading.Event()
    script = (
        "import sys\nf = open(sys.argv[1], 'ab')\nprint('open', flush=True)\n"
        "sys.stdin.read()\nf.write(b' and more'); f.close()\n"
    )
    writers: list[subprocess.Popen[bytes]] = []

    def open_late() -> None:
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        writers.append(writer)
        stack = Path(f"/proc/{writer.pid}/wchan")
        wait_until(lambda: "break_lease" in stack.read_text(), what="the writer to wait for us")
        done.set()

    before_rename(monkeypatch, open_late)
    with rig.running():
        wait_until(lambda: rig.heard.paths, what="the writer to be noticed")
        assert done.is_set()
        writer = writers[0]
        assert writer.stdout
        assert writer.stdin
        assert writer.stdout.readline() == b"open\n"
        assert rig.files() == {}
        writer.stdin.close()
        assert writer.wait(10) == 0
        writer.stdout.close()
        assert rig.left() == {"f": b"content and more"}
        assert rig.state(seq) is State.MOVING


def test_a_destination_directory_that_is_a_symlink_is_not_followed(
    any_rig: Rig, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 0.05)
    (any_rig.root / "d").symlink_to(outside)
    seq = any_rig.put("d/g")
    free = any_rig.put("e/g")
    with any_rig.running():
        any_rig.wait(free, State.READY)
        wait_until(lambda: any_rig.status().troubles, what="the obstacle to be reported")
        assert contents(outside) == {"f": b"secret"}
        assert any_rig.left() == {"d/g": b"content"}
        (any_rig.root / "d").unlink()
        any_rig.wait(seq, State.READY)
    assert contents(outside) == {"f": b"secret"}


def test_directories_that_change_places_all_the_time(rig: Rig, outside: Path) -> None:
    """A directory that is a symlink to the outside half of the time."""
    names = [f"{number}" for number in range(300)]
    for name in names:
        (outside / name).write_bytes(b"secret")
    seqs = [rig.put(f"d/{name}") for name in names]
    stop = threading.Event()

    def swap() -> None:
        directory, hidden = rig.inbox / "d", rig.inbox / "hidden"
        while not stop.is_set():
            directory.rename(hidden)
            directory.symlink_to(outside)
            directory.unlink()
            hidden.rename(directory)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with rig.running():
            for seq in seqs:
                rig.wait_end(seq)
    finally:
        stop.set()
        swapper.join()
    assert len(contents(outside)) == 301
    assert b"secret" not in rig.files().values()
    assert len(rig.files()) + len(rig.left()) == 300


def test_a_file_appended_to_during_its_copy_is_not_moved(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchman.mover import copy

    real = copy.copy_attributes
    late: list[bool] = []

    def appending(*args: Any) -> None:
        real(*args)
        if not late:
            late.append(True)
            with (far.inbox / "f").open("ab") as file:
                file.write(b" and more")

    monkeypatch.setattr(copy, "copy_attributes", appending)
    seq = far.put("f")
    with far.running():
        wait_until(lambda: far.heard.paths, what="the change to be reported")
        assert far.state(seq) is State.MOVING
        new = far.record("f")
        far.wake()
        far.wait(new, State.READY)
        far.wait(seq, State.VANISHED)
    assert far.files() == {"f": b"content and more"}
    assert far.left() == {}


def test_a_source_replaced_after_its_copy_is_placed_is_left_alone(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchman.mover import transfer

    real = transfer.remove_source

    def replaced(place: Any, source: int, progress: Any, proof: Any) -> None:
        (far.inbox / "new").write_bytes(b"newer")
        (far.inbox / "new").replace(far.inbox / "f")
        real(place, source, progress, proof)

    monkeypatch.setattr(transfer, "remove_source", replaced)
    seq = far.put("f")
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"content"}
    assert far.left() == {"f": b"newer"}


def test_a_copy_waits_for_a_writer_before_it_removes_the_source(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchman.mover import transfer

    real = transfer.remove_source
    opened: list[Any] = []

    def busy(place: Any, source: int, progress: Any, proof: Any) -> None:
        if not opened:
            opened.append((far.inbox / "f").open("ab"))
        real(place, source, progress, proof)

    monkeypatch.setattr(transfer, "remove_source", busy)
    seq = far.put("f")
    with far.running():
        wait_until(lambda: far.heard.paths, what="the writer to be noticed")
        assert far.left() == {"f": b"content"}
        assert far.state(seq) is State.MOVING
        os.close(os.dup(opened[0].fileno()))
        opened[0].close()
        far.wake()
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"content"}
    assert far.left() == {}
