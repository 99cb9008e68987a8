"""Directories that left are forgotten in their time, each in its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest

from watchman.journal import Journal
from watchman.model import Version
from watchman.pipeline.left_directories import LEFT, LeftDirectories
from watchman.sources.source import Source

VERSION = Version(1, 2, 3, 4, 5)


class Away:
    """A source in which no directory is there any more."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def vanished(self) -> list[str]:
        paths, self.paths = self.paths, []
        return paths

    def find(self, _path: str) -> None:
        return None


def test_one_that_leaves_time_and_again_keeps_no_other_from_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, away, journal = [0.0], Away(), Journal(str(tmp_path))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    left = LeftDirectories(journal, cast(Source, away))
    journal.record((), [("/up/in/a", VERSION), ("/up/1/a", VERSION), ("/up/2/a", VERSION)])
    for paths in (["/up/in", "/up/1"], ["/up/in"], ["/up/2", "/up/in"], ["/up/in"]):
        away.paths = paths
        assert left.step()
        now[0] += LEFT * 0.6
    assert not left.step()
    versions = journal.known.versions(["/up/in/a", "/up/1/a", "/up/2/a"])
    assert list(versions) == ["/up/in/a"]
    now[0] += LEFT
    left.step()
    assert not journal.known.versions(["/up/in/a"])
    journal.close()
