"""Which arrivals have the id that path and version alone give."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from watchman import mounts
from watchman.file_access import version_of
from watchman.identity import Evidence
from watchman.mounts import Stability
from watchman.pipeline.task_id import TaskIds, task_id

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("evidence", "age", "plain"),
    [
        (Evidence.CAME, 1, True),
        (Evidence.CAME, 3, False),
        (Evidence.CAME, -3600, False),  # the clock was set back since
        (Evidence.SCAN, 3600, True),
        (Evidence.SCAN, -3600, True),
        (Evidence.WRITTEN, 3600, True),
    ],
)
def test_what_came_with_its_directory_and_may_have_been_here_has_an_id_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: Evidence, age: int, plain: bool
) -> None:
    monkeypatch.setattr(mounts, "stability", lambda _: Stability(True, True))
    now = time.time_ns()
    path = tmp_path / "a"
    path.touch()
    version = version_of(path.stat())._replace(changed_ns=now - age * SECOND)
    chosen, _ = TaskIds().choose(str(path), version, evidence, now)
    assert (chosen == task_id(str(path), version)) is plain
