"""The page on a STATE_DIR that it cannot write to, as a container's volume may be."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mounted import read_only
from tests.running import config_for
from watchman.errors import JournalError
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, Version
from watchman.web.observed import Observer
from watchman.web.queries import WebQuery


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that is in use, with a delivery."""
    (tmp_path / "state").mkdir()
    made = Journal(str(tmp_path / "state"))
    version = Version(1, 2, 3, 4)
    made.record([NewDelivery("id", "/up/a.csv", None, version, 5, Route("lizard", "process"))])
    yield made
    made.close()


@contextlib.contextmanager
def observer(state: Path) -> Iterator[Observer]:
    """Have the page's eyes on a directory where nothing can be written."""
    with read_only(state) as place:
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "new").touch()
        yield Observer(replace(config_for(place, place), state_dir=str(place)))


def found(state: Path) -> list[str]:
    """Return what the page finds in a directory."""
    with observer(state) as page:
        assert page.overview().journal_trouble == ""
        return [one.source for one in page.find(WebQuery()).records]


def test_while_the_daemon_runs(journal: Journal) -> None:
    assert Path(f"{journal.path}-wal").exists()
    assert found(Path(journal.path).parent) == ["/up/a.csv"]


def test_when_it_has_ended(journal: Journal) -> None:
    journal.close()
    assert not Path(f"{journal.path}-wal").exists()
    assert found(Path(journal.path).parent) == ["/up/a.csv"]


def test_when_it_was_killed(journal: Journal, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(Path(journal.path).parent, killed)
    assert (killed / "journal.db-shm").exists()
    assert found(killed) == ["/up/a.csv"]


def test_what_must_be_written_first_is_told(journal: Journal, tmp_path: Path) -> None:
    """SQLite's index of the log is missing, as in a copy that left it out."""
    killed = tmp_path / "killed"
    shutil.copytree(Path(journal.path).parent, killed)
    (killed / "journal.db-shm").unlink()
    with observer(killed) as page, pytest.raises(JournalError, match=r"db-shm .*; start watchman"):
        page.find(WebQuery())
