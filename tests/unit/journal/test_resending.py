"""A second delivery for what was sent: beside a journal that goes on, and what it costs."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journals import counts
from watchman.journal import Journal, NewDelivery, acts, pruning, rescue, schema
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.journal.record import Record
from watchman.journal.resending import PAGE, Resent, resending
from watchman.model import Noted, Route, State, Version

ROUTE = Route("b", "task", ("x",), {"k": 1}, {"queue": "q"})
EVERY = Question(state=State.SENT)
WHO = "anna (uid 1000)"


def new(number: int, final: str | None = None) -> NewDelivery:
    return NewDelivery(
        f"id-{number}", f"/up/{number}", final, Version(1, number, 2, 3, 4), number, ROUTE
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(str(tmp_path))
    yield found
    found.close()


def fill(journal: Journal, count: int) -> None:
    journal.record([new(number) for number in range(1, count + 1)])
    journal.note([(number, State.SENT, "") for number in range(1, count + 1)])


def same(record: Record) -> Version:
    return record.version


def resend(tmp_path: Path, question: Question = EVERY, *, same_id: bool = False) -> list[Resent]:
    with resending(str(tmp_path)) as work:
        work.choose(question)
        work.carry_out(same, lambda _: None, WHO, same_id=same_id)
        return list(work.results())


def test_it_is_ready_with_the_arguments_of_the_first(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 2)
    (made,) = resend(tmp_path, Question(("/up/1",)))
    assert (made.record.seq, made.seq, made.reason) == (1, 3, "")
    (ready,) = journal.page_ready("b", 0, 9)
    assert (ready.seq, ready.task_id, ready.source) == (3, made.task_id, "/up/1")
    assert ready.route == ROUTE
    assert ready.version == Version(1, 1, 2, 3, 4)
    assert {state: number for (_, state), (number, _) in counts(journal).items()} == {
        State.SENT: 2,
        State.READY: 1,
    }
    # What is noted of the path from now on is noted of the second one.
    assert journal.known.lookup("/up", ["1", "2"])["1"].seq == 3
    journal.note([(3, State.SENT, "")])
    with open_reader(str(tmp_path)) as reader:
        (act,) = acts.about(reader.connection, [1])
        assert acts.about(reader.connection, [3]) == [act]
        assert acts.about(reader.connection, [2]) == []
    assert (act.seq, act.act, act.actor, act.other) == (1, acts.RESENT, WHO, 3)


def test_the_numbers_of_a_journal_in_use_go_on_behind_it(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3)
    assert [one.seq for one in resend(tmp_path)] == [4, 5, 6]
    journal.record([new(7), new(8)])
    assert [row.seq for row in journal.page_ready("b", 0, 9)] == [4, 5, 6, 7, 8]
    assert {row.source for row in journal.page_ready("b", 6, 9)} == {"/up/7", "/up/8"}


def test_both_write_at_a_time_and_neither_loses_a_row(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3 * PAGE)
    recorded = threading.Event()

    def record() -> None:
        for number in range(10_000, 10_300):
            journal.record([new(number)])
        recorded.set()

    thread = threading.Thread(target=record)
    thread.start()
    made = resend(tmp_path)
    thread.join(60)
    assert recorded.is_set()
    assert all(one.seq for one in made)
    rows = journal.page_ready("b", 0, 10_000)
    assert len(rows) == 3 * PAGE + 300
    assert {row.source for row in rows} == {
        f"/up/{number}" for number in (*range(1, 3 * PAGE + 1), *range(10_000, 10_300))
    }


def test_an_id_is_under_way_once(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 1)
    (made,) = resend(tmp_path, same_id=True)
    assert made.task_id == "id-1"
    (again,) = resend(tmp_path, same_id=True)
    assert (again.seq, again.reason) == (0, "its second task, 2, has not been sent yet")
    journal.note([(2, State.SENT, "")])
    (third,) = resend(tmp_path, same_id=True)
    assert (third.record.seq, third.seq) == (2, 3)


def test_another_upload_at_the_path_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 2)
    journal.record([], [("/up/1", Version(1, 99, 2, 3, 4), Noted.UNASKED)], ["/up/2"])
    made = resend(tmp_path)
    assert {one.reason for one in made} == {
        "what is at its path now is another upload, or not known"
    }
    assert journal.page_ready("b", 0, 9) == []
    assert {state for _, state in counts(journal)} == {State.SENT}


def test_a_transaction_is_of_one_size_however_many_there_are(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2 * PAGE + 10
    fill(journal, count)
    statements: list[str] = []
    connect = schema.connect

    def traced(path: str, *, read_only: bool = False) -> sqlite3.Connection:
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(schema, "connect", traced)
    assert len(resend(tmp_path)) == count
    inserted = [0]
    for text in statements:
        if text == "COMMIT":
            inserted.append(0)
        inserted[-1] += text.startswith("INSERT INTO deliveries")
    assert inserted == [PAGE, PAGE, 10, 0]
    assert len({one.seq for one in resend(tmp_path)}) == 1  # each waits already


def test_acts_go_with_the_history_and_are_saved_from_damage(
    journal: Journal, tmp_path: Path
) -> None:
    fill(journal, 1)
    resend(tmp_path)
    now = time.time_ns()
    assert journal.prune(1).dropped == 0
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(fresh)
    assert rescue.take_over(journal.path, fresh, whole=True).complete
    assert fresh.execute("SELECT seq, act, actor, other FROM acts").fetchall() == [
        (1, "resent", WHO, 2)
    ]
    fresh.close()
    journal.prune(now + 10**18)
    with open_reader(str(tmp_path)) as reader:
        assert acts.about(reader.connection, [1, 2]) == []
        plan = reader.connection.execute(f"EXPLAIN QUERY PLAN {pruning.ACTS}").fetchall()
    assert not any("TEMP B-TREE" in str(row) for row in plan)
