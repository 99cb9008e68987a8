"""Two attempts at one identity: nothing half is placed, nothing of another attempt is touched."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman import mounts
from watchman.file_access import version_of
from watchman.model import Delivery, State
from watchman.mover import claims, copy, transfer
from watchman.mover.outcomes import SourceChanged

LARGE = 24 << 20


class Gate:
    """Holds every copy when a third of it is done, in the order in which they came there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[threading.Event] = []
        self.is_open = False
        real = copy._by_sendfile

        def refuse(*_: Any) -> int:
            raise OSError(errno.EXDEV, "not here")

        def slow(source: int, target: int, offset: int, count: int) -> int:
            if offset == copy.CHUNK and not self.is_open:
                opened = threading.Event()
                self.held.append(opened)
                opened.wait(20)
            return real(source, target, offset, count)

        monkeypatch.setattr(copy, "_by_range", refuse)
        monkeypatch.setattr(copy, "_by_sendfile", slow)

    def wait(self, count: int) -> None:
        wait_until(lambda: len(self.held) >= count, what=f"{count} copies under way")

    def open(self) -> None:
        self.is_open = True
        for event in self.held:
            event.set()


def random_content() -> bytes:
    return os.urandom(1 << 20) * (LARGE >> 20)


def again(rig: Rig, seq: int) -> int:
    """Record the same identity once more, as before the journal forbade it."""
    row = rig.row(seq)._replace(seq=len(rig.store.rows) + 1)
    rig.store.moves[row.seq] = rig.store.moves[seq]
    rig.store.add(row)
    return row.seq


def hidden(rig: Rig) -> list[str]:
    return [name for name in (*rig.files(), *rig.left()) if ".watchman" in name]


def test_a_directory_renamed_away_and_back_during_the_copy_gives_one_whole_file(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    content = random_content()
    first = far.put("d/f", content)
    with far.running():
        gate.wait(1)
        (far.inbox / "d").rename(far.inbox / "e")
        (far.inbox / "e").rename(far.inbox / "d")
        second = again(far, first)
        far.wake()
        # The second is put off: it must neither copy nor remove the first one's copy.
        wait_until(lambda: far.status().waiting == 2, what="both to be in progress")
        wait_until(lambda: far.destination._deferred, what="the second to be put off")
        assert len(gate.held) == 1
        gate.open()
        far.wait(first, State.READY)
        far.wait_end(second)
    assert far.files() == {"d/f": content}
    assert far.left() == {}


def test_a_copy_that_hangs_across_a_reload_is_left_alone(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old mover's thread is still in the kernel when the new mover begins."""
    gate = Gate(monkeypatch)
    content = random_content()
    seq = far.put("f", content)
    far.mover.start()
    gate.wait(1)
    old = far.mover
    old.stop(0.0)
    assert "mover-copy" in {thread.name for thread in far.store.shut}
    half = [path for path in far.root.iterdir() if path.name.startswith(".watchman")]
    assert len(half) == 1
    inode = half[0].stat().st_ino
    far.new_mover()
    with far.running():
        wait_until(lambda: far.destination._deferred, what="the new attempt to be put off")
        assert half[0].stat().st_ino == inode
        assert len(gate.held) == 1
        gate.open()
        far.wait(seq, State.READY)
    assert far.files() == {"f": content}
    assert far.left() == {}


@pytest.mark.parametrize("links", [True, False])
def test_only_the_inode_that_was_copied_gets_the_final_name(
    far: Rig, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Whoever removes or replaces the temporary name gets nothing placed under the final one."""
    real: Callable[..., Any] = transfer._put_in_place
    if not links:

        def no_links(*_: object, **__: object) -> None:
            raise PermissionError(1, "no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    done: list[bool] = []

    def replaced(*args: Any) -> Any:
        if not done:
            done.append(True)
            (temporary,) = far.root.glob(".watchman*.tmp")
            temporary.unlink()
            temporary.write_bytes(b"half")
        return real(*args)

    monkeypatch.setattr(transfer, "_put_in_place", replaced)
    seq = far.put("f", b"whole content")
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"whole content"}
    assert far.left() == {}
    assert done


@pytest.mark.parametrize("name", ["_by_range", "_by_sendfile", "_by_read_and_write"])
def test_a_copy_that_is_not_equal_is_never_placed(
    far: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file system that says it has written, and has not."""
    real = copy._by_read_and_write
    lies = [True]

    def lying(source: int, target: int, offset: int, count: int) -> int:
        if lies:
            lies.pop()
            os.pwrite(target, bytes(min(count, 1 << 20)), offset)
            return min(count, 1 << 20)
        return real(source, target, offset, count)

    for method in ("_by_range", "_by_sendfile", "_by_read_and_write"):
        monkeypatch.setattr(copy, method, lying if method == name else real)
        if method == name:
            break
    if name != "_by_range":

        def refuse(*_: Any) -> int:
            raise OSError(errno.EINVAL, "not here")

        for method in ("_by_range", "_by_sendfile"):
            if method == name:
                break
            monkeypatch.setattr(copy, method, refuse)
    content = os.urandom(3 << 20)
    seq = far.put("f", content)
    with far.running():
        wait_until(lambda: not lies, what="the lie")
        far.wait(seq, State.READY)
    assert far.files() == {"f": content}
    assert far.left() == {}


def test_a_source_rewritten_behind_its_size_and_time_is_kept(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the copy and the removal: only the ctime, and the content, tell."""
    path = far.upload("f", b"first upload")
    seq = far.record("f")
    status = path.stat()
    real: Callable[..., Any] = transfer.remove_source
    done: list[bool] = []

    def late(*args: Any) -> Any:
        if not done:
            done.append(True)
            path.write_bytes(b"FIRST UPLOAD")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return real(*args)

    monkeypatch.setattr(transfer, "remove_source", late)
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"first upload"}
    assert far.left() == {"f": b"FIRST UPLOAD"}


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o640), os.utime])
def test_a_mode_or_time_changed_after_the_copy_does_not_keep_the_source(
    far: Rig, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = far.upload("f", b"content")
    seq = far.record("f")
    real: Callable[..., Any] = transfer.remove_source

    def late(*args: Any) -> Any:
        change(path)
        return real(*args)

    monkeypatch.setattr(transfer, "remove_source", late)
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"content"}
    assert far.left() == {}


def test_a_file_opened_and_closed_all_the_time_is_copied_once(far: Rig) -> None:
    """Its source can often not be removed at once: that must not make another copy."""
    stop = threading.Event()
    paths = [far.upload(f"{number}", os.urandom(400_000)) for number in range(8)]
    wanted = {path.name: path.read_bytes() for path in paths}

    def open_and_close() -> None:
        pause = threading.Event()
        while not stop.is_set():
            for path in paths:
                try:
                    os.close(os.open(path, os.O_RDWR))
                except FileNotFoundError:
                    continue
                pause.wait(0.001)

    def opener(count: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=open_and_close) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    seqs = [far.record(path.name) for path in paths]

    def all_ready() -> bool:
        far.wake()  # each close gives the pipeline an event
        return all(far.state(seq) is State.READY for seq in seqs)

    threads = opener(3)
    try:
        with far.running():
            wait_until(all_ready, 60, what="every file to be moved")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert far.files() == wanted
    assert far.left() == {}


def test_a_writer_at_the_wrong_moment_keeps_the_copy_that_is_placed(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = far.upload("f", b"content")
    seq = far.record("f")
    remove: Callable[..., Any] = transfer.remove_source
    attempt: Callable[..., Any] = transfer.transfer
    writers: list[int] = []
    attempts: list[int] = []

    def opened(*args: Any) -> Any:
        if not writers:
            writers.append(os.open(path, os.O_RDWR))
        return remove(*args)

    def opened_again(*args: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 2:  # the mover has just found it free
            writers.append(os.open(path, os.O_RDWR))
        return attempt(*args)

    monkeypatch.setattr(transfer, "remove_source", opened)
    monkeypatch.setattr("watchman.mover.copy_pool.transfer", opened_again)
    with far.running():
        wait_until(lambda: far.heard.paths, what="the writer to be noticed")
        os.close(writers[0])
        far.wake()
        wait_until(lambda: len(writers) == 2, what="the second attempt")
        reports = len(far.heard.paths)
        wait_until(lambda: len(far.heard.paths) > reports, what="the second writer to be noticed")
        os.close(writers[1])
        far.wake()
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"content"}
    assert far.left() == {}
    assert not hidden(far)
    assert Path(far.row(seq).final).name == "f"


def rewrite(path: Path, content: bytes) -> None:
    """Write what is as long, and give it the time it had."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.flush()
        os.utime(file.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_rewritten_before_its_rename_is_one_delivery(rig: Rig) -> None:
    """It goes with the first row; the second finds its very file at its final path."""
    first = rig.put("a.csv", b"one")
    rewrite(rig.inbox / "a.csv", b"two")
    second = rig.record_version("a.csv", version_of((rig.inbox / "a.csv").stat()))
    late = rig.row(second)
    del rig.store.rows[second]
    with rig.running():
        rig.wake()
        rig.wait(first, State.READY)
        rig.store.add(late)  # looked at before the rename, recorded after it
        rig.wake()
        rig.wait(second, State.VANISHED)
    assert rig.files() == {"a.csv": b"two"}
    assert [row.seq for row in rig.heard.rows] == [first]


def test_both_rows_of_a_rewritten_file_in_one_batch(rig: Rig) -> None:
    first = rig.put("a.csv", b"one")
    rewrite(rig.inbox / "a.csv", b"two")
    second = rig.record("a.csv")
    with rig.running():
        rig.wake()
        rig.wait_end(first)
        rig.wait_end(second)
    assert {rig.state(first), rig.state(second)} == {State.READY, State.VANISHED}
    assert rig.files() == {"a.csv": b"two"}


def test_a_file_rewritten_during_its_copy_is_copied_by_one_at_a_time(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    refused: list[int] = []
    real = claims.refuse

    def noting(row: Delivery) -> None:
        try:
            real(row)
        except SourceChanged:
            refused.append(row.seq)
            raise

    monkeypatch.setattr(claims, "refuse", noting)
    content = random_content()
    far.upload("a.bin", random_content())
    first = far.record("a.bin")
    with far.running():
        far.wake()
        gate.wait(1)
        rewrite(far.inbox / "a.bin", content)
        second = far.record("a.bin")
        far.wake()
        wait_until(lambda: second in refused, what="the second waits for the first")
        assert len(gate.held) == 1
        gate.open()
        far.wait_end(first)
        far.wait_end(second)
    assert {far.state(first), far.state(second)} == {State.READY, State.VANISHED}
    assert far.files() == {"a.bin": content}
    assert far.left() == {}


def test_an_older_file_that_looks_the_same_is_not_taken_for_the_moved_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where inode numbers do not last, and the source was touched since it was recorded."""
    monkeypatch.setattr(mounts, "stability", lambda _: mounts.stability_of("fuse.sshfs"))
    (rig.root / "a.csv").write_bytes(b"old")
    path = rig.upload("a.csv", b"new")
    for each in (path, rig.root / "a.csv"):
        os.utime(each, ns=(1, 1))
    seq = rig.record("a.csv")
    os.utime(path, ns=(2, 2))
    with rig.running():
        rig.wake()
        wait_until(lambda: str(path) in rig.heard.paths, what="it is said that it has changed")
    assert rig.state(seq) is State.MOVING
    assert rig.left() == {"a.csv": b"new"}


def made_anew(rig: Rig) -> tuple[int, int]:
    """Record a file, and another in its place with the same size and time; return both seqs."""
    first = rig.put("d/a.csv", b"first")
    source = rig.inbox / "d/a.csv"
    time_ns = source.stat().st_mtime_ns
    source.rename(source.with_name("b.csv"))  # so that the inode is another one
    source.write_bytes(b"again")
    source.with_name("b.csv").unlink()
    os.utime(source, ns=(time_ns, time_ns))
    return first, rig.record("d/a.csv")


def put_off(rig: Rig, monkeypatch: pytest.MonkeyPatch, seq: int) -> None:
    """Keep a row from the mover, as if it had been put off until after a reload."""
    page = rig.store.page_moving

    def later(*asked: Any) -> list[Delivery]:
        return [row for row in page(*asked) if row.seq != seq]

    monkeypatch.setattr(rig.store, "page_moving", later)


def test_what_was_moved_before_a_reload_is_not_taken_by_an_older_delivery(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made_anew(far)
    with monkeypatch.context() as patch:
        put_off(far, patch, first)
        with far.running():
            far.wait(second, State.READY)
    far.new_mover()
    with far.running():
        far.wait_end(first)
    assert far.state(first) is State.VANISHED
    assert far.files() == {"d/a.csv": b"again"}


def test_what_was_copied_and_not_noted_before_a_reload_is_not_taken_by_an_older_delivery(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made_anew(far)
    real = transfer.transfer

    def stopping(*args: Any) -> Delivery:
        row = real(*args)
        far.mover._stop.set()
        return row

    with monkeypatch.context() as patch:
        put_off(far, patch, first)
        patch.setattr("watchman.mover.copy_pool.transfer", stopping)
        with far.running():
            wait_until(far.mover._stop.is_set, what="the copy to be in its place")
    assert far.state(second) is State.MOVING
    far.new_mover()
    with far.running():
        far.wait_end(first)
        far.wait_end(second)
    assert (far.state(first), far.state(second)) == (State.VANISHED, State.READY)
    assert far.files() == {"d/a.csv": b"again"}
    assert far.left() == {}
