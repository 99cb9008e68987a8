"""A copy is in its place, the mover was killed, and the source's directory is away meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.model import State


def placed(rig: Rig) -> tuple[int, Path]:
    """Leave what a kill leaves between placing a copy and removing its source."""
    source = rig.upload("d/a.csv")
    seq = rig.record("d/a.csv")
    final = rig.root / "d/a.csv"
    final.parent.mkdir()
    shutil.copy2(source, final)
    os.link(final, final.with_name(f".watchman-{rig.row(seq).task_id}.tmp"))
    return seq, source


def test_what_may_come_back_is_no_longer_known(far: Rig) -> None:
    seq, source = placed(far)
    away = far.inbox / "e"
    source.parent.rename(away)
    with far.running():
        far.wait(seq, State.READY)
        wait_until(
            lambda: far.heard.paths == [str(source)], what="somebody looks at the source again"
        )
    assert far.store.unlearned == [seq]
    assert far.files() == {"d/a.csv": b"content"}
    assert away.joinpath("a.csv").read_bytes() == b"content"


def test_killed_before_the_note_and_back_again_makes_no_second_copy(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traces that say whose copy it is stay until nobody can ask any more."""
    seq, source = placed(far)
    away = far.inbox / "e"
    source.parent.rename(away)

    def killed(_changes: Sequence[tuple[int, State, str]]) -> None:
        raise RuntimeError("as if it had been killed")

    with monkeypatch.context() as patch:
        patch.setattr(far.store, "note", killed)
        far.mover.start()
        wait_until(lambda: far.mover.error is not None, what="the mover ends")
        far.mover.stop(10.0)
    away.rename(source.parent)
    far.new_mover()
    with far.running():
        far.wait(seq, State.READY)
    assert far.files() == {"d/a.csv": b"content"}
    assert far.left() == {}


def test_what_was_removed_with_its_directory_is_known_no_less(far: Rig) -> None:
    """A directory that is only empty tells that the source is gone."""
    seq, source = placed(far)
    source.unlink()
    with far.running():
        far.wait(seq, State.READY)
    assert far.store.unlearned == []
    assert far.files() == {"d/a.csv": b"content"}


def test_what_was_removed_before_its_directory_was_renamed_away_makes_no_second_copy(
    far: Rig,
) -> None:
    """Whether it was removed cannot be told while the directory is away: it is not known any more.

    Nothing follows from that when the directory is back without it.
    """
    seq, source = placed(far)
    away = far.inbox / "e"
    source.unlink()
    source.parent.rename(away)
    with far.running():
        far.wait(seq, State.READY)
        wait_until(
            lambda: far.heard.paths == [str(source)], what="somebody looks at the source again"
        )
    assert far.store.unlearned == [seq]
    away.rename(source.parent)
    far.new_mover()
    other = far.put("d/b.csv")
    with far.running():
        far.wait(other, State.READY)
    assert far.files() == {"d/a.csv": b"content", "d/b.csv": b"content"}
    assert far.left() == {}
