"""The second process that renames: what it does is what the daemon would do."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.model import Delivery, State
from watchman.mover import destination, obstacles, open_directories, rename_process
from watchman.mover.rename import rename

Helped = Callable[[], Rig]


@pytest.fixture
def later(request: pytest.FixtureRequest) -> Helped:
    """Makes the rig when it is called: the process takes along what was patched by then."""

    def make() -> Rig:
        found: Rig = request.getfixturevalue("helped")
        return found

    return make


def moved_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the seq of each row that the daemon moves itself."""
    seqs: list[int] = []

    def counting(row: Delivery, *rest: Any) -> Delivery:
        seqs.append(row.seq)
        return rename(row, *rest)

    monkeypatch.setattr(destination, "rename", counting)
    return seqs


def test_whole_batches_are_moved_by_the_process(
    helped: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own = moved_by(monkeypatch)
    seqs = [helped.put(f"d{n % 30}/{n}.csv", b"%d" % n) for n in range(3000)]
    with helped.running():
        for seq in seqs:
            helped.wait(seq, State.READY)
    assert helped.files() == {f"d{n % 30}/{n}.csv": b"%d" % n for n in range(3000)}
    assert not helped.left()
    assert not own
    said = [record.message for record in caplog.records if record.message.startswith("Moving ")]
    assert len(said) == len(set(said)) == 3000


def test_few_rows_are_not_worth_asking(helped: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rename_process, "FEW", 50)
    own = moved_by(monkeypatch)
    seq = helped.put("one")
    with helped.running():
        helped.wait(seq, State.READY)
    assert own == [seq]


def test_what_is_not_simple_is_left_to_the_destination(
    helped: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = moved_by(monkeypatch)
    plain = [helped.put(f"{n}") for n in range(100)]
    (helped.root / "taken").write_text("there")
    taken, gone, changed = (helped.put(name) for name in ("taken", "gone", "changed"))
    (helped.inbox / "gone").unlink()
    helped.upload("changed", b"something else")
    busy = helped.put("busy")
    with (helped.inbox / "busy").open("r+b") as writer, helped.running():
        for seq in (*plain, taken):
            helped.wait(seq, State.READY)
        helped.wait(gone, State.VANISHED)
        wait_until(lambda: len(helped.heard.paths) >= 2, what="both to be reported")
        writer.close()
        helped.wake()
        helped.wait(busy, State.READY)
    assert (helped.root / "taken").read_text() == "there"
    assert Path(helped.row(taken).final).read_bytes() == b"content"
    assert helped.state(changed) is State.MOVING
    assert not set(own) & set(plain)


def test_one_that_is_killed_in_a_batch(later: Helped, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(row: Delivery, *rest: Any) -> Delivery:
        moved = rename(row, *rest)
        if row.seq == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    monkeypatch.setattr(rename_process, "rename", killed)
    rig = later()
    seqs = [rig.put(f"{n}", b"%d" % n) for n in range(1000)]
    with rig.running():
        for seq in seqs:
            rig.wait(seq, State.READY, 60)
    assert rig.files() == {f"{n}": b"%d" % n for n in range(1000)}
    assert not rig.left()


def test_moves_that_could_not_be_made_durable_are_not_noted(
    later: Helped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(open_directories, "sync_directory", failing)
        rig = later()
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 3.0)  # long enough to look
    seqs = [rig.put(f"{n}") for n in range(100)]
    with rig.running():
        wait_until(lambda: rig.status().reason, what="the trouble")
        assert "EIO" in rig.status().reason
        assert all(rig.state(seq) is State.MOVING for seq in seqs)
        # The next attempt is the daemon's own, which can sync.
        for seq in seqs:
            rig.wait(seq, State.READY)
    assert len(rig.files()) == 100


@contextmanager
def held_open(pipe: Path) -> Iterator[None]:
    """Let whoever waits for the pipe's writer go on at the end."""
    try:
        yield
    finally:
        os.close(os.open(pipe, os.O_WRONLY))


def test_a_destination_does_not_wait_for_the_batch_of_another(
    later: Helped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def hanging(row: Delivery, *rest: Any) -> Delivery:
        os.close(os.open(pipe, os.O_RDONLY))
        return rename(row, *rest)

    monkeypatch.setattr(rename_process, "rename", hanging)
    rig = later()
    other = tmp_path / "other"
    other.mkdir()
    rig.new_mover([(str(rig.inbox / "a"), str(rig.root)), (str(rig.inbox / "b"), str(other))])
    rig.upload("a/f")
    stuck = rig.record("a/f", final=str(rig.root / "f"))
    opened: AbstractContextManager[None] = held_open(pipe)
    with rig.running(), opened:
        assert rig.process is not None
        wait_until(rig.process._lock.locked, what="the process to be in use")
        rig.upload("b/f")
        free = rig.record("b/f", final=str(other / "f"))
        rig.wake()
        rig.wait(free, State.READY)
        assert rig.state(stuck) is State.MOVING
    assert rig.state(stuck) is State.READY
