"""What is mounted no more on the way to a watch, also where that is a watch no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchman import mounts
from watchman.model import Watch
from watchman.pipeline.lost_mounts import LostMounts
from watchman.troubles import Troubles


def test_a_watch_that_is_given_up_is_forgotten_with_its_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It matched a pattern, and whoever makes and removes such directories may be an uploader."""
    here, gone = str(tmp_path / "here"), str(tmp_path / "gone")
    table = dict(mounts.mounts())
    seen: dict[str, set[str]] = {}
    troubles = Troubles()
    lost = LostMounts(seen, troubles)
    monkeypatch.setattr(lost._changes, "any", lambda: True)
    mount = next(iter(table.values()))
    monkeypatch.setattr(mounts, "mounts", lambda: {**table, gone: mount})
    lost.check([Watch(here), Watch(gone)])
    assert troubles.all() == []
    monkeypatch.setattr(mounts, "mounts", lambda: table)
    lost.check([Watch(here), Watch(gone)])
    assert [one.subject for one in troubles.all()] == [gone]
    lost.check([Watch(here)])
    assert troubles.all() == []
    assert seen.keys() == {here}
    lost.close()
