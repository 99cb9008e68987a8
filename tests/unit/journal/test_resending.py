"""A second delivery for what was sent: beside a journal that goes on, and what it costs."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.journals import counts
from watchman.journal import (
    Archive,
    Journal,
    NewDelivery,
    acts,
    archive,
    pruning,
    rescue,
    schema,
    sealing,
)
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.journal.record import Record
from watchman.journal.resending import PAGE, Resent, resending
from watchman.model import (
    INCOMPLETE,
    Batch,
    BundleKind,
    Move,
    Noted,
    Route,
    State,
    Upload,
    Version,
)

ROUTE = Route("b", "task", ("x",), {"k": 1}, {"queue": "q"})
EVERY = Question(state=State.SENT)
WHO = "anna (uid 1000)"


def new(number: int, final: str | None = None) -> NewDelivery:
    return NewDelivery(
        f"id-{number}", f"/up/{number}", final, Version(1, number, 2, 3, 4), number, ROUTE
    )


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


def test_what_was_told_of_a_file_is_told_once_more(journal: Journal, tmp_path: Path) -> None:
    """Who uploaded it also where the first delivery is in the archive by now."""
    told = [f"{INCOMPLETE}it ends in the middle", "sha256:12ab", "", ""]
    journal.record([new(number)._replace(told=one) for number, one in enumerate(told, 1)])
    upload = Upload("anna", "ftp.example.org", "ftp", 2, 0.5, 7)
    journal.uploads.note(1, upload)
    journal.uploads.note(3, upload)
    journal.uploads.note(6, upload._replace(user="nobody's"))  # what it is of was never recorded
    journal.uploads.write({})
    journal.note([(number, State.SENT, "") for number in range(1, 5)])
    assert [one.seq for one in resend(tmp_path)] == [5, 6, 7, 8]
    rows = journal.page_ready("b", 0, 9)
    assert [row.told for row in rows] == told
    assert journal.uploads.of([5, 6, 7, 8]) == {5: upload, 7: upload}
    # Nor does the next reader of transfer logs take them for those of what was never recorded.
    journal.uploads.drop_after(journal.last_seq())
    assert journal.uploads.of([5, 6, 7, 8]) == {5: upload, 7: upload}

    journal.note([(row.seq, State.SENT, "") for row in rows])
    archive_but(journal, tmp_path, keep=0, rows=8)
    with resending(str(tmp_path)) as work:
        work.choose(EVERY)
        work.carry_out(lambda one: new(int(one.source[4:])).version, lambda _: None, WHO)
    assert [row.told for row in journal.page_ready("b", 0, 9)] == ["", "", "", ""]
    assert journal.uploads.of([9, 10, 11, 12]) == {9: upload, 11: upload}


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
        plan = reader.connection.execute(f"EXPLAIN QUERY PLAN {pruning.ACTS}", (0,)).fetchall()
    assert not any("TEMP B-TREE" in str(row) for row in plan)


def archive_but(journal: Journal, top: Path, keep: int, rows: int) -> None:
    """Have the oldest deliveries leave the journal."""
    assert sealing.seal(str(top), sealing.mark(archive.files(str(top))), keep, rows) != "few"
    work, now = Archive(journal), 0.0
    while work.active:
        now += 1
        work.step(now, idle=lambda: True)
    work.close()


def send_together(journal: Journal) -> None:
    """Send a set of 1 to 3, a batch of 4 to 6, and 7 alone; all of them were moved."""
    in_threes = ROUTE._replace(task="many", batch=Batch(3, 60.0))
    move = Move("/up", "/to")
    moved = [new(number, f"/to/{number}")._replace(move=move) for number in range(1, 8)]
    journal.record([one._replace(set_id="set") for one in moved[:3]])
    journal.record([one._replace(route=in_threes) for one in moved[3:6]])
    journal.record(moved[6:])
    journal.note([], journal.page_moving(move, 0, 9))
    rows = journal.bundled(journal.page_ready("b", 0, 9), 9).rows
    journal.note([(row.seq, State.SENT, "") for row in rows])


def files_of_tasks(journal: Journal) -> list[list[int]]:
    tasks: dict[str, list[int]] = {}
    for row in journal.bundled(journal.page_ready("b", 0, 9), 99).rows:
        tasks.setdefault(row.task_id, []).append(int(row.final[4:]))
    return list(tasks.values())


@pytest.mark.parametrize(
    ("path", "together"), [("/up/2", [1, 2, 3]), ("/up/4", [4, 5, 6]), ("/to/6", [4, 5, 6])]
)
def test_what_was_archived_is_sent_with_all_that_its_task_has_announced(
    journal: Journal, tmp_path: Path, path: str, together: list[int]
) -> None:
    """Of the batch one is still in the journal."""
    send_together(journal)
    archive_but(journal, tmp_path, keep=2, rows=5)
    with resending(str(tmp_path)) as work:
        assert work.choose(Question((path,), state=State.SENT)) == 3
        assert work.others == 2
        work.carry_out(same, lambda _: None, WHO)
        made = list(work.results())
    assert [one.record.seq for one in made] == together
    assert len({one.task_id for one in made}) == 1
    assert files_of_tasks(journal) == [together]


def test_a_set_is_not_sent_again_without_its_main_file(journal: Journal, tmp_path: Path) -> None:
    send_together(journal)
    archive_but(journal, tmp_path, keep=2, rows=5)

    def first_is_gone(record: Record) -> Version | str:
        return "gone" if record.seq in {1, 4} else record.version

    with resending(str(tmp_path)) as work:
        work.choose(EVERY)
        assert work.others == 0
        work.carry_out(first_is_gone, lambda _: None, WHO)
        reasons = [one.reason for one in work.results()]
    lost = "the main file of its set is left out"
    assert reasons == ["gone", lost, lost, "gone", "", "", ""]
    assert files_of_tasks(journal) == [[5, 6], [7]]


def test_a_set_whose_main_file_was_uploaded_and_sent_again_is_not_taken_for_one(
    journal: Journal, tmp_path: Path
) -> None:
    send_together(journal)
    journal.record([new(8, "/to/1")._replace(task_id="another")])
    with sqlite3.connect(journal.path) as connection:
        connection.execute("UPDATE deliveries SET state = 3 WHERE seq = 8")
    connection.close()
    made = {one.record.seq: one.reason for one in resend(tmp_path)}
    lost = "the main file of its set is left out"
    assert made == {2: lost, 3: lost, 4: "", 5: "", 6: "", 7: "", 8: ""}


def test_what_was_sent_again_under_its_id_is_sent_once_more(
    journal: Journal, tmp_path: Path
) -> None:
    send_together(journal)
    for number in (1, 2):
        made = resend(tmp_path, same_id=True)
        assert [one.record.final[4:] for one in made if not one.reason] == list("1234567")
        seqs = [row.seq for row in journal.bundled(journal.page_ready("b", 0, 9), 9).rows]
        assert len(seqs) == 7
        journal.note([(seq, State.SENT, "") for seq in seqs])
        if number == 1:
            archive_but(journal, tmp_path, keep=2, rows=12)


def test_a_file_that_has_a_set_now_is_sent_as_one(journal: Journal, tmp_path: Path) -> None:
    """The archive does not tell whether it was one, of which all others were missing."""
    send_together(journal)
    archive_but(journal, tmp_path, keep=0, rows=7)
    with resending(str(tmp_path)) as work:
        work.choose(Question(seqs=frozenset({7}), state=State.SENT))
        work.carry_out(same, lambda _: None, WHO, is_main_file=lambda _: True)
    (leader,) = journal.page_ready("b", 0, 9)
    assert journal.bundled([leader], 9).bundles[leader.bundle].kind is BundleKind.SET


def test_a_part_of_the_archive_that_cannot_be_read_is_told(
    journal: Journal, tmp_path: Path
) -> None:
    send_together(journal)
    archive_but(journal, tmp_path, keep=2, rows=5)
    (file,) = archive.files(str(tmp_path))
    Path(file.path).write_bytes(b"no journal")
    with resending(str(tmp_path)) as work:
        assert work.choose(Question(seqs=frozenset({6}), state=State.SENT)) == 1
        assert [os.path.basename(file.path) in line for line in work.unreadable] == [True]
