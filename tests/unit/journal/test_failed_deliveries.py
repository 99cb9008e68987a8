"""What operators ask of the journal, and do to it, beside a running daemon."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.journals import discard, history, retry
from watchman.errors import JournalError
from watchman.journal import Journal, NewDelivery
from watchman.journal.failed_deliveries import Record, Selection, failed
from watchman.journal.journal_reader import open_reader
from watchman.model import Route, State, Version, WatchKind

ROUTE = Route("b", "task")
ALL = Selection(all=True)


def record(journal: Journal, *deliveries: tuple[str, str | None, Route | None]) -> None:
    journal.record(
        [
            NewDelivery(f"id-{n}", source, final, Version(1, n, 2, 3), 1000 + n, route)
            for n, (source, final, route) in enumerate(deliveries, 1)
        ]
    )


def find(tmp_path: Path, *paths: str, limit: int = 100) -> list[str]:
    with open_reader(str(tmp_path)) as journal:
        return [record.source for record in history(journal, paths, limit)]


def fail(journal: Journal, *seqs: int) -> None:
    journal.note([(seq, State.FAILED, "refused") for seq in seqs])


def states(tmp_path: Path) -> dict[int, tuple[State, str]]:
    with open_reader(str(tmp_path)) as journal:
        return {r.seq: (r.state, r.reason) for r in history(journal, (), 100)}


def test_history_by_path_directory_and_pattern(journal: Journal, tmp_path: Path) -> None:
    odd = os.fsdecode(b"/up/\xff[1].csv")
    record(
        journal,
        ("/up/a/1.csv", "/dst/a/1.csv", ROUTE),
        ("/up/ab/2.csv", None, ROUTE),
        (odd, None, ROUTE),
        ("/up/a/1.csv", "/dst/a/1@5.csv", None),
    )
    assert find(tmp_path) == ["/up/a/1.csv", odd, "/up/ab/2.csv", "/up/a/1.csv"]
    assert find(tmp_path, limit=2) == ["/up/a/1.csv", odd]
    assert find(tmp_path, "/up/a/1.csv") == ["/up/a/1.csv", "/up/a/1.csv"]
    assert find(tmp_path, "/dst/a/1@5.csv") == ["/up/a/1.csv"]
    assert find(tmp_path, "/up/a") == ["/up/a/1.csv", "/up/a/1.csv"]
    assert find(tmp_path, "/dst") == ["/up/a/1.csv", "/up/a/1.csv"]
    assert find(tmp_path, "/") == find(tmp_path)
    assert find(tmp_path, "/up/*/2.*") == ["/up/ab/2.csv"]
    assert find(tmp_path, odd) == [odd]
    assert find(tmp_path, "/up/ab", odd) == [odd, "/up/ab/2.csv"]
    assert find(tmp_path, "/up/none") == []
    with open_reader(str(tmp_path)) as found:
        newest = history(found, (), 1)[0]
    assert newest.final == "/dst/a/1@5.csv"
    assert (newest.broker, newest.task, newest.state) == (None, None, State.MOVING)


def test_retry_by_number_path_and_all(journal: Journal, tmp_path: Path) -> None:
    record(journal, *((f"/up/{n}", None, ROUTE) for n in range(1, 6)))
    fail(journal, 1, 2, 3, 4)
    back = retry(tmp_path, Selection(frozenset({1, 5}), ("/up/2",)))
    assert [(r.seq, r.state, r.reason) for r in back] == [
        (1, State.READY, ""),
        (2, State.READY, ""),
    ]
    with open_reader(str(tmp_path)) as found:
        assert [r.seq for r in failed(found)] == [3, 4]
    assert [r.seq for r in retry(tmp_path, ALL)] == [3, 4]
    assert retry(tmp_path, ALL) == []
    # The journal that is open all the while hands them out again.
    assert [d.seq for d in journal.page_ready("b", 0, 100)] == [1, 2, 3, 4, 5]


def test_retry_goes_back_to_the_step_that_is_left(journal: Journal, tmp_path: Path) -> None:
    record(
        journal,
        ("/up/moved", "/dst/moved", ROUTE),
        ("/up/still-there", "/dst/still-there", ROUTE),
        ("/up/no-task-moved", "/dst/no-task-moved", None),
        ("/up/no-task", "/dst/no-task", None),
    )
    fail(journal, 1, 2, 3, 4)
    asked: list[str] = []

    def is_moved(record: Record) -> bool:
        asked.append(record.final)
        return "moved" in record.final

    back = retry(tmp_path, ALL, is_moved)
    assert [r.state for r in back] == [State.READY, State.MOVING, State.MOVED, State.MOVING]
    assert len(asked) == 4
    assert [d.seq for d in journal.page_strays((), 100)] == [2, 4]


def test_what_is_under_way_again_is_not_retried(journal: Journal, tmp_path: Path) -> None:
    one = NewDelivery("one", "/up/again", None, Version(1, 2, 3, 4), 1, ROUTE)
    journal.record([one])
    (first,) = [d for d in journal.page_ready("b", 0, 99) if d.task_id == "one"]
    journal.note([(first.seq, State.FAILED, "refused")])
    journal.record([one])
    (retried,) = retry(tmp_path, Selection(frozenset({first.seq})))
    assert (retried.state, retried.reason) == (
        State.VANISHED,
        "it is under way as another delivery",
    )
    assert len([d for d in journal.page_ready("b", 0, 99) if d.task_id == "one"]) == 1


def test_only_what_failed_is_touched(journal: Journal, tmp_path: Path) -> None:
    record(journal, ("/up/1", None, ROUTE), ("/up/2", None, ROUTE))
    journal.note([(2, State.SENT, "")])
    assert retry(tmp_path, Selection(frozenset({1, 2}))) == []
    assert discard(tmp_path, ALL, "root") == []
    assert states(tmp_path) == {1: (State.READY, ""), 2: (State.SENT, "")}


def test_discard_says_by_whom(journal: Journal, tmp_path: Path) -> None:
    record(journal, ("/up/1", None, ROUTE))
    fail(journal, 1)
    (done,) = discard(tmp_path, ALL, "ada")
    assert (done.state, done.reason) == (State.VANISHED, "discarded by ada")
    assert states(tmp_path) == {1: (State.VANISHED, "discarded by ada")}
    with open_reader(str(tmp_path)) as found:
        assert history(found, (), 1)[0].noted_ns == done.noted_ns


def test_retry_while_the_daemon_writes(journal: Journal, tmp_path: Path) -> None:
    record(journal, *((f"/up/{n}", None, ROUTE) for n in range(1, 2001)))
    fail(journal, *range(1, 2001))
    enough = threading.Event()

    def write() -> None:
        # An error here is an unhandled one in a thread, which fails the test.
        while not enough.wait(0.005):
            journal.record([NewDelivery("x", "/up/x", None, Version(1, 1, 1, 1), 1, ROUTE)])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        back = retry(tmp_path, ALL)
    finally:
        enough.set()
        thread.join(20)
    assert not thread.is_alive()
    assert [record.seq for record in back] == list(range(1, 2001))


def test_reading_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    record(journal, ("/up/1", None, ROUTE), ("/up/2", None, None))
    journal.close()
    before = contents(tmp_path)
    with open_reader(str(tmp_path)) as found:
        assert found.counts() == {
            ("b", State.READY): (1, 1001),
            ("", State.READY): (1, 1002),
        }
        assert found.summary().latest == (1002, 0)
        assert found.runs().before_ns(WatchKind.FILES, "/up") == math.inf
        assert found.known("/up") == {"1": Version(1, 1, 2, 3), "2": Version(1, 2, 2, 3)}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            found.connection.execute("DELETE FROM deliveries")
    assert contents(tmp_path) == before
    assert sorted(before) == ["journal.db"]


def test_reading_after_a_crash(journal: Journal, tmp_path: Path) -> None:
    """What is only in the log yet counts as well."""
    record(journal, ("/up/1", None, ROUTE))
    assert (tmp_path / "journal.db-wal").stat().st_size > 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    with open_reader(str(copy)) as found:
        assert found.counts() == {("b", State.READY): (1, 1001)}


def test_a_journal_that_is_not_there_yet(tmp_path: Path) -> None:
    with open_reader(str(tmp_path / "none")) as found:
        assert found.counts() == {}
        assert found.summary().latest == (0, 0)
        assert list(failed(found)) == []
    with pytest.raises(JournalError, match="nothing has been recorded"):
        retry(tmp_path, ALL)
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database at all\n" * 100)
    with pytest.raises(JournalError, match="not a database"), open_reader(str(tmp_path)):
        pytest.fail("it was opened")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(JournalError, match="schema 9"), open_reader(str(tmp_path)):
        pytest.fail("it was opened")


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


def test_the_last_one_is_the_latest_and_not_the_one_that_came_last(
    journal: Journal, tmp_path: Path
) -> None:
    record(journal, ("/up/1", None, ROUTE), ("/up/2", None, ROUTE))
    journal.note([(2, State.SENT, "")])
    with open_reader(str(tmp_path)) as found:
        before = found.summary().latest[1]
    journal.note([(1, State.SENT, "")])  # it had to wait, say for its queue
    with open_reader(str(tmp_path)) as found:
        arrived, sent = found.summary().latest
    assert arrived == 1002
    assert sent > before


def test_what_is_given_up_is_counted_apart(journal: Journal, tmp_path: Path) -> None:
    record(journal, *((f"/up/{n}", None, ROUTE) for n in range(3)))
    journal.note([(1, State.FAILED, "no"), (2, State.FAILED, "no"), (3, State.VANISHED, "gone")])
    discard(tmp_path, Selection(seqs=frozenset({1, 2})), "root")
    with open_reader(str(tmp_path)) as found:
        summary = found.summary()
    assert summary.counts == {("b", State.VANISHED): (1, 1003)}
    assert summary.discarded == {"b": (2, 1001)}
