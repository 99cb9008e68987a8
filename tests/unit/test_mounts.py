"""What is mounted is read anew when that has changed, and not at each look."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.descriptors import no_descriptor_left
from tests.mounted import mounted
from watchman import mounts
from watchman.mounts import Changes, Mount, MountTable
from watchman.timelimit import within


def test_many_looks_read_it_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read, reads = mounts.mounts, 0

    def counting() -> dict[str, Mount]:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(mounts, "mounts", counting)
    table = MountTable()
    looked = [within(str(tmp_path / str(n)), tmp_path.is_dir, table=table) for n in range(50)]
    assert all(looked)
    assert reads < 10  # once, unless other tests mount something meanwhile


def test_what_is_mounted_since_is_in_it(tmp_path: Path) -> None:
    table, place = MountTable(), tmp_path / "place"
    assert str(place) not in table.read()
    with mounted(place):
        assert table.read()[str(place)].type == "tmpfs"
    assert str(place) not in table.read()


def test_a_change_that_cannot_be_read_is_not_forgotten(tmp_path: Path) -> None:
    changes = Changes()
    with mounted(tmp_path / "place"):
        with no_descriptor_left():
            assert not changes.any()
        assert changes.any()
    changes.close()


def test_changes_are_told_also_where_no_descriptor_was_left_at_first(tmp_path: Path) -> None:
    with no_descriptor_left():
        changes = Changes()
        assert not changes.any()
    assert changes.any()  # what was mounted before nobody knows
    with mounted(tmp_path / "place"):
        assert changes.any()
    changes.close()
