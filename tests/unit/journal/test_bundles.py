"""Bundles: which rows a sender reads, who leads, and what is on disk before anything is sent."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.journals import counts, discard, failures, retry
from watchman.journal import Journal, NewDelivery, arguments, failed_deliveries, rescue, schema
from watchman.journal.answers import ask
from watchman.journal.bundles import Membership
from watchman.journal.failed_deliveries import Selection
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.journal.resending import resending
from watchman.model import Batch, BundleKind, Delivery, Move, Route, State, Version

BY_THREE = Route("b", "task", (1,), {"k": "v"}, {"queue": "q"}, Batch(3, 60.0))
BY_DIRECTORY = Route("b", "task", batch=Batch(2, 60.0, by_directory=True))
ALONE = Route("b", "alone")
MOVE = Move("/up", "/store/up")


def new(
    number: int,
    route: Route = BY_THREE,
    *,
    directory: str = "/up",
    moved: bool = False,
    of: str = "",
) -> NewDelivery:
    path = f"{directory}/{number}"
    final = f"/store{path}" if moved else None
    version = Version(1, number, 3, 4)
    move = MOVE if moved else None
    return NewDelivery(f"id {number}", path, final, version, number, route, move=move, set_id=of)


def read(journal: Journal) -> list[list[int]]:
    """Return the numbers of the files of each task that can be sent."""
    leaders = journal.page_ready("b", 0, 100)
    if not leaders:
        return []
    tasks: dict[str, list[int]] = {}
    for row in journal.bundled(leaders, 1000).rows:
        tasks.setdefault(row.task_id, []).append(int(os.path.basename(row.source)))
    return list(tasks.values())


def rows(journal: Journal) -> list[Delivery]:
    return journal.bundled(journal.page_ready("b", 0, 100), 1000).rows


def note(journal: Journal, seqs: Sequence[int], state: State, reason: str = "") -> None:
    journal.note([(seq, state, reason) for seq in seqs], ready_for="b")


def bundles(journal: Journal) -> int:
    with sqlite3.connect(journal.path) as connection:
        (number,) = connection.execute("SELECT count(*) FROM bundles").fetchone()
    connection.close()
    return int(number)


def test_a_full_batch_is_ready_at_once_and_an_open_one_when_it_is_due(journal: Journal) -> None:
    journal.record([new(number) for number in range(1, 6)])
    assert read(journal) == [[1, 2, 3]]
    assert journal.batch_due_in("b") == pytest.approx(60.0, abs=5)
    assert journal.complete_batches("b", 10) == 0
    journal.record([new(6), new(7)])
    assert read(journal) == [[1, 2, 3], [4, 5, 6]]
    assert journal.complete_batches("b", 10, early=True) == 1
    assert read(journal) == [[1, 2, 3], [4, 5, 6], [7]]
    assert journal.batch_due_in("b") is None


def test_what_waits_is_there_after_a_restart_and_goes_by_the_route_it_was_recorded_with(
    journal: Journal, tmp_path: Path
) -> None:
    journal.record([new(1), new(2)])
    journal.close()
    again = Journal(str(tmp_path))
    assert again.ready_brokers() == {"b"}
    assert again.batch_due_in("b") == pytest.approx(60.0, abs=5)
    again.record([new(3), new(4)])
    (first, *_) = rows(again)
    assert first.route == BY_THREE
    assert read(again) == [[1, 2, 3]]
    again.close()
    third = Journal(str(tmp_path))
    assert [row.task_id for row in rows(third)] == [first.task_id] * 3
    third.close()


def test_a_batch_of_another_pattern_directory_or_broker_is_another(journal: Journal) -> None:
    other = BY_THREE._replace(broker="c")
    journal.record(
        [
            *(new(1), new(2, BY_DIRECTORY, directory="/up/a"), new(3, other)),
            *(new(4, BY_DIRECTORY, directory="/up/b"), new(5, BY_DIRECTORY, directory="/up/a")),
        ]
    )
    assert read(journal) == [[2, 5]]
    journal.complete_batches("b", 10, early=True)
    assert read(journal) == [[1], [2, 5], [4]]
    assert journal.bundles.brokers() == {"c"}


def test_a_clock_that_was_wrong_keeps_no_batch(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time_ns", lambda: 1 << 62)
        journal.record([new(1)])
    assert journal.batch_due_in("b") == 0
    assert journal.complete_batches("b", 10) == 1
    assert read(journal) == [[1]]


def test_files_join_after_their_move(journal: Journal) -> None:
    journal.record([new(number, moved=True) for number in range(1, 5)])
    first, second, third, fourth = journal.page_moving(MOVE, 0, 10)
    journal.note([(third.seq, State.VANISHED, "gone")], [fourth, first])
    assert read(journal) == []
    journal.note([], [second])
    assert read(journal) == [[1, 2, 4]]


def test_files_of_a_batch_that_was_sent_are_found_by_its_task(journal: Journal) -> None:
    journal.record([new(1), new(2), new(3), new(4, ALONE)])
    sent = rows(journal)
    bundle = journal.bundled(sent[:1], 10).bundles[sent[0].bundle]
    assert bundle.kind is BundleKind.BATCH
    assert [row.task_id for row in sent] == [bundle.task_id] * 3 + ["id 4"]
    note(journal, [row.seq for row in sent], State.SENT)
    with sqlite3.connect(journal.path) as connection:
        ids = connection.execute("SELECT task_id FROM deliveries ORDER BY seq").fetchall()
    connection.close()
    assert [task_id for (task_id,) in ids] == [row.task_id for row in sent]
    assert bundles(journal) == 0


def test_the_next_leads_when_a_leader_goes(journal: Journal) -> None:
    journal.record([new(1), new(2), new(3)])
    task_id = rows(journal)[0].task_id
    note(journal, [1], State.VANISHED, "the file is gone")
    assert read(journal) == [[2, 3]]
    note(journal, [3], State.VANISHED, "the file is gone")
    assert [(row.seq, row.task_id) for row in rows(journal)] == [(2, task_id)]
    note(journal, [2], State.VANISHED, "the file is gone")
    assert read(journal) == []
    assert bundles(journal) == 0


def test_a_page_is_bounded_in_rows(journal: Journal) -> None:
    journal.record([new(number) for number in range(1, 10)])
    page = journal.bundled(journal.page_ready("b", 0, 10), 4)
    assert [row.seq for row in page.rows] == [1, 2, 3, 4, 5, 6]
    assert (page.last, page.cut) == (4, True)
    rest = journal.bundled(journal.page_ready("b", page.last, 10), 4)
    assert ([row.seq for row in rest.rows], rest.cut) == ([7, 8, 9], False)


def test_a_page_without_bundles_costs_no_query(journal: Journal) -> None:
    journal.record([new(number, ALONE) for number in range(1, 10)])
    page = journal.page_ready("b", 0, 10)
    asked: list[str] = []
    journal._database._writer.set_trace_callback(asked.append)
    journal._database.reader._connection.set_trace_callback(asked.append)
    assert journal.bundled(page, 5).rows == page
    assert not journal.join_batches(page)
    assert journal.batch_due_in("b") is None
    assert asked == []
    note(journal, [row.seq for row in page], State.SENT)
    assert asked
    assert not [query for query in asked if "bundle" in query]


def test_what_is_retried_joins_another_batch(journal: Journal, tmp_path: Path) -> None:
    journal.record([new(1), new(2), new(3)])
    before = rows(journal)[0].task_id
    note(journal, [1, 2, 3], State.FAILED, "refused")
    assert [one.task_id for one in failures(journal)] == ["id 1", "id 2", "id 3"]
    retry(tmp_path, Selection(frozenset({2, 3})))
    page = journal.page_ready("b", 0, 10)
    assert journal.join_batches(page)
    assert read(journal) == []
    journal.record([new(4)])
    assert read(journal) == [[2, 3, 4]]
    assert rows(journal)[0].task_id != before
    discard(tmp_path, Selection(frozenset({1})), "anna")
    assert bundles(journal) == 1


def test_a_set_is_sent_when_all_of_it_is_moved(journal: Journal) -> None:
    journal.record([new(number, ALONE, moved=True, of="set") for number in (1, 2, 3)])
    first, second, third = journal.page_moving(MOVE, 0, 10)
    journal.note([], [third, second])
    assert read(journal) == []
    journal.note([], [first])
    assert read(journal) == [[1, 2, 3]]
    assert {row.task_id for row in rows(journal)} == {"set"}


def test_a_set_whose_files_are_back_at_their_paths_is_another(journal: Journal) -> None:
    """All of it was moved and waits for its broker; of another set, a part is still moved."""
    ours = [new(number, ALONE, moved=True, of="set") for number in (1, 2)]
    partly = [new(number, ALONE, moved=True, of="partly") for number in (3, 4)]
    journal.record([*ours, *partly])
    first, second, third, _ = journal.page_moving(MOVE, 0, 10)
    journal.note([], [first, second, third])
    back = [one._replace(task_id=f"{one.task_id} again") for one in (*ours, partly[0])]
    assert journal.record(back) == []
    journal.note([], journal.page_moving(MOVE, 0, 10))
    assert read(journal) == [[1, 2], [3, 4, 3], [1, 2]]
    assert bundles(journal) == 3


def states(journal: Journal) -> dict[State, int]:
    return {state: count for (_, state), (count, _) in counts(journal).items() if count}


def test_what_was_moved_of_a_set_of_which_a_part_vanished_has_failed(
    journal: Journal, tmp_path: Path
) -> None:
    """It is where no scan finds it again; so an operator is told, and decides."""
    told: list[int] = []
    journal.when_failed(lambda failed: told.extend(one.seq for one in failed))
    journal.record([new(number, ALONE, moved=True, of="set") for number in (1, 2, 3)])
    first, second, third = journal.page_moving(MOVE, 0, 10)
    journal.note([(second.seq, State.VANISHED, "the file is gone")], [third])
    journal.note([], [first])
    assert read(journal) == []
    assert states(journal) == {State.VANISHED: 1, State.FAILED: 2}
    assert told == [3, 1]
    reasons = journal.reasons([1, 2, 3])
    assert reasons[1] == reasons[3] == "a part of its set, 2: the file is gone"
    retry(tmp_path, Selection(frozenset({3})), lambda one: one.seq == 3)
    assert read(journal) == []
    with open_reader(str(tmp_path)) as found:
        assert found.memberships([3])[3].part == ("/up/1", State.MOVING)
    note(journal, [1], State.FAILED, "no such destination")
    with open_reader(str(tmp_path)) as found:
        assert found.memberships([3])[3].part == ("/up/1", State.FAILED)
    retry(tmp_path, Selection(frozenset({1})), lambda _: True)
    assert read(journal) == [[1, 3]]
    assert rows(journal)[0].task_id == "set"
    journal.note([(1, State.VANISHED, "the file is gone")])
    assert states(journal) == {State.VANISHED: 2, State.FAILED: 1}
    assert journal.reasons([3]) == {3: "the main file of its set, 1: the file is gone"}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_what_is_left_without_a_main_file_cannot_be_retried(
    journal: Journal, tmp_path: Path, order: tuple[int, int]
) -> None:
    journal.record([new(number, ALONE, moved=True, of="set") for number in (1, 2, 3, 4)])
    third, fourth = journal.page_moving(MOVE, 2, 10)
    journal.note([], [third])
    for seq in order:
        note(journal, [seq], State.VANISHED, "gone")
    with failed_deliveries.retry(str(tmp_path), Selection(all=True), lambda _: True) as changes:
        assert not list(changes.changed)
        (unsendable,) = changes.unsendable
    assert unsendable.seq == 3
    assert unsendable.reason == "the main file of its set, 1: gone; upload the set again"
    assert states(journal) == {State.VANISHED: 2, State.FAILED: 1, State.MOVING: 1}
    # What is moved after that has been given up as well.
    discard(tmp_path, Selection(all=True), "anna")
    journal.note([], [fourth])
    assert journal.reasons([3, 4]) == dict.fromkeys((3, 4), "discarded by anna")
    assert states(journal) == {State.VANISHED: 2}  # the discarded are counted apart
    assert bundles(journal) == 0


def test_a_set_that_failed_is_retried_and_discarded_as_a_whole(
    journal: Journal, tmp_path: Path
) -> None:
    journal.record([new(number, ALONE, of="set") for number in (1, 2, 3)])
    assert read(journal) == [[1, 2, 3]]
    note(journal, [1, 2, 3], State.FAILED, "refused")
    assert len(retry(tmp_path, Selection(frozenset({2})))) == 3
    assert read(journal) == [[1, 2, 3]]
    assert rows(journal)[0].task_id == "set"
    note(journal, [1, 2, 3], State.FAILED, "refused")
    assert len(discard(tmp_path, Selection(frozenset({2})), "anna")) == 3
    assert bundles(journal) == 0


def test_a_hold_keeps_a_batch_as_a_whole(journal: Journal, tmp_path: Path) -> None:
    from watchman.journal.hold_orders import hold, release
    from watchman.model import HoldKind

    journal.record([new(1), new(2, directory="/up/a"), new(3), new(4, ALONE)])
    hold(str(tmp_path), [(HoldKind.DIRECTORY, "/up/a")], "anna")
    journal.holds.refresh()
    page = journal.bundled(journal.page_ready("b", 0, 10), 100)
    assert [row.seq for row in journal.without_held(page.rows)] == [4]
    assert [row.seq for row in journal.page_ready("b", 0, 10)] == [4]
    (released,) = release(str(tmp_path), None)
    assert released.number == 3
    journal.holds.refresh()
    assert read(journal) == [[1, 2, 3], [4]]


def test_a_damaged_journal_keeps_bundles(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.record([new(number) for number in (1, 2, 3, 4)])
    journal.record([new(number, ALONE, of="set") for number in (5, 6)])
    before = {row.seq: row.task_id for row in rows(journal)}
    journal.close()
    fresh = schema.connect(str(tmp_path / "fresh.db"))
    schema.create(fresh)
    assert rescue.take_over(str(tmp_path / "journal.db"), fresh, whole=True).complete
    fresh.close()
    os.replace(tmp_path / "fresh.db", tmp_path / "journal.db")
    again = Journal(str(tmp_path))
    assert read(again) == [[1, 2, 3], [4], [5, 6]]  # what was open is sent as it is
    assert {row.seq: row.task_id for row in rows(again) if row.seq != 4} == before
    again.close()


def test_what_has_lost_its_bundle_is_sent(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.record([new(number, ALONE, of="set") for number in (5, 6)])
    journal.close()
    path = str(tmp_path / "journal.db")
    broken = schema.connect(path)
    broken.execute("DELETE FROM bundles")
    broken.close()
    fresh = schema.connect(str(tmp_path / "fresh.db"))
    schema.create(fresh)
    rescue.take_over(path, fresh, whole=True)
    fresh.close()
    os.replace(tmp_path / "fresh.db", path)
    again = Journal(str(tmp_path))
    assert [row.task_id for row in again.page_ready("b", 0, 9)] == ["id 5", "id 6"]
    again.close()


def resend(tmp_path: Path, *paths: str, same_id: bool = False) -> list[str]:
    with resending(str(tmp_path)) as work:
        work.choose(Question(paths, state=State.SENT))
        work.carry_out(lambda one: one.version, lambda _: None, "anna", same_id=same_id)
        return [one.reason or one.task_id for one in work.results()]


def test_what_one_task_announced_is_sent_again_by_one(journal: Journal, tmp_path: Path) -> None:
    journal.record([new(1), new(2), new(3), new(4, ALONE, of="set"), new(5, ALONE, of="set")])
    journal.record([new(6, ALONE)])
    before = {row.seq: row.task_id for row in rows(journal)}
    note(journal, list(before), State.SENT)
    ids = resend(tmp_path)
    assert len(set(ids)) == 3
    assert not set(ids) & set(before.values())
    assert read(journal) == [[1, 2, 3], [4, 5], [6]]
    assert [row.task_id for row in rows(journal)] == ids
    note(journal, [row.seq for row in rows(journal)], State.SENT)
    # A part is sent with all that its task has announced.
    assert resend(tmp_path, "/up/5", "/up/1", same_id=True) == ids[:5]
    assert read(journal) == [[1, 2, 3], [4, 5]]
    assert {row.task_id for row in rows(journal)} == {ids[0], ids[3]}


def test_what_waits_and_what_was_sent_is_told(journal: Journal, tmp_path: Path) -> None:
    journal.record([new(1), new(2), new(3), new(4), new(5, ALONE)])
    task_id = rows(journal)[0].task_id
    with open_reader(str(tmp_path)) as found:
        told = found.memberships([1, 4, 5])
        assert told.keys() == {1, 4}
        assert told[1] == Membership(task_id, "batch", 3, None)
        assert told[4].number == 1
        assert told[4].due_ns is not None
        assert found.under_way_as(task_id, 2) == [1, 2]
        assert found.counts()["b", State.READY] == (5, 1)
    note(journal, [1, 2], State.SENT)
    note(journal, [3, 5], State.SENT)
    with open_reader(str(tmp_path)) as found:
        assert found.memberships([1])[1] == Membership(task_id, "", 3, None)
        # Only what waits for others is left, and the oldest of that is known.
        assert found.counts()["b", State.READY] == (1, 4)


def test_the_id_of_a_task_is_found_where_its_files_were_digested_before(
    journal: Journal, tmp_path: Path
) -> None:
    several = ALONE._replace(batch=Batch(2, 60.0))
    journal.record([new(1, several), *(new(number, ALONE) for number in range(2, 1100))])
    journal.record([new(1100, several)])
    while journal.digests.step(journal.last_seq()):
        pass
    first, *_, last = rows(journal)[:2]
    assert (first.seq, last.seq) == (1, 1100)
    note(journal, [1, 1100], State.SENT)
    with open_reader(str(tmp_path)) as found:
        records = ask(found, Question(task_id=first.task_id), 9).records
    assert [record.seq for record in records] == [1100, 1]


def test_a_route_is_written_down_as_before_where_it_has_no_batch() -> None:
    assert arguments.encode(ALONE) == "[[], {}, {}]"
    for route in (BY_THREE, BY_DIRECTORY, ALONE):
        assert arguments.decode(route.broker, route.task, arguments.encode(route)) == route
