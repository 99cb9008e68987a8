"""A root whose path leads elsewhere for a moment: nothing that was uploaded then is missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.running import config_for, running
from tests.waiting import wait_until


def test_what_came_while_a_directory_above_was_renamed(tmp_path: Path) -> None:
    """Renamed there and back between two checks: no event tells, and the root is the same."""
    root, other = tmp_path / "above" / "up", tmp_path / "other"
    root.mkdir(parents=True)
    other.mkdir()
    config = config_for(root, tmp_path / "state")
    watch = config.watches[0]
    route = config.patterns[0][1]
    config = replace(
        config, watches=(watch, replace(watch, path=str(other))), patterns=(("*", route),)
    )
    with running(config) as (_, sent):
        (tmp_path / "above").rename(tmp_path / "away")
        (tmp_path / "away" / "up" / "a.csv").write_text("x")
        (other / "mark").write_text("x")
        # Events come in order: by now the file was looked for, and not found.
        wait_until(lambda: str(other / "mark") in sent.paths)
        (tmp_path / "away").rename(tmp_path / "above")
        wait_until(lambda: str(root / "a.csv") in sent.paths, what="what came meanwhile is sent")
        assert sent.paths.count(str(root / "a.csv")) == 1
