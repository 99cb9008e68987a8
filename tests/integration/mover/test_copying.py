"""Moves to another file system: attributes, long copies, stopping, directories."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import Rig, contents
from tests.waiting import wait_until
from watchman.model import State
from watchman.mover import copy, copy_pool, transfer


def hidden(rig: Rig) -> list[str]:
    return [name for name in (*rig.files(), *rig.left()) if ".watchman" in name]


def holding(monkeypatch: pytest.MonkeyPatch, size: int) -> tuple[threading.Event, threading.Event]:
    """Hold the copies of files of at least ``size`` bytes; return (begun, go on)."""
    begun, go_on = threading.Event(), threading.Event()
    real = copy._by_range

    def slow(source: int, target: int, offset: int, count: int) -> int:
        if os.fstat(source).st_size >= size:
            begun.set()
            go_on.wait(20)
        return real(source, target, offset, min(count, 1 << 20))

    monkeypatch.setattr(copy, "_by_range", slow)
    return begun, go_on


def test_a_large_copy_holds_up_nobody(far: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_pool, "LARGE", 1 << 20)
    _, go_on = holding(monkeypatch, 1 << 20)
    large = [far.put(f"large{number}", bytes(2 << 20)) for number in range(6)]
    with far.running():
        held = {(0, 2 << 20)}
        wait_until(lambda: [(c.done, c.total) for c in far.status().copies] == 3 * [*held])
        small = [far.put(f"small{number}") for number in range(20)]
        far.wake()
        for seq in small:
            far.wait(seq, State.READY)
        assert len(far.status().copies) == 3  # one thread of four is kept for small files
        assert all(far.state(seq) is State.MOVING for seq in large)
        go_on.set()
        for seq in large:
            far.wait(seq, State.READY)
    assert len(far.files()) == 26


def test_where_a_copy_goes_whose_name_is_taken_meanwhile_is_in_the_log(
    far: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begun, go_on = holding(monkeypatch, 1)
    seq = far.put("f.csv", b"mine")
    with far.running():
        assert begun.wait(20)
        (far.root / "f.csv").write_bytes(b"another's")
        go_on.set()
        final = far.wait(seq, State.READY).final
    assert far.files() == {"f.csv": b"another's", os.path.basename(final): b"mine"}
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Moving ")]
    source = far.inbox / "f.csv"
    assert said == [f"Moving {source} to {far.root}/f.csv", f"Moving {source} to {final}"]


def test_a_stop_gives_up_a_copy_and_leaves_nothing_behind(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = holding(monkeypatch, 1 << 20)
    seq = far.put("large", bytes(32 << 20))
    far.mover.start()
    assert begun.wait(10)
    go_on.set()
    far.mover.stop(10)
    assert far.state(seq) is State.MOVING
    assert far.files() == {}
    assert set(far.left()) == {"large"}
    far.new_mover()
    with far.running():
        far.wait(seq, State.READY, 60)
    assert far.files() == {"large": bytes(32 << 20)}


def test_progress_is_logged_now_and_then(
    far: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(copy, "REPORT_EVERY", 0.0)
    caplog.set_level("INFO")
    seq = far.put("large", bytes(9 << 20))
    with far.running():
        far.wait(seq, State.READY)
    assert any("of 9.4 MB" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("method", ["_by_range", "_by_sendfile", "_by_read_and_write"])
def test_every_way_of_copying(method: str, far: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EINVAL, "not here")

    for other in ("_by_range", "_by_sendfile"):
        if other == method:
            break
        monkeypatch.setattr(copy, other, refuse)
    content = os.urandom(5 << 20)
    seq = far.put("f", content)
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"f": content}


def test_extended_attributes_are_kept(far: Rig) -> None:
    path = far.upload("f")
    try:
        os.setxattr(path, "user.origin", b"ftp")
        os.setxattr(far.root, "user.origin", b"ftp")
    except OSError:
        pytest.skip("no user attributes on these file systems")
    seq = far.record("f")
    with far.running():
        far.wait(seq, State.READY)
    assert os.getxattr(far.root / "f", "user.origin") == b"ftp"


def tree(rig: Rig, name: str = "t") -> int:
    rig.upload(f"{name}/one", b"1")
    rig.upload(f"{name}/sub/two", b"2")
    (rig.inbox / name / "sub/link").symlink_to("/etc/passwd")
    (rig.inbox / name / "empty").mkdir()
    return rig.record(name, kind="directories")


def test_a_directory_is_moved_as_a_whole(any_rig: Rig) -> None:
    seq = tree(any_rig)
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert any_rig.files() == {"t/one": b"1", "t/sub/two": b"2", "t/sub/link": b""}
    assert os.readlink(any_rig.root / "t/sub/link") == "/etc/passwd"
    assert (any_rig.root / "t/empty").is_dir()
    assert list(any_rig.inbox.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["file", "empty", "full"])
def test_a_taken_directory_name_gets_a_suffix(any_rig: Rig, obstacle: str) -> None:
    path = any_rig.root / "t.d"
    if obstacle == "file":
        path.write_bytes(b"x")
    else:
        path.mkdir()
        if obstacle == "full":
            (path / "x").write_bytes(b"x")
    before = contents(any_rig.root)
    seq = tree(any_rig, "t.d")
    with any_rig.running():
        row = any_rig.wait(seq, State.READY)
    assert os.path.basename(row.final).startswith("t.d@")
    after = any_rig.files()
    assert {name: after[name] for name in before} == before
    assert (Path(row.final) / "sub/two").read_bytes() == b"2"


def test_a_directory_in_use_waits(any_rig: Rig) -> None:
    seq = tree(any_rig)
    with (any_rig.inbox / "t/sub/two").open("ab"):
        any_rig.mover.start()
        wait_until(lambda: any_rig.heard.paths, what="the writer to be noticed")
        assert any_rig.files() == {}
    any_rig.wake()
    any_rig.wait(seq, State.READY)
    any_rig.mover.stop(5)


def test_a_directory_with_a_fifo_is_not_copied(far: Rig) -> None:
    seq = tree(far)
    os.mkfifo(far.inbox / "t/sub/fifo")
    with far.running():
        far.wait(seq, State.FAILED)
    assert "FIFO" in far.store.reasons[seq]
    assert far.files() == {}
    assert (far.inbox / "t/one").exists()


def test_a_directory_that_grows_during_its_copy_is_copied_again(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = copy.copy_file
    grown: list[bool] = []

    def growing(*args: Any) -> Any:
        if not grown:
            grown.append(True)
            (far.inbox / "t/late").write_bytes(b"late")
        return real(*args)

    monkeypatch.setattr("watchman.mover.copy_tree.copy_file", growing)
    seq = tree(far)
    with far.running():
        far.wait(seq, State.READY)
    assert far.files()["t/late"] == b"late"
    assert not hidden(far)
    assert list(far.inbox.iterdir()) == []


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), 15_032_385_536, -(1 << 31) - 1])
def test_a_tree_with_times_that_the_destination_cannot_keep(far: Rig, seconds: int) -> None:
    """ext4 keeps none after 2446 or before 1901, and tmpfs keeps any."""
    for name in ("t/a", "t/b/c"):
        os.utime(far.upload(name), (seconds, seconds))
    os.utime(far.inbox / "t", (seconds, seconds))
    seq = far.record("t", kind="directories")
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"t/a": b"content", "t/b/c": b"content"}
    assert list(far.inbox.iterdir()) == []


def test_a_removed_tree_during_its_copy_leaves_nothing(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = copy.copy_file

    def removing(*args: Any) -> Any:
        shutil.rmtree(far.inbox / "t", ignore_errors=True)
        return real(*args)

    monkeypatch.setattr("watchman.mover.copy_tree.copy_file", removing)
    seq = tree(far)
    with far.running():
        far.wait(seq, State.VANISHED)
    assert far.files() == {}


def sparse(path: Path, size: int, data: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        for offset, content in data.items():
            file.seek(offset)
            file.write(content)
        file.truncate(size)


@pytest.mark.parametrize("method", ["_by_range", "_by_sendfile", "_by_read_and_write"])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {0: b"beginning"},
        {(64 << 20) - 3: b"end"},
        {5 << 20: os.urandom(1 << 20), 40 << 20: b"x"},
    ],
    ids=["hole", "beginning", "end", "middle"],
)
def test_holes_are_kept(
    far: Rig, monkeypatch: pytest.MonkeyPatch, method: str, data: dict[int, bytes]
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EXDEV, "not here")

    for other in ("_by_range", "_by_sendfile"):
        if other == method:
            break
        monkeypatch.setattr(copy, other, refuse)
    size = 64 << 20
    sparse(far.inbox / "f", size, data)
    content = (far.inbox / "f").read_bytes()
    seq = far.record("f")
    with far.running():
        far.wait(seq, State.READY)
    status = os.stat(far.root / "f")
    assert status.st_size == size
    assert status.st_blocks * 512 <= sum(map(len, data.values())) + (1 << 20)
    assert (far.root / "f").read_bytes() == content
    assert far.left() == {}


def test_holes_in_a_tree_are_kept_and_need_no_room(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(
        "watchman.mover.transfer.require_room", lambda size, *_: needed.append(size)
    )
    (far.inbox / "t").mkdir()
    sparse(far.inbox / "t/f", 64 << 20, {1 << 20: b"x"})
    seq = far.record("t", kind="directories")
    with far.running():
        far.wait(seq, State.READY)
    assert needed
    assert max(needed) < 1 << 20
    assert os.stat(far.root / "t/f").st_blocks * 512 < 1 << 20
    assert (far.root / "t/f").stat().st_size == 64 << 20


def test_comparing_reads_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 40
    for name in ("one", "other"):
        sparse(tmp_path / name, size, {1 << 30: b"x" * 5000, size - 2: b"yz"})
    read: list[int] = []
    real = os.preadv

    def counting(descriptor: int, buffers: Any, offset: int) -> int:
        count = real(descriptor, buffers, offset)
        read.append(count)
        return count

    monkeypatch.setattr(os, "preadv", counting)
    with (tmp_path / "one").open("rb") as one, (tmp_path / "other").open("r+b") as other:
        assert copy.same_bytes(one.fileno(), other.fileno(), size, lambda: None)
        assert sum(read) < 100_000
        other.seek(1 << 35)
        other.write(b"\0")  # data that reads as a hole does
        other.flush()
        assert copy.same_bytes(one.fileno(), other.fileno(), size, lambda: None)
        other.seek(1 << 35)
        other.write(b"!")
        other.flush()
        assert not copy.same_bytes(one.fileno(), other.fileno(), size, lambda: None)
        assert not copy.same_bytes(other.fileno(), one.fileno(), size, lambda: None)


@pytest.mark.parametrize("at", [0, copy.PIECE - 1, copy.PIECE, 3 * copy.PIECE + 7])
def test_comparing_finds_each_byte(tmp_path: Path, at: int) -> None:
    content = bytearray(os.urandom(3 * copy.PIECE + 8))
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "same").write_bytes(content)
    content[at] ^= 1
    (tmp_path / "other").write_bytes(content)
    (tmp_path / "short").write_bytes(content[:at])
    with (
        (tmp_path / "one").open("rb") as one,
        (tmp_path / "same").open("rb") as same,
        (tmp_path / "other").open("rb") as other,
        (tmp_path / "short").open("rb") as short,
    ):

        def equal(file: Any) -> bool:
            return copy.same_bytes(one.fileno(), file.fileno(), len(content), lambda: None)

        assert equal(same)
        assert not equal(other)
        assert not equal(short)


def test_a_rewritten_file_in_a_placed_tree_is_kept(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, same mtime: only the content tells."""
    real: Callable[..., Any] = transfer.remove_source_tree

    def late(*args: Any) -> Any:
        path = far.inbox / "t/one"
        status = path.stat()
        path.write_bytes(b"2")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return real(*args)

    monkeypatch.setattr(transfer, "remove_source_tree", late)
    seq = tree(far)
    with far.running():
        far.wait(seq, State.READY)
    assert far.files()["t/one"] == b"1"
    assert far.left()["t/one"] == b"2"


def test_a_file_in_use_in_a_placed_tree_is_waited_for(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = transfer.remove_source_tree
    opened: list[Any] = []

    def late(*args: Any) -> Any:
        if not opened:
            opened.append((far.inbox / "t/one").open("ab"))
        return real(*args)

    monkeypatch.setattr(transfer, "remove_source_tree", late)
    seq = tree(far)
    with far.running():
        wait_until(lambda: far.heard.paths, what="the writer to be noticed")
        assert (far.inbox / "t/one").read_bytes() == b"1"
        assert far.state(seq) is State.MOVING
        opened[0].close()
        far.wake()
        far.wait(seq, State.READY)
    assert list(far.inbox.iterdir()) == []
    assert not hidden(far)
