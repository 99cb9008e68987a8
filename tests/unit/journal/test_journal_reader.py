"""Reading the journal while nobody has it open, and somebody begins to write it meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.journal.test_archive import deliver
from watchman.errors import JournalError
from watchman.journal import Journal, answers, journal_backup, repair
from watchman.journal.journal_backup import back_up
from watchman.journal.journal_reader import JournalReader, open_reader
from watchman.journal.question import Question
from watchman.journal.soundness import Unsound

ASK_AGAIN = "was written while it was read"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A STATE_DIR in which nobody has the journal open."""
    made = tmp_path / "state"
    made.mkdir()
    journal = Journal(str(made))
    for first in range(0, 10_000, 1000):
        deliver(journal, first, 1000)
    journal.close()
    return made


def run_daemon(state: Path, *, prune: bool) -> None:
    """Do what a daemon does that begins and ends: the file itself is written."""
    journal = Journal(str(state))
    if prune:
        while journal.prune(time.time_ns()).more:
            pass
    for first in range(10_000, 15_000, 1000):
        deliver(journal, first, 1000)
    journal.close()


def merge(state: Path) -> None:
    """Have the log of the journal in the file, as a daemon does now and then."""
    with contextlib.closing(sqlite3.connect(state / "journal.db")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def is_sound(state: Path) -> bool:
    """Whether a daemon goes on with the journal, and does not begin another."""
    before = (state / "journal.db").stat().st_ino
    assert not (state / "journal.db.suspect").exists()
    Journal(str(state)).close()
    return (state / "journal.db").stat().st_ino == before


@pytest.mark.parametrize("prune", [True, False])
def test_what_is_written_meanwhile_is_no_damage(state: Path, *, prune: bool) -> None:
    with (  # noqa: PT012 — as a command does it
        pytest.raises(JournalError, match=ASK_AGAIN) as caught,
        open_reader(str(state)) as journal,
    ):
        found = answers.each(journal, Question(), {})
        assert len([next(found) for _ in range(1000)]) == 1000
        run_daemon(state, prune=prune)
        assert len(list(found)) == 9000
    # It met what no sound file has, or could have done so.
    assert isinstance(caught.value.__cause__, sqlite3.Error) == prune
    assert is_sound(state)


def test_a_daemon_that_writes_only_its_log_disturbs_nobody(state: Path) -> None:
    with open_reader(str(state)) as journal:
        found = answers.each(journal, Question(), {})
        next(found)
        daemon = Journal(str(state))
        deliver(daemon, 10_000, 10)
        assert len(list(found)) == 9999
    merge(state)
    deliver(daemon, 10_010, 10)
    # Now there is a log, and what is merged meanwhile is none of a reader's business.
    with open_reader(str(state)) as journal:
        assert journal.connection.execute("SELECT count(*) FROM deliveries").fetchone() == (10_020,)
        merge(state)
    daemon.close()


def test_damage_that_was_there_before_is_damage(state: Path) -> None:
    os.truncate(state / "journal.db", 65_536)
    with (
        pytest.raises(JournalError, match="is damaged"),
        open_reader(str(state)) as journal,
    ):
        list(answers.each(journal, Question(), {}))
    assert (state / "journal.db.suspect").exists()


def test_damage_in_a_file_that_was_replaced_is_not_that_of_the_new_one(state: Path) -> None:
    daemon = Journal(str(state))
    with (  # noqa: PT012 — as a command does it
        pytest.raises(JournalError, match=ASK_AGAIN),
        open_reader(str(state)) as journal,
    ):
        daemon.close()
        repair.replace(str(state / "journal.db"), Unsound("met by the daemon"))
        [old] = state.glob("journal.db.damaged-*[0-9]")
        os.truncate(old, 65_536)
        list(answers.each(journal, Question(), {}))
    assert is_sound(state)


def test_a_backup_is_not_of_two_moments(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def opened_just_before(state_dir: str) -> Iterator[JournalReader]:
        with open_reader(state_dir) as journal:
            run_daemon(state, prune=True)
            yield journal

    monkeypatch.setattr(journal_backup, "open_reader", opened_just_before)
    target = tmp_path / "backup.tar"
    target.write_text("the last one")
    with pytest.raises(JournalError, match=ASK_AGAIN):
        back_up(str(state), str(target))
    assert target.read_text() == "the last one"
    assert is_sound(state)
    monkeypatch.undo()
    assert back_up(str(state), str(target)).size > 0
