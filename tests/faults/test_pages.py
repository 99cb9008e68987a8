"""A backlog goes to the broker page by page, with the journal's part done meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from watchman.errors import JournalError
from watchman.file_access import version_of
from watchman.journal import Journal, NewDelivery
from watchman.journal.noting import NOTHING
from watchman.model import Delivery, Route, State
from watchman.sender import pages
from watchman.sender.pages import Pages, PrecheckedPage
from watchman.sender.precheck import precheck

ROUTE = Route("b", "task")
SECONDS = 10.0


class Watched(Journal):
    """A journal that tells which thread has done what."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory))
        self.read_by: list[str] = []
        self.noted_by: list[str] = []
        self.broken = False

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        self.read_by.append(threading.current_thread().name)
        return super().page_ready(broker, after, limit)

    def note(
        self,
        changes: Sequence[tuple[int, State, str]],
        moved: Sequence[Delivery] = (),
        *,
        ready_for: str | None = None,
        sent: Mapping[int, int] = NOTHING,
    ) -> None:
        if self.broken:
            raise JournalError("told to stop while the disk is full")
        self.noted_by.append(threading.current_thread().name)
        super().note(changes, moved, ready_for=ready_for, sent=sent)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(pages, "PAGE", 3)
    monkeypatch.setattr(pages, "FRESH", 3600.0)
    journal = Watched(tmp_path)
    for number in range(7):
        path = tmp_path / f"{number}"
        path.write_text("x")
        version = version_of(os.stat(path))
        journal.record([NewDelivery(f"id {number}", str(path), None, version, 1, ROUTE)])
    yield journal
    journal.close()


@pytest.fixture
def backlog(journal: Watched, tmp_path: Path) -> Iterator[Pages]:
    backlog = Pages("b", journal, lambda _: str(tmp_path))
    yield backlog
    backlog.stop()


def sent(page: PrecheckedPage) -> list[tuple[int, State, str]]:
    return [(delivery.seq, State.SENT, "") for delivery in page.found.good]


def test_full_pages_are_read_and_noted_ahead_and_in_order(journal: Watched, backlog: Pages) -> None:
    seqs = []
    for page in backlog.read():
        seqs += [delivery.seq for delivery in page.found.good]
        backlog.note(sent(page), at_once=not page.full)
    assert seqs == [1, 2, 3, 4, 5, 6, 7]
    assert journal.page_ready("b", 0, 9) == []
    mine, helper = threading.current_thread().name, "sender-b-journal"
    assert journal.read_by[:4] == [mine, helper, helper, mine]
    assert journal.noted_by == [helper, helper, mine]


def test_who_leaves_early_finds_what_was_sent_noted(journal: Watched, backlog: Pages) -> None:
    reading = backlog.read()
    page = next(reading)
    backlog.note(sent(page), at_once=False)
    reading.close()
    assert [delivery.seq for delivery in journal.page_ready("b", 0, 9)] == [4, 5, 6, 7]


def test_a_note_that_fails_is_heard_of(journal: Watched, backlog: Pages) -> None:
    reading = backlog.read()
    page = next(reading)
    journal.broken = True
    backlog.note(sent(page), at_once=False)
    with pytest.raises(JournalError):
        reading.close()


def test_nobody_waits_for_a_page_ahead_that_hangs(
    journal: Watched, backlog: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look may hang on a share that is away: the page in hand is sent meanwhile."""
    going_on, asked = threading.Event(), threading.Event()

    def hanging(rows: list[Delivery], *others: object) -> object:
        if rows[0].seq > 1:
            asked.set()
            assert going_on.wait(SECONDS)
        return precheck(rows, *others)  # type: ignore[arg-type]  # — passed on as they are

    monkeypatch.setattr(pages, "precheck", hanging)
    reading = backlog.read()
    page = next(reading)
    assert asked.wait(SECONDS)
    assert len(page.found.good) == 3
    backlog.note(sent(page), at_once=True)
    assert [delivery.seq for delivery in journal.page_ready("b", 0, 1)] == [4]
    going_on.set()
    reading.close()


def test_a_page_ahead_that_waited_long_is_checked_again(
    journal: Watched, backlog: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a slow broker a file may be gone, or be written again, before its page's turn."""
    monkeypatch.setattr(pages, "FRESH", 0.0)
    reading = backlog.read()
    page = next(reading)
    backlog.note(sent(page), at_once=True)
    (tmp_path / "4").unlink()
    page = next(reading)
    assert [delivery.seq for delivery in page.found.good] == [4, 6]
    assert [delivery.seq for delivery, _ in page.found.vanished] == [5]
    reading.close()
