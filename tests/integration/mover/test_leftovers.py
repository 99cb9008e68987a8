"""Paths that nobody could open, and what attempts leave behind when a delivery ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.file_access import PATH_MAX
from watchman.model import State
from watchman.mover import claims
from watchman.mover.names import marker_name, temporary_name


def hidden(rig: Rig) -> list[str]:
    return [name for name in (*rig.files(), *rig.left()) if ".watchman" in name]


def long_way(rig: Rig, length: int) -> str:
    """Return a relative directory with which a file ``f`` at the destination has that length."""
    room = length - len(os.fsencode(f"{rig.root}/")) - len("/f")
    parts = []
    while room > 0:
        part = min(room, 200)
        if room - part == 1:
            part -= 1
        parts.append("d" * part)
        room -= part + 1
    return "/".join(parts)


def make_deep(top: Path, relative: str) -> int:
    """Make directories that no single path reaches; return a descriptor of the last."""
    directory = os.open(top, os.O_RDONLY)
    for part in relative.split("/"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=directory)
        below = os.open(part, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    return directory


def put_deep(rig: Rig, relative: str) -> int:
    directory = make_deep(rig.inbox, relative)
    descriptor = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
    os.write(descriptor, b"content")
    os.close(descriptor)
    os.close(directory)
    return rig.record(f"{relative}/f")


def short_rig(any_rig: Rig, tmp_path: Path) -> Rig:
    """Sources have a shorter path than destinations: only those become too long."""
    root = any_rig.root / ("r" * 120)
    root.mkdir()
    any_rig.root = root
    any_rig.new_mover()
    return any_rig


def test_a_path_that_would_be_too_long_fails_and_stays(any_rig: Rig, tmp_path: Path) -> None:
    rig = short_rig(any_rig, tmp_path)
    relative = long_way(rig, PATH_MAX + 1)
    seq = put_deep(rig, relative)
    fits = put_deep(rig, long_way(rig, PATH_MAX))
    assert len(os.fsencode(rig.row(seq).final)) == PATH_MAX + 1
    assert len(os.fsencode(rig.row(fits).final)) == PATH_MAX
    with rig.running():
        rig.wait(seq, State.FAILED)
        rig.wait(fits, State.READY)
    reason = rig.store.reasons[seq]
    assert f"{PATH_MAX + 1} bytes" in reason
    assert "notify retry" in reason
    assert os.path.exists(rig.inbox / relative / "f")
    assert Path(rig.row(fits).final).read_bytes() == b"content"
    assert not hidden(rig)


def test_a_suffix_that_makes_the_path_too_long(any_rig: Rig, tmp_path: Path) -> None:
    rig = short_rig(any_rig, tmp_path)
    relative = long_way(rig, PATH_MAX)
    seq = put_deep(rig, relative)
    directory = make_deep(rig.root, relative)
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    with rig.running():
        rig.wait(seq, State.FAILED)
    assert os.listdir(directory) == ["f"]
    os.close(directory)
    assert not rig.store.redirects
    assert (rig.inbox / relative / "f").read_bytes() == b"content"


@pytest.mark.parametrize("whole", [True, False])
def test_a_vanished_delivery_takes_its_half_copy_along(far: Rig, whole: bool) -> None:
    """Killed in the middle of a copy, and the uploader took the file back before the restart."""
    seq = far.put("d/f")
    row = far.row(seq)
    (far.root / "d").mkdir()
    (far.root / "d" / temporary_name(row.task_id)).write_bytes(b"content" if whole else b"con")
    (far.root / "d" / marker_name(row.task_id)).write_text("1\n")
    (far.root / "d" / temporary_name("somebody-else")).write_bytes(b"theirs")
    (far.inbox / "d/f").unlink()
    with far.running():
        far.wait(seq, State.VANISHED)
        wait_until(lambda: len(far.files()) == 1, what="the half copy to be removed")
    assert far.files() == {f"d/{temporary_name('somebody-else')}": b"theirs"}


def test_a_tree_that_vanished_takes_its_half_copy_along(far: Rig) -> None:
    far.upload("t/f")
    seq = far.record("t", kind="directories")
    half = far.root / temporary_name(far.row(seq).task_id)
    half.mkdir()
    (half / "f").write_bytes(b"con")
    (far.inbox / "t/f").unlink()
    (far.inbox / "t").rmdir()
    with far.running():
        far.wait(seq, State.VANISHED)
        wait_until(lambda: not half.exists(), what="the half copy to be removed")


def test_a_failed_delivery_takes_its_half_copy_along(far: Rig) -> None:
    far.upload("t/f")
    os.mkfifo(far.inbox / "t/fifo")
    seq = far.record("t", kind="directories")
    half = far.root / temporary_name(far.row(seq).task_id)
    half.mkdir()
    with far.running():
        far.wait(seq, State.FAILED)
        wait_until(lambda: not half.exists(), what="the half copy to be removed")
    assert far.left() == {"t/f": b"content", "t/fifo": b""}


def test_what_another_attempt_writes_is_not_removed(far: Rig) -> None:
    """A newer delivery under the same id is being copied while the older one ends."""
    seq = far.put("f")
    row = far.row(seq)
    other = far.root / temporary_name(row.task_id)
    other.write_bytes(b"under way")
    (far.inbox / "f").unlink()
    later = far.put("g")
    with claims.claimed(row), far.running():
        wait_until(lambda: far.status().troubles, what="the older one to be put off")
        far.wait(later, State.READY)
        assert other.read_bytes() == b"under way"
