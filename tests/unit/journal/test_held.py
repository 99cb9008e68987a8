"""What holds keep is told before a sender has come to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman.journal import Journal, NewDelivery, held
from watchman.journal.held import Held
from watchman.journal.hold_orders import hold, release
from watchman.journal.journal_reader import open_reader
from watchman.model import Batch, HoldKind, Move, Route, State, Version

TASK, OTHER, ELSEWHERE = Route("b", "task"), Route("b", "other"), Route("c", "task")
MOVE = Move("/up", "/dst")
Told = list[tuple[str, tuple[Held, ...], bool]]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(str(tmp_path))
    yield opened
    opened.close()


def arrive(journal: Journal, *paths: str, route: Route = TASK) -> None:
    first = journal.last_seq() + 1
    journal.record(
        [
            NewDelivery(f"id-{n}", path, None, Version(1, n, 3, 4), 1000 + n, route)
            for n, path in enumerate(paths, first)
        ]
    )


def told(top: Path) -> Told:
    with open_reader(str(top)) as reader:
        return [(one.hold.name, one.held, one.or_more) for one in reader.holds()]


def mark(journal: Journal) -> None:
    """Do what a sender does with what it comes to."""
    journal.holds.refresh()
    for broker in ("b", "c"):
        journal.holds.keep(journal.page_ready(broker, 0, 100))


def test_before_any_sender_came(journal: Journal, tmp_path: Path) -> None:
    arrive(journal, "/up/1", "/up/2")
    arrive(journal, "/up/3", route=OTHER)
    arrive(journal, "/up/4", route=ELSEWHERE)
    hold(str(tmp_path), [(HoldKind.TASK, "task")], "anna")
    expected = [("task", (Held("b", 2, 1001), Held("c", 1, 1004)), False)]
    assert told(tmp_path) == expected
    mark(journal)
    assert told(tmp_path) == expected
    arrive(journal, "/up/5")
    assert told(tmp_path) == [("task", (Held("b", 3, 1001), Held("c", 1, 1004)), False)]
    assert [(one.number, one.oldest_ns) for one in release(str(tmp_path), None)] == [(4, 1001)]


def test_a_directory_before_and_after_the_move(journal: Journal, tmp_path: Path) -> None:
    arrive(journal, "/up/anna/1", "/up/annabel", "/up/\udcff/2")
    new = NewDelivery("m", "/up/x", "/dst/anna/x", Version(1, 9, 3, 4), 7, TASK, move=MOVE)
    journal.record([new])
    journal.note([], journal.page_moving(MOVE, 0, 9))
    named = [(HoldKind.DIRECTORY, path) for path in ("/up/anna", "/dst/anna", "/up/\udcff")]
    hold(str(tmp_path), named, "anna")
    assert [one.number for _, (one,), _ in told(tmp_path)] == [1, 1, 1]


def test_what_two_holds_mean_is_kept_by_one(journal: Journal, tmp_path: Path) -> None:
    arrive(journal, "/up/1", "/up/2")
    arrive(journal, "/up/3", route=OTHER)
    hold(str(tmp_path), [(HoldKind.DIRECTORY, "/up"), (HoldKind.TASK, "task")], "anna")
    expected = [("/up", (Held("b", 1, 1003),), False), ("task", (Held("b", 2, 1001),), False)]
    assert told(tmp_path) == expected
    mark(journal)
    assert told(tmp_path) == expected


def test_held_again_before_a_sender_came(journal: Journal, tmp_path: Path) -> None:
    arrive(journal, "/up/1", "/up/2")
    hold(str(tmp_path), [(HoldKind.TASK, "task")], "anna")
    mark(journal)
    release(str(tmp_path), None)
    hold(str(tmp_path), [(HoldKind.DIRECTORY, "/up")], "anna")
    assert told(tmp_path) == [("/up", (Held("b", 2, 1001),), False)]


def test_more_than_is_looked_at(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LOOKED_AT", 3)
    arrive(journal, *(f"/up/{n}" for n in range(4)))
    arrive(journal, "/up/c", route=ELSEWHERE)
    named = [(HoldKind.TASK, "task"), (HoldKind.TASK, "other"), (HoldKind.DIRECTORY, "/far")]
    hold(str(tmp_path), named, "anna")
    assert told(tmp_path) == [
        ("task", (Held("b", 3, 1002), Held("c", 1, 1005)), True),
        ("other", (), False),  # nothing of it has ever come
        ("/far", (), True),
    ]
    with open_reader(str(tmp_path)) as reader:
        counted, *_ = reader.holds()
    assert (counted.number, counted.oldest_ns) == (4, 0)  # an older one may wait


def test_a_batch_that_no_sender_came_to(journal: Journal, tmp_path: Path) -> None:
    batched = Route("b", "batched", batch=Batch(2, 60.0))
    arrive(journal, "/up/1", "/up/2", "/up/3", route=batched)
    arrive(journal, "/up/4")
    named = [(HoldKind.TASK, "batched"), (HoldKind.TASK, "task"), (HoldKind.BROKER, "b")]
    hold(str(tmp_path), named, "anna")
    # The first two wait as one; the third until the batch is full or its time is over.
    assert told(tmp_path) == [
        ("batched", (Held("b", 1, 1001),), True),
        ("task", (Held("b", 1, 1004),), False),
        ("b", (Held("b", 4, 1001),), False),
    ]


def test_what_two_holds_keep_is_measured_once(journal: Journal, tmp_path: Path) -> None:
    arrive(journal, "/up/1", "/up/2")
    arrive(journal, "/up/3", route=OTHER)
    hold(str(tmp_path), [(HoldKind.TASK, "task"), (HoldKind.BROKER, "b")], "anna")
    mark(journal)
    with open_reader(str(tmp_path)) as reader:
        measures = reader.measures()
    assert measures.held == {"b": 3}
    assert measures.counts["b", State.READY] == 3
