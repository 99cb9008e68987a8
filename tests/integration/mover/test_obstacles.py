"""Full, forbidden, missing: nothing is lost, nobody else waits, and it is said once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import MemoryStore, Rig
from tests.waiting import wait_until
from watchman.model import State, Watch
from watchman.mover import Mover, copy, copy_pool, deferred, destination, obstacles, syscalls
from watchman.mover.obstacles import Obstacles


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(obstacles, "LONGEST_DELAY", 0.2)


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
        assert any_rig.status().reason.endswith("; mount or create it")
        delay = any_rig.destination.obstacles.active[""]
        wait_until(lambda: delay.backoff.delay >= 0.2, what="some attempts")
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
        rig.wake()
        rig.wait(seq, State.READY)
    assert not later.exists()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many rows may be in memory then."""
    monkeypatch.setattr(destination, "BATCH", 500)
    monkeypatch.setattr(destination, "MOST_IN_PROGRESS", 1000)
    return 1500


def test_a_stuck_backlog_is_not_read_again_and_again(rig: Rig, small_batches: int) -> None:
    rig.root.rmdir()
    for number in range(6000):
        rig.put(f"{number}", b"")
    with rig.running():
        trouble_of = rig.destination.obstacles.active
        wait_until(lambda: trouble_of and trouble_of[""].backoff.delay >= 0.2, what="attempts")
        assert rig.status().waiting <= small_batches
        pages = len(rig.store.pages)
        for _ in range(20):
            rig.wake()
        retry = trouble_of[""].retry_at
        wait_until(lambda: trouble_of[""].retry_at > retry, what="one more attempt")
        assert len(rig.store.pages) - pages <= 25
        rig.root.mkdir()
        wait_until(lambda: len(rig.heard.rows) == 6000, 20, what="the backlog to be moved")
    assert len(rig.files()) == 6000


def test_a_full_destination(tmp_path: Path, small: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    filler = small / "filler"
    filler.write_bytes(bytes(4 << 20))
    seqs = [rig.put(f"{number}", bytes([number]) * 100_000) for number in range(5)]
    caplog.set_level(logging.INFO)
    with rig.running():
        wait_until(lambda: len(rig.status().troubles) == 5 or rig.status().reason, what="no space")
        assert len(rig.left()) == 5
        # Nothing is moved, and of none is it remembered that it was said to be.
        assert not [line for line in lines(caplog, logging.INFO) if line.startswith("Moving /")]
        assert set(rig.files()) == {"filler"}
        filler.unlink()
        for seq in seqs:
            rig.wait(seq, State.READY)
    assert rig.files() == {f"{number}": bytes([number]) * 100_000 for number in range(5)}
    assert any("free space there" in line for line in lines(caplog))
    moving = [line for line in lines(caplog, logging.INFO) if line.startswith("Moving /")]
    assert len(moving) == len(set(moving)) == 5


def test_a_file_too_large_for_the_rest_of_the_space_holds_up_only_itself(
    tmp_path: Path, small: Path
) -> None:
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    large = rig.put("large", bytes(5 << 20))
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the large one to be reported")
        little = rig.put("little")
        rig.wake()
        rig.wait(little, State.READY)
        assert "ENOSPC" in rig.status().troubles[0][1]
        assert rig.status().stuck_since_ns is None
        assert rig.state(large) is State.MOVING
    assert rig.left() == {"large": bytes(5 << 20)}
    assert set(rig.files()) == {"little"}


def test_space_that_ends_during_the_copy_leaves_no_half_file(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchman.mover.copy.require_room", lambda *_: None)
    (tmp_path / "in").mkdir()
    rig = Rig(tmp_path / "in", small)
    seq = rig.put("large", bytes(5 << 20))
    with rig.running():
        wait_until(lambda: rig.status().stuck_since_ns, what="the end of the space")
        wait_until(lambda: not rig.files(), what="the half copy to be removed")
        assert rig.state(seq) is State.MOVING
    assert rig.left() == {"large": bytes(5 << 20)}


@contextmanager
def immutable(*paths: Path) -> Iterator[None]:
    """Keep files and directories as they are, from root as well."""
    done = subprocess.run(["chattr", "+i", *map(str, paths)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no chattr +i here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *map(str, paths)], check=True)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_forbidden_directory_holds_up_only_itself(
    own_rig: Rig, side: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = own_rig
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 1.0)
    monkeypatch.setattr(obstacles, "LONGEST_DELAY", 1.0)
    kept = [rig.put(f"closed/{number}") for number in range(50)]
    free = [rig.put(f"open/{number}") for number in range(50)]
    (rig.root / "closed").mkdir()
    closed = (rig.inbox if side == "source" else rig.root) / "closed"
    with immutable(closed):
        rig.mover.start()
        for seq in free:
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().troubles, what="the refusal to show")
        assert len(rig.status().troubles) == 1
        assert rig.status().stuck_since_ns is None
        assert len([name for name in rig.files() if name.startswith("closed")]) == 0
        # Who was refused and finds the directory writable when it asks would blame the file.
        deferred_rows, found = rig.destination._deferred, rig.destination.obstacles.active

        def no_attempt_is_near() -> bool:
            soonest = min(obstacle.retry_at for obstacle in list(found.values()))
            return len(deferred_rows) == len(kept) and soonest > time.monotonic() + 0.4

        wait_until(no_attempt_is_near, what="all to be put off")
    for seq in kept:
        rig.wait(seq, State.READY)
    wait_until(lambda: not rig.status().troubles, what="the end of it")
    rig.mover.stop(10)
    said = lines(caplog)
    assert "/closed" in said[0]
    assert "both directories" in said[0]
    assert len(said) == 2, said
    moves = [r for r in caplog.records if r.name == "watchman.notify"]
    assert len(moves) <= 100


def test_an_immutable_file_holds_up_only_itself(
    own_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = own_rig
    kept = rig.put("d/kept")
    free = [rig.put(f"d/{number}") for number in range(20)]
    with immutable(rig.inbox / "d/kept"), rig.running():
        for seq in free:
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().troubles, what="the refusal to show")
        assert "EPERM" in rig.status().troubles[0][1]
        assert "d/kept" in rig.status().troubles[0][1]
        later = rig.put("d/later")
        rig.wake()
        rig.wait(later, State.READY)
        assert rig.state(kept) is State.MOVING
        assert "d/kept" not in rig.files(), "copied, though it cannot be taken away"
        assert not [name for name in rig.files() if ".watchman" in name]
        subprocess.run(["chattr", "-i", str(rig.inbox / "d/kept")], check=True)
        rig.wait(kept, State.READY)
        (rig.inbox / "d/kept").write_bytes(b"")  # for what chattr does at the end
    said = lines(caplog)
    assert "chattr -i" in said[0]
    assert len(said) == 2, said


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EINVAL, "refuses this name"),
        (errno.EILSEQ, "refuses this name"),
        (errno.EFBIG, "larger than the destination's"),
        (errno.EBUSY, "the kernel uses it"),
        (errno.EIO, "kernel's log"),
        (errno.ESTALE, "mount it again"),
        (errno.EACCES, "read this file"),
    ],
)
def test_an_error_of_one_file_is_that_files(
    own_rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    remedy: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = own_rig
    broken = [True]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(name: str, *rest: Any, **more: Any) -> Any:
            if broken and name == "bad":
                raise OSError(code, os.strerror(code), name)
            return real(name, *rest, **more)

        return wrapped

    monkeypatch.setattr(
        "watchman.mover.rename.rename_noreplace", failing(syscalls.rename_noreplace)
    )
    monkeypatch.setattr("watchman.mover.transfer.copied", failing(copy.copied))
    bad = rig.put("d/bad")
    good = [rig.put(f"d/{number}") for number in range(20)]
    with rig.running():
        for seq in good:
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().troubles, what="the error to show")
        assert rig.status().stuck_since_ns is None
        assert rig.state(bad) is State.MOVING
        broken.clear()
        rig.wait(bad, State.READY)
    said = lines(caplog)
    assert len(said) == 2
    assert remedy in said[0]
    assert "d/bad" in said[0]


def test_thousands_of_files_with_one_trouble(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_batches: int,
) -> None:
    """No flood of lines, no row that waits for them, and each is moved when it can be."""
    monkeypatch.setattr(deferred, "MOST", 100)
    monkeypatch.setattr(deferred, "FIRST_REREAD", 0.3)
    monkeypatch.setattr(deferred, "LONGEST_REREAD", 0.3)
    rig.new_mover()
    real = syscalls.rename_noreplace
    broken = [True]

    def failing(old: str, *rest: Any, **more: Any) -> None:
        if broken and old.startswith("bad"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), old)
        real(old, *rest, **more)

    monkeypatch.setattr("watchman.mover.rename.rename_noreplace", failing)
    bad = [rig.put(f"d/bad{number}") for number in range(1200)]
    with rig.running():
        good = [rig.put(f"d/good{number}") for number in range(100)]
        rig.wake()
        for seq in good:
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().waiting >= 1100, what="all to be tried")
        assert len(rig.status().troubles) <= 21
        assert len(rig.destination._deferred) <= 100
        assert len(rig.destination._in_progress) <= 100 + small_batches
        assert not rig.status().reason
        broken.clear()
        for seq in bad:
            rig.wait(seq, State.READY, 60)
        wait_until(lambda: not rig.status().troubles, what="the end of it")
    assert len(rig.files()) == 1300
    said = lines(caplog)
    assert len([line for line in said if line.startswith("Cannot move")]) <= 7, said
    assert any("more than 5 files" in line for line in said)


def test_what_is_in_the_way_of_rows_that_are_not_in_memory_is_not_kept_either(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred, "MOST", 100)
    monkeypatch.setattr(destination, "BATCH", 50)
    rig.new_mover()

    def failing(old: str, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), old)

    monkeypatch.setattr("watchman.mover.rename.rename_noreplace", failing)
    for number in range(600):
        rig.put(f"d/{number}")
    with rig.running():
        wait_until(lambda: rig.status().waiting >= 600, what="all to be tried")
        active = rig.destination.obstacles.active
        assert len(active) <= 100 + obstacles.LOGGED_EACH
        assert len(rig.status().troubles) == obstacles.NAMED + 1


def test_a_destination_without_permission(rig: Rig) -> None:
    rig.root.chmod(0o500)
    if os.access(rig.root, os.W_OK):
        pytest.skip("root may write anywhere")
    seq = rig.put("f")
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the refusal")
        rig.root.chmod(0o700)
        rig.wait(seq, State.READY)


def failing_fsync(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what has fsync of directories fail while it is set."""
    real, broken = syscalls.sync_directory, threading.Event()

    def failing(descriptor: int) -> None:
        if broken.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr("watchman.mover.open_directories.sync_directory", failing)
    return broken


def test_a_failing_fsync_notes_nothing(own_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = failing_fsync(monkeypatch)
    broken.set()
    seq = own_rig.put("f")
    with own_rig.running():
        wait_until(lambda: own_rig.status().stuck_since_ns, what="the failure")
        assert own_rig.state(seq) is State.MOVING
        assert own_rig.heard.rows == []
        broken.clear()
        own_rig.wait(seq, State.READY)
    assert own_rig.files() == {"f": b"content"}


def test_what_could_not_be_made_durable_is_not_taken_for_an_earlier_file_of_that_name(
    own_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one was fetched from the destination, so its name is free again."""
    broken = failing_fsync(monkeypatch)
    earlier = own_rig.put("f")
    with own_rig.running():
        own_rig.wait(earlier, State.READY)
        (own_rig.root / "f").unlink()
        broken.set()
        seq = own_rig.put("f", b"another")
        own_rig.wake()
        wait_until(lambda: own_rig.status().stuck_since_ns, what="the failure")
        broken.clear()
        own_rig.wait_end(seq)
    assert own_rig.state(seq) is State.READY
    assert own_rig.files() == {"f": b"another"}


@pytest.mark.parametrize("failure", [RuntimeError("as if the journal were damaged"), SystemExit(3)])
def test_what_a_mover_had_moved_when_it_died_is_not_taken_for_an_earlier_file_of_that_name(
    own_rig: Rig, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """As where the journal is damaged, and opened again by the same process."""
    earlier = own_rig.put("f")
    with own_rig.running():
        own_rig.wait(earlier, State.READY)
        (own_rig.root / "f").unlink()
    seq = own_rig.put("f", b"another")

    def failing(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(own_rig.store, "note", failing)
        own_rig.new_mover().start()
        wait_until(lambda: own_rig.mover.error is failure, what="the mover ends")
        own_rig.mover.stop(10.0)
    assert own_rig.state(seq) is State.MOVING
    assert own_rig.left() == {}
    own_rig.new_mover()
    with own_rig.running():
        own_rig.wait_end(seq)
    assert own_rig.state(seq) is State.READY
    assert own_rig.files() == {"f": b"another"}


def test_whatever_ends_a_copy_or_the_search_for_strays_is_seen(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = SystemExit(3)

    def failing(*_: object) -> None:
        raise failure

    for owner, name in ((copy_pool, "transfer"), (Mover, "_assign")):
        seq = far.put(name)
        if name == "_assign":
            del far.store.moves[seq]
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            far.new_mover().start()
            wait_until(lambda: far.mover.error is failure, what=f"{name} ends the mover")
            far.mover.stop(10.0)
        far.new_mover()
        with far.running():
            far.wait(seq, State.READY)


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
    rig.store.add(row._replace(version=row.version._replace(device=row.version.device + 1)))
    with rig.running():
        wait_until(lambda: rig.status().reason, what="the watch to be missed")
        assert "ESTALE" in rig.status().reason
        assert rig.state(seq) is State.MOVING
        away.rename(rig.inbox / "f")
        rig.wait(seq, State.READY)


@pytest.mark.parametrize("mounted", [False, True])
def test_what_matches_a_pattern_is_gone_or_unmounted(rig: Rig, mounted: bool) -> None:
    rig.heard.watch = Watch(f"{rig.inbox}/d", pattern=f"{rig.inbox}/*")
    seq = rig.put("d/f")
    row = rig.row(seq)
    away = rig.root.with_name("away")
    (rig.inbox / "d").rename(away)
    device = row.version.device + (not mounted)
    rig.store.add(row._replace(version=row.version._replace(device=device)))
    with rig.running():
        if mounted:
            rig.wait(seq, State.VANISHED)
            return
        wait_until(lambda: rig.status().reason, what="the watch to be missed")
        assert "ESTALE" in rig.status().reason
        away.rename(rig.inbox / "d")
        rig.wait(seq, State.READY)


def test_a_failing_journal_ends_the_mover(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the journal is broken")

    monkeypatch.setattr(MemoryStore, "note", broken)
    rig.put("f")
    rig.mover.start()
    wait_until(lambda: rig.mover.error, what="the error to show")
    rig.mover.stop(5)
    assert str(rig.mover.error) == "the journal is broken"


def test_back_off_doubles_up_to_a_limit_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    troubles = Obstacles("/in", "/out")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    delays = []
    for _ in range(9):
        found = troubles.add("", OSError(errno.EIO, "broken"))
        delays.append(found.backoff.delay)
        assert 0.6 * found.backoff.delay <= found.retry_at - now <= found.backoff.delay
        assert troubles.add("", OSError(errno.EIO, "broken")).backoff.delay == found.backoff.delay
        now = found.retry_at
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_trouble_ends_with_the_last_row_that_waits_for_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    (rig.root / "d").write_bytes(b"in the way")
    seq = rig.put("d/f")
    with rig.running():
        wait_until(lambda: rig.status().troubles, what="the obstacle to be reported")
        assert "ENOTDIR" in rig.status().troubles[0][1]
        shutil.rmtree(rig.inbox / "d")
        rig.root.joinpath("d").unlink()
        rig.wait(seq, State.VANISHED)
        wait_until(lambda: not rig.status().troubles, what="the end of it")
    # Nothing was moved.
    (over,) = [line for line in lines(caplog) if "ENOTDIR" in line and "Cannot" not in line]
    assert over.startswith(f"Nothing waits any more for a move from {rig.inbox} to {rig.root} (")
