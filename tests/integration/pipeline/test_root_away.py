"""A root whose path leads elsewhere for a moment: nothing that was uploaded then is missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.model import WatchKind


@pytest.mark.parametrize("kind", WatchKind)
def test_what_came_while_a_directory_above_was_renamed(
    tmp_path: Path, kind: WatchKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed there and back between two checks: no event tells, and the root is the same."""
    monkeypatch.setattr("watchman.pipeline.schedule.CHECK", 3600.0)

    def upload(path: Path) -> None:
        if kind is WatchKind.FILES:
            path.write_text("x")
        else:
            path.mkdir()

    root, other = tmp_path / "above" / "up", tmp_path / "other"
    root.mkdir(parents=True)
    other.mkdir()
    config = config_for(root, tmp_path / "state", watch={"kind": kind})
    watch = config.watches[0]
    route = config.patterns[0][1]
    config = replace(
        config, watches=(watch, replace(watch, path=str(other))), patterns=(("*", route),)
    )
    with running(config) as (pipeline, sent):
        (tmp_path / "above").rename(tmp_path / "away")
        upload(tmp_path / "away" / "up" / "a.csv")
        upload(other / "mark")
        # Events come in order: by now it was looked for, and not found.
        wait_until(lambda: str(other / "mark") in sent.paths)
        (tmp_path / "away").rename(tmp_path / "above")
        for watcher in pipeline.parts._watchers:
            watcher.check_soon()
        wait_until(lambda: str(root / "a.csv") in sent.paths, what="what came meanwhile is sent")
        assert sent.paths.count(str(root / "a.csv")) == 1
