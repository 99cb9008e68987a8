"""What ended goes into the archive, whatever is killed when, and is asked for as before."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkout import ROOT
from tests.unit.journal.test_segment import expected, questions, some_rows
from tests.waiting import wait_until
from watchman.journal import (
    Archive,
    Journal,
    NewDelivery,
    answers,
    archive,
    archiving,
    rescue,
    sealing,
)
from watchman.journal.answers import Matches, ask
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.journal.record import Record
from watchman.journal.sealed import Segment
from watchman.journal.segment import SealedRow
from watchman.journal.tallies import RECOUNT, Summary
from watchman.model import DISCARDED, Route, State, Version

ROUTE = Route("b", "t")
YES = (1).__bool__


def deliver(journal: Journal, first: int, count: int) -> None:
    """Record deliveries, most of which end: of ten one is moved only, vanishes, fails or waits."""
    news = []
    for n in range(first, first + count):
        path = f"/up/{n % 3}/{n}.csv" if n % 7 else os.fsdecode(b"/up/\xff/%d" % n)
        final = f"/dst/{n % 2}/{n}.csv" if n % 10 == 1 else None
        version = Version(1, n, 1000 * n, n)
        route = None if n % 10 == 1 else Route("bc"[n % 2], f"t{n % 3}")
        news.append(NewDelivery(f"id-{n}", path, final, version, 1000 + n, route))
    journal.record(news)
    ends = {1: State.MOVED, 2: State.VANISHED, 3: State.FAILED, 4: State.READY}
    reasons = {2: f"{DISCARDED}me", 3: "refused"}
    numbers = range(journal.last_seq() - count + 1, journal.last_seq() + 1)
    journal.note([(n, ends.get(n % 10, State.SENT), reasons.get(n % 10, "")) for n in numbers])


def answer(top: Path, question: Question = Question(), limit: int = 10_000) -> Matches:  # noqa: B008 — frozen
    with open_reader(str(top)) as found:
        return ask(found, question, limit)


def records(top: Path) -> list[Record]:
    found = answer(top)
    assert found.unreadable == []
    return found.records


def plain(found: Sequence[Record]) -> list[Record]:
    """Return the records as the archive has them."""
    return [one._replace(version=Version(0, 0, *one.version[2:4])) for one in found]


def seal(top: Path, keep: int = 10, rows: int = 50) -> str:
    return sealing.seal(str(top), sealing.mark(archive.files(str(top))), keep, rows)


def clear(journal: Journal) -> None:
    """Let a daemon's archive do what it does after its start."""
    work = Archive(journal)
    finish(work)
    work.close()


def finish(work: Archive) -> None:
    now = 0.0
    while work.active:
        now += 1
        work.step(now, idle=YES)


def in_journal(top: Path) -> set[int]:
    with open_reader(str(top)) as found:
        return {seq for (seq,) in found.connection.execute("SELECT seq FROM deliveries")}


def test_what_ended_is_sealed_and_leaves_the_journal(journal: Journal, tmp_path: Path) -> None:
    deliver(journal, 1, 200)
    before = records(tmp_path)
    said = seal(tmp_path)
    (file,) = archive.files(str(tmp_path))
    assert said == f"sealed {os.path.basename(file.path)}"
    assert records(tmp_path) == before
    clear(journal)
    left = in_journal(tmp_path)
    ended = [r.seq for r in before[::-1] if r.state not in {State.FAILED, State.READY}]
    assert left == {r.seq for r in before} - set(ended[:50])
    assert (file.first, file.last) == (ended[0], ended[49])
    assert plain(records(tmp_path)) == plain(before)
    assert os.listdir(archive.directory_of(str(tmp_path))) == [os.path.basename(file.path)]


@pytest.mark.parametrize("asked", [("/up/1",), ("/up/2/8.csv", "/up/1/1.csv"), ("*.csv",), ()])
def test_a_list_that_is_read_page_by_page_is_whole(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    deliver(journal, 1, 200)
    seal(tmp_path, rows=100)
    clear(journal)
    question = Question(asked)
    whole = answer(tmp_path, question).records
    for size in (1, 2, 7):
        monkeypatch.setattr(answers, "PAGE", size)
        with open_reader(str(tmp_path)) as found:
            assert list(answers.each(found, question, {})) == whole
    assert whole


def test_counts_are_the_same_wherever_a_delivery_is(journal: Journal, tmp_path: Path) -> None:
    def counted() -> Summary:
        with open_reader(str(tmp_path)) as found:
            return found.summary()

    deliver(journal, 1, 2000)
    before = counted()
    assert before.discarded == {"b": (200, 1002)}
    assert seal(tmp_path, rows=1000).startswith("sealed ")
    assert counted() == before
    work, steps = Archive(journal), 0
    while work.active:
        steps += 1
        work.step(float(steps), idle=YES)
        now = counted()
        assert {key: n for key, (n, _) in now.counts.items()} == {
            key: n for key, (n, _) in before.counts.items()
        }
        assert now.latest == before.latest
    assert steps > 3
    assert counted() == before
    work.check((1 << 63) - 1, 0.0)
    work.close()
    left = counted()
    assert left.latest == before.latest
    assert sum(n for n, _ in left.counts.values()) == len(in_journal(tmp_path)) - sum(
        n for n, _ in left.discarded.values()
    )


def test_what_ends_while_the_clock_was_set_back_is_counted(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_state() -> Counter[State]:
        return Counter(one.state for one in records(tmp_path))

    def counted() -> Counter[State]:
        with open_reader(str(tmp_path)) as found:
            return sum((Counter({s: n}) for (_, s), (n, _) in found.counts().items()), Counter())

    deliver(journal, 1, 200)
    seal(tmp_path, keep=50, rows=100)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)
    journal.note([(n, State.SENT, "") for n in range(1, 101) if n % 10 == 4])
    expected = by_state() - Counter({State.VANISHED: 20})  # all of them were given up
    assert expected[State.SENT] == 130
    assert counted() == expected
    clear(journal)
    assert counted() == expected


def test_what_ends_late_is_sealed_later_and_shown_in_its_place(
    journal: Journal, tmp_path: Path
) -> None:
    deliver(journal, 1, 200)
    seal(tmp_path)
    clear(journal)
    journal.note([(n, State.SENT, "") for n in range(1, 61) if n % 10 == 4])
    before = records(tmp_path)
    for _ in range(2):
        seal(tmp_path)
        clear(journal)
    files = archive.files(str(tmp_path))
    assert len(files) == 3
    assert files[1].first < files[2].last
    assert plain(records(tmp_path)) == plain(before)
    assert [r.seq for r in answer(tmp_path, limit=7).records] == [r.seq for r in before[:7]]


def test_a_row_that_changed_stays_and_the_journal_is_believed(
    journal: Journal, tmp_path: Path
) -> None:
    deliver(journal, 1, 200)
    seal(tmp_path)
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("UPDATE deliveries SET state = 4 WHERE seq = 5")
    connection.execute("UPDATE deliveries SET noted_ns = noted_ns + 1 WHERE seq = 6")
    connection.commit()
    connection.close()
    before = records(tmp_path)
    assert before[-5].state is State.FAILED
    clear(journal)
    assert {5, 6} <= in_journal(tmp_path)
    assert 7 not in in_journal(tmp_path)
    assert plain(records(tmp_path)) == plain(before)
    sent = [r.seq for r in answer(tmp_path, Question(state=State.SENT)).records]
    assert sent == [r.seq for r in before if r.state is State.SENT]


def test_few_are_not_sealed_nor_what_a_daemon_before_has_sealed(
    journal: Journal, tmp_path: Path
) -> None:
    deliver(journal, 1, 20)
    assert seal(tmp_path, keep=20) == "few"
    assert archive.files(str(tmp_path)) == []
    assert seal(tmp_path).startswith("sealed")
    assert sealing.seal(str(tmp_path), sealing.mark([]), 10, 50) == "changed"
    assert len(archive.files(str(tmp_path))) == 1


def test_two_do_not_seal_at_a_time(journal: Journal, tmp_path: Path) -> None:
    deliver(journal, 1, 20)
    (tmp_path / "history").mkdir()
    with sealing._alone(str(tmp_path / "history")) as alone:
        assert alone
        assert seal(tmp_path) == "failed another process is sealing"


def test_numbers_of_the_archive_are_not_given_out_again(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    deliver(journal, 1, 100)
    seal(tmp_path, rows=1000)
    last = journal.last_seq()
    journal.close()
    for name in tmp_path.glob("journal.db*"):
        name.unlink()
    again = Journal(str(tmp_path))
    assert again.last_seq() == last
    deliver(again, 1, 1)
    assert [r.seq for r in records(tmp_path)][:2] == [last + 1, last]
    again.close()


@pytest.mark.parametrize("together", [1, 7, 2000])
def test_what_is_archived_stays_known_where_the_journal_is_damaged(
    tmp_path: Path, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "_TOGETHER", together)
    journal = Journal(str(tmp_path))
    deliver(journal, 1, 100)
    seal(tmp_path)
    clear(journal)
    kept = {r.source for r in records(tmp_path) if r.state is not State.VANISHED and r.seq != 99}
    journal.suspect()
    journal.close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("UPDATE deliveries SET state = 99 WHERE seq = 99")
    connection.commit()
    connection.close()
    Journal(str(tmp_path)).close()
    assert list(tmp_path.glob("journal.db.damaged-*"))
    with open_reader(str(tmp_path)) as found:
        known = found.connection.execute("SELECT seq FROM known").fetchall()
    shown = records(tmp_path)
    assert {seq for (seq,) in known} == {r.seq for r in shown if r.source in kept}
    assert len(known) == 100 - 1 - 10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "KEEP", 60)
    monkeypatch.setattr(archiving, "MORE", 20)
    monkeypatch.setattr(archiving, "AT_A_TIME", 7)
    monkeypatch.setattr(sealing, "ROWS", 50)


def settle(work: Archive, before_ns: int = 0) -> None:
    """Let the archive work until it has nothing to do any more."""
    now = 0.0
    for _ in range(20):
        now += 100
        work.check(before_ns, now)
        if not work.active:
            return

        def is_done() -> bool:
            nonlocal now
            now += 1
            work.step(now, idle=YES)
            return not work.active

        wait_until(is_done, 60)
    raise AssertionError("it never comes to an end")


def test_the_daemon_has_it_done_by_a_process(
    journal: Journal, tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(journal, 1, 300)
    before = records(tmp_path)
    work = Archive(journal)
    settle(work)
    work.close()
    assert len(archive.files(str(tmp_path))) == 4
    assert len(in_journal(tmp_path)) == 300 - 200
    assert plain(records(tmp_path)) == plain(before)
    assert caplog.messages == []


def test_an_end_ends_a_sealing(journal: Journal, tmp_path: Path, small: None) -> None:
    deliver(journal, 1, 300)
    (tmp_path / "history").mkdir()
    work = Archive(journal)
    work.check(0, 1.0)
    process = work._process
    assert process is not None
    work.close()
    assert process.returncode is not None
    again = Archive(journal)
    settle(again)
    again.close()
    assert len(archive.files(str(tmp_path))) == 4


def test_old_segments_are_dropped_as_a_whole(journal: Journal, tmp_path: Path, small: None) -> None:
    deliver(journal, 1, 300)
    work = Archive(journal)
    settle(work)
    newest = max(record.noted_ns for record in records(tmp_path))
    work.check(newest, 1e6)
    assert len(archive.files(str(tmp_path))) == 4
    work.check(newest + 1, 1e6)
    assert archive.files(str(tmp_path)) == []
    assert {r.seq for r in records(tmp_path)} == in_journal(tmp_path)
    work.close()


def test_where_nothing_can_be_written_it_is_said_once(
    journal: Journal, tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(journal, 1, 100)
    (tmp_path / "history").write_bytes(b"no directory")
    work = Archive(journal)
    for now in (1.0, 1000.0, 2000.0):
        work.check(0, now)

        def is_over() -> bool:
            work.step(0.0, idle=YES)
            return not work.active

        wait_until(is_over, 60)
    work.close()
    (line,) = caplog.messages
    assert "Finished deliveries stay in the journal for now" in line
    assert "history" in line
    assert len(records(tmp_path)) == 100


def damage(file: archive.SegmentFile, how: str) -> None:
    size = os.path.getsize(file.path)
    with open(file.path, "r+b") as opened:
        if how == "cut":
            opened.truncate(size // 2)
        elif how == "empty":
            opened.truncate(0)
        else:
            opened.seek(100)
            opened.write(os.urandom(size - 200))


@pytest.mark.parametrize("how", ["cut", "empty", "overwritten"])
def test_a_damaged_segment_is_said_and_passed_over(
    journal: Journal, tmp_path: Path, small: None, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(journal, 1, 300)
    work = Archive(journal)
    settle(work)
    work.close()
    before = plain(records(tmp_path))
    file = archive.files(str(tmp_path))[1]
    damage(file, how)
    found = answer(tmp_path)
    (line,) = found.unreadable
    assert file.path in line
    assert "cannot be read" in line
    shown = plain(found.records)
    assert [one for one in before if one in shown] == shown
    missing = {one.seq for one in before} - {one.seq for one in shown}
    assert all(file.first <= seq <= file.last for seq in missing)
    again = Archive(journal)
    settle(again)
    assert len(caplog.messages) <= 1
    assert all(file.path in message for message in caplog.messages)
    settle(again, before_ns=1 << 62)
    assert not os.path.exists(file.path)
    again.close()


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {root!r})
from watchman.journal import Archive, Journal, archive, archiving, sealing, segment
archiving.AT_A_TIME = 9
what, left, before = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "before"
def deadly(function):
    def call(*arguments, **words):
        global left
        left -= 1
        if before and not left:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **words)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
journal = Journal(sys.argv[1])
if what == "delete":
    Journal.drop_archived = deadly(Journal.drop_archived)
elif what == "write":
    segment.write = deadly(segment.write)
else:
    setattr(os, what, deadly(getattr(os, what)))
work, now = Archive(journal), 0.0
for _ in range(2):
    while work.active:
        now += 1
        work.step(now, idle=bool)
    sealing.seal(sys.argv[1], sealing.mark(archive.files(sys.argv[1])), 10, 50)
    work = Archive(journal)
print("survived")
"""

POINTS = [("mkdir", 1), ("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2), ("fsync", 3)]
POINTS += [("fsync", 4), ("fsync", 7), ("rename", 1), ("rename", 2), ("unlink", 1)]
POINTS += [("delete", 1), ("delete", 3), ("delete", 6)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("what", "number"), POINTS)
def test_killed_at_any_step_nothing_is_lost_or_shown_twice(
    tmp_path: Path, what: str, number: int, when: str
) -> None:
    journal = Journal(str(tmp_path))
    deliver(journal, 1, 200)
    before = plain(records(tmp_path))
    journal.close()
    program = [sys.executable, "-c", PROGRAM.format(root=str(ROOT))]
    ended = subprocess.run(
        [*program, str(tmp_path), what, str(number), when], capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended
    assert plain(records(tmp_path)) == before
    again = Journal(str(tmp_path))
    clear(again)
    seal(tmp_path)
    assert plain(records(tmp_path)) == before
    clear(again)
    assert plain(records(tmp_path)) == before
    archived = set[int]()
    for file in archive.files(str(tmp_path)):
        segment = Segment(file.path)
        seqs = {record.seq for record in segment.find(Question())}
        segment.close()
        assert not seqs & archived
        archived |= seqs
    assert archived
    assert not archived & in_journal(tmp_path)
    assert [name for name in os.listdir(tmp_path / "history") if "draft" in name] == []
    again.close()


def test_who_reads_while_it_is_sealed_misses_nothing(
    journal: Journal, tmp_path: Path, small: None
) -> None:
    deliver(journal, 1, 300)
    before = plain(records(tmp_path))
    over = threading.Event()
    wrong: list[int] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        while not over.is_set():
            found = plain(records(tmp_path))
            looks += 1
            if found != before:
                wrong.append(len(found))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        work = Archive(journal)
        settle(work)
        work.close()
        wait_until(lambda: looks > 3)
    finally:
        over.set()
        thread.join()
    assert wrong == []
    assert len(archive.files(str(tmp_path))) == 4


def fill(top: Path, rows: Sequence[SealedRow]) -> None:
    """Put rows into a journal as they are."""
    connection = sqlite3.connect(top / "journal.db")
    for broker, task in {(row.broker, row.task) for row in rows}:
        connection.execute(
            "INSERT INTO routes (broker, task, arguments) VALUES (?, ?, '[[], {}, {}]')",
            (broker, task),
        )
    for row in rows:
        connection.execute(
            "INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns, "
            "arrived_ns, broker, route, kind, state, noted_ns, reason) "
            "SELECT ?, ?, ?, ?, 1, 1, ?, ?, ?, ?, id, ?, ?, ?, ? "
            "FROM routes WHERE broker = ? AND task = ?",
            (
                *(row.seq, row.task_id, row.source, row.final, row.size, row.mtime_ns),
                *(row.arrived_ns, row.broker, row.unit, row.state, row.noted_ns, row.reason),
                *(row.broker, row.task),
            ),
        )
    connection.execute(RECOUNT)
    connection.commit()
    connection.close()


@given(some_rows(most=60), st.lists(questions, min_size=1, max_size=10), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_journal_and_archive_answer_as_a_look_at_every_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[SealedRow],
    asked: list[Question],
    limit: int,
) -> None:
    top = tmp_path_factory.mktemp("any")
    journal = Journal(str(top))
    try:
        fill(top, rows)
        every = [expected(row) for row in reversed(rows)]
        for keep in (30, 30, 10):
            seal(top, keep, 11)
            clear(journal)
            assert plain(records(top)) == every
            for question in asked:
                meant = [one for one in every if question.means(one)]
                assert plain(answer(top, question).records) == meant
                assert plain(answer(top, question, limit).records) == meant[:limit]
                with open_reader(str(top)) as reader:
                    assert reader.count(question) in {None, len(meant)}
    finally:
        journal.close()


@pytest.mark.parametrize("state", [None, *State])
def test_of_no_numbers_nothing_is_meant(
    journal: Journal, tmp_path: Path, state: State | None
) -> None:
    deliver(journal, 1, 20)
    seal(tmp_path)
    for reason in (None, "me"):
        question = Question(state=state, reason=reason, seqs=frozenset())
        assert answer(tmp_path, question) == Matches([], [])


def test_what_is_no_text_is_found_nowhere(journal: Journal, tmp_path: Path) -> None:
    deliver(journal, 1, 5)
    odd = "\udcff"
    for question in (Question(broker=odd), Question(task=odd), Question(task_id=odd)):
        assert answer(tmp_path, question).records == []
