"""Full, forbidden, missing: nothing is lost, nobody else waits, and it is said once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mover.rig import MemoryLedger, Rig
from tests.waiting import wait_until
from watchman.model import State
from watchman.mover import syscalls, trouble
from watchman.mover.lane import BATCH, MOST_IN_HAND
from watchman.mover.trouble import Troubles


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(trouble, "LONGEST_DELAY", 0.2)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= level]


def test_the_root_is_gone_and_comes_back(any_rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    any_rig.root.rmdir()
    seqs = [any_rig.put(f"d/{number}") for number in range(5)]
    with any_rig.running():
        wait_until(lambda: any_rig.status().stuck_since_ns, what="the root to be missed")
        assert "ENOENT" in any_rig.status().reason
        assert str(any_rig.root) in any_rig.status().reason
        delay = any_rig.mover._lanes[0].troubles.active[""]
        wait_until(lambda: delay.delay >= 0.2, what="some attempts")
        assert not any_rig.root.exists()
        assert len(any_rig.left()) == 5
        any_rig.root.mkdir()
        for seq in seqs:
            any_rig.wait(seq, State.READY)
        wait_until(lambda: any_rig.status().stuck_since_ns is None, what="the end of it")
    said = lines(caplog)
    assert len(said) == 2, said
    assert said[0].startswith("Cannot move from ")
    assert "mount or create it" in said[0]
    assert said[1].startswith("Moving from ")


def test_another_root_is_not_held_up(rig: Rig, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rig.root.rmdir()
    (rig.inbox / "x").mkdir()
    rig.new_mover([(str(rig.inbox), str(rig.root)), (str(rig.inbox / "x"), str(other))])
    stuck = rig.put("f")
    rig.upload("x/f")
    free = rig.record("x/f", final=str(other / "f"))
    with rig.running():
        rig.wait(free, State.READY)
        assert rig.state(stuck) is State.MOVING
        later = rig.upload("x/g")
        seq = rig.record("x/g", final=str(other / "g"))
        rig.mover.wake()
        rig.wait(seq, State.READY)
    assert not later.exists()


def test_a_stuck_backlog_is_not_read_again_and_again(rig: Rig) -> None:
    rig.root.rmdir()
    for number in range(6000):
        rig.put(f"{number}", b"")
    with rig.running():
        trouble_of = rig.mover._lanes[0].troubles.active
        wait_until(lambda: trouble_of.get("") and trouble_of[""].delay >= 0.2, what="attempts")
        assert rig.status().waiting <= MOST_IN_HAND + BATCH
        pages = len(rig.ledger.pages)
        for _ in range(20):
            rig.mover.wake()
        retry = trouble_of[""].retry_at
        wait_until(lambda: trouble_of[""].retry_at > retry, what="one more attempt")
        assert len(rig.ledger.pages) - pages <= 25
        rig.root.mkdir()
        wait_until(lambda: len(rig.moved) == 6000, 20, what="the backlog to be moved")
    assert len(rig.files()) == 6000


def test_a_full_destination(tmp_path: Path, small: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    filler = small / "filler"
    filler.write_bytes(bytes(4 << 20))
    seqs = [rig.put(f"{number}", bytes([number]) * 100_000) for number in range(5)]
    with rig.running():
        wait_until(lambda: rig.status().troubles or rig.status().reason, what="no space")
        assert len(rig.left()) == 5
        assert set(rig.files()) == {"filler"}
        filler.unlink()
        for seq in seqs:
            rig.wait(seq, State.READY)
    assert rig.files() == {f"{number}": bytes([number]) * 100_000 for number in range(5)}
    assert any("free space there" in line for line in lines(caplog))


def test_a_file_too_large_for_the_rest_of_the_space_holds_up_only_itself(
    tmp_path: Path, small: Path
) -> None:
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    large = rig.put("large", bytes(5 << 20))
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the large one to be reported")
        little = rig.put("little")
        rig.mover.wake()
        rig.wait(little, State.READY)
        assert "ENOSPC" in rig.status().troubles[0][1]
        assert rig.status().stuck_since_ns is None
        assert rig.state(large) is State.MOVING
    assert rig.left() == {"large": bytes(5 << 20)}
    assert set(rig.files()) == {"little"}


def test_space_that_ends_during_the_copy_leaves_no_half_file(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchman.mover.transfer.require_room", lambda *_: None)
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    seq = rig.put("large", bytes(5 << 20))
    with rig.running():
        wait_until(lambda: rig.status().stuck_since_ns, what="the end of the space")
        wait_until(lambda: not rig.files(), what="the half copy to be removed")
        assert rig.state(seq) is State.MOVING
    assert rig.left() == {"large": bytes(5 << 20)}


def test_a_forbidden_directory_holds_up_only_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Injected, since root may write anywhere: renames into ``closed`` are refused."""
    real = syscalls.rename_noreplace
    closed = True

    def guarded(old: str, olddir: int, new: str, newdir: int, *, tree: bool = False) -> None:
        if closed and os.readlink(f"/proc/self/fd/{newdir}").endswith("/closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), new)
        real(old, olddir, new, newdir, tree=tree)

    monkeypatch.setattr("watchman.mover.rename.rename_noreplace", guarded)
    kept = [rig.put(f"closed/{number}") for number in range(50)]
    free = [rig.put(f"open/{number}") for number in range(50)]
    with rig.running():
        for seq in free:
            rig.wait(seq, State.READY)
        assert len(rig.status().troubles) == 1
        assert rig.status().stuck_since_ns is None
        closed = False
        for seq in kept:
            rig.wait(seq, State.READY)
        wait_until(lambda: not rig.status().troubles, what="the end of it")
    said = lines(caplog)
    assert "/closed" in said[0]
    assert len(said) == 2, said
    moves = [r for r in caplog.records if r.name == "watchman.notify"]
    assert len(moves) <= 100


def test_a_destination_without_permission(rig: Rig) -> None:
    rig.root.chmod(0o500)
    if os.access(rig.root, os.W_OK):
        pytest.skip("root may write anywhere")
    seq = rig.put("f")
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the refusal")
        rig.root.chmod(0o700)
        rig.wait(seq, State.READY)


def test_a_failing_fsync_notes_nothing(own_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = syscalls.sync_directory
    broken = True

    def failing(descriptor: int) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr("watchman.mover.folders.sync_directory", failing)
    seq = own_rig.put("f")
    with own_rig.running():
        wait_until(lambda: own_rig.status().stuck_since_ns, what="the failure")
        assert own_rig.state(seq) is State.MOVING
        assert own_rig.moved == []
        broken = False
        own_rig.wait(seq, State.READY)
    assert own_rig.files() == {"f": b"content"}


def test_a_missing_watch_is_not_taken_for_vanished_files(rig: Rig) -> None:
    seq = rig.put("f")
    away = rig.inbox.with_name("away")
    rig.inbox.rename(away)
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the watch to be missed")
        assert rig.state(seq) is State.MOVING
        away.rename(rig.inbox)
        rig.wait(seq, State.READY)


def test_an_unmounted_watch_is_not_taken_for_vanished_files(rig: Rig) -> None:
    seq = rig.put("f")
    row = rig.row(seq)
    away = rig.root.with_name("away")
    (rig.inbox / "f").rename(away)  # what is below a mount point, when nothing is mounted
    rig.ledger.add(row._replace(version=row.version._replace(device=row.version.device + 1)))
    with rig.running():
        wait_until(lambda: rig.status().reason, what="the watch to be missed")
        assert "ESTALE" in rig.status().reason
        assert rig.state(seq) is State.MOVING
        away.rename(rig.inbox / "f")
        rig.wait(seq, State.READY)


def test_a_failing_ledger_ends_the_mover(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the journal is broken")

    monkeypatch.setattr(MemoryLedger, "note", broken)
    rig.put("f")
    rig.mover.start()
    wait_until(lambda: rig.mover.error, what="the error to show")
    rig.mover.stop(5)
    assert str(rig.mover.error) == "the journal is broken"


def test_back_off_doubles_up_to_a_limit_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    troubles = Troubles("/in", "/out")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    delays = []
    for _ in range(9):
        found = troubles.hit("", OSError(errno.EIO, "broken"))
        delays.append(found.delay)
        assert 0.8 * found.delay <= found.retry_at - now <= 1.2 * found.delay
        assert troubles.hit("", OSError(errno.EIO, "broken")).delay == found.delay
        now = found.retry_at
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_trouble_ends_with_the_last_row_that_waits_for_it(rig: Rig) -> None:
    (rig.root / "d").write_bytes(b"in the way")
    seq = rig.put("d/f")
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the obstacle to be reported")
        assert "ENOTDIR" in rig.status().troubles[0][1]
        shutil.rmtree(rig.inbox / "d")
        rig.root.joinpath("d").unlink()
        rig.wait(seq, State.VANISHED)
        wait_until(lambda: not rig.status().troubles, what="the end of it")
