"""The journal: what is recorded is there after a crash, in order, and only once."""

from __future__ import annotations

import contextlib
import datetime
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journals import counts, failures
from tests.waiting import wait_until
from watchman.errors import JournalDamaged, JournalError
from watchman.journal import Journal, NewDelivery, arguments, known, route_table, schema
from watchman.model import Move, Route, State, Version

ROUTE = Route("b", "task", (1,), {"k": "v"}, {"queue": "q"})
VERSION = Version(1, 2, 3, 4)


def new(
    path: str, final: str | None = None, route: Route | None = ROUTE, version: Version = VERSION
) -> NewDelivery:
    return NewDelivery(f"id of {path!a}", path, final, version, 99, route)


def test_a_recorded_delivery_comes_back_whole(journal: Journal, tmp_path: Path) -> None:
    strange = os.fsdecode(b"/up/\xff\n'\"")
    journal.record([new(strange)])
    journal.close()
    again = Journal(str(tmp_path))
    (delivery,) = again.page_ready("b", 0, 10)
    assert delivery.source == delivery.final == strange
    assert delivery.task_id == f"id of {strange!a}"
    assert delivery.version == VERSION
    assert delivery.arrived_ns == 99
    assert delivery.route == ROUTE
    assert delivery.state is State.READY
    again.record([new("/up/next")])
    assert [d.seq for d in again.page_ready("b", 0, 10)] == [1, 2]
    again.close()


def test_a_row_that_cannot_be_written_is_left_out(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """And what was learnt in the commit that failed is not believed."""
    strange = [
        new("/up/text")._replace(task_id="\udcff"),
        new("/up/time")._replace(version=VERSION._replace(mtime_ns=1 << 63)),
        new("/up/inode")._replace(version=VERSION._replace(inode=-(1 << 70))),
        new("/up/value")._replace(kind=[]),  # type: ignore[arg-type]  # — that is the point
    ]
    good = [new(f"/up/{number}") for number in range(9)]
    noted = [("/up/noted", VERSION), ("/up/never", VERSION._replace(size=1 << 64))]
    journal.record([*good[:4], *strange, *good[4:]], noted)
    journal.record([new("/up/last"), strange[0]])
    found = journal.page_ready("b", 0, 100)
    assert [d.source for d in found] == [*(f"/up/{number}" for number in range(9)), "/up/last"]
    assert all(delivery.route == ROUTE for delivery in found)
    names = ["0", "8", "noted", "last", "text", "time", "inode", "value", "never"]
    known_ = journal.known.lookup("/up", names)
    assert {name: one.seq for name, one in known_.items()} == {
        "0": found[0].seq,
        "8": found[8].seq,
        "noted": 0,
        "last": found[9].seq,
    }
    said = [r.getMessage() for r in caplog.records if "Not recorded" in r.getMessage()]
    assert len(said) == 5  # each once
    aside = {record.source: record.reason for record in failures(journal)}
    assert aside.keys() == {"/up/text", "/up/time", "/up/inode", "/up/value"}
    assert "OverflowError" in aside["/up/time"]
    assert journal.sound


def test_what_is_recorded_as_failed_is_told_as_it_is_recorded(journal: Journal) -> None:
    told: list[tuple[int, str, State]] = []
    journal.when_failed(lambda rows: told.extend((one.seq, one.source, one.state) for one in rows))
    incomplete = [new(f"/up/{number}")._replace(failed="incomplete: …") for number in (1, 2)]
    journal.record([new("/up/whole"), *incomplete])
    assert told == [(2, "/up/1", State.FAILED), (3, "/up/2", State.FAILED)]
    journal.record([new("/up/time")._replace(version=VERSION._replace(mtime_ns=1 << 63))])
    assert told[2:] == [(failures(journal)[-1].seq, "/up/time", State.FAILED)]
    journal.record([new("/up/many")._replace(failed="x", task_id=f"{n}") for n in range(1200)])
    assert [seq for seq, _, _ in told] == [one.seq for one in failures(journal)]


def test_a_time_that_cannot_be_written_leaves_the_known_version(journal: Journal) -> None:
    journal.record([new("/up/a"), new("/up/b")])
    late = VERSION._replace(mtime_ns=1 << 65)
    touched = VERSION._replace(mtime_ns=77)
    journal.known.refresh([("/up/a", late), ("/up/b", touched)])
    assert journal.known.versions(["/up/a", "/up/b"]) == {"/up/a": VERSION, "/up/b": touched}
    journal.prune(-(1 << 80))
    journal.note([(1, State.FAILED, "because of \udcff\n")])
    assert journal.sound


def test_pages_are_in_order_and_by_broker(journal: Journal) -> None:
    other = Route("other", "task")
    journal.record([new(f"/up/{n}", route=other if n % 2 else ROUTE) for n in range(10)])
    assert [d.source for d in journal.page_ready("b", 0, 3)] == ["/up/0", "/up/2", "/up/4"]
    assert [d.source for d in journal.page_ready("b", 5, 9)] == ["/up/6", "/up/8"]
    assert [d.source for d in journal.page_ready("other", 0, 1)] == ["/up/1"]


def test_the_states_of_a_moved_file(journal: Journal) -> None:
    journal.record([new("/up/a", "/store/a")])
    assert journal.page_ready("b", 0, 10) == []
    (moving,) = journal.page_strays((), 10)
    assert (moving.source, moving.final) == ("/up/a", "/store/a")
    journal.redirect(moving.seq, "/store/a@1")
    journal.note([(moving.seq, State.READY, "")])
    (ready,) = journal.page_ready("b", 0, 10)
    assert (ready.source, ready.final) == ("/up/a", "/store/a@1")
    journal.note([(ready.seq, State.SENT, "")])
    assert journal.page_ready("b", 0, 10) == journal.page_strays((), 10) == []
    assert counts(journal) == {("b", State.SENT): (1, 99)}


def test_deliveries_are_paged_by_their_moves_entry(journal: Journal) -> None:
    one, other, third = Move("/up", "/store"), Move("/up/x", "/store"), Move("/up", "/away")
    entries = [one, other, None, one, third, one]
    journal.record(
        [
            new(f"/up/{number}", final=f"/store/{number}")._replace(move=move)
            for number, move in enumerate(entries)
        ]
    )
    assert [row.seq for row in journal.page_moving(one, 0, 2)] == [1, 4]
    assert [row.seq for row in journal.page_moving(one, 4, 2)] == [6]
    assert [row.seq for row in journal.page_strays((), 9)] == [3]
    assert journal.page_moving(Move("/up", "/nowhere"), 0, 9) == []
    strays = []
    while page := journal.page_strays([one], 9):
        strays.append([row.seq for row in page])
        journal.assign(strays[-1], one)
    assert strays == [[3], [2], [5]]
    assert [row.seq for row in journal.page_moving(one, 0, 9)] == [1, 2, 3, 4, 5, 6]
    journal.note([(2, State.FAILED, "no")])
    assert journal.moving(2) is None
    assert journal.moving(3) == journal.page_moving(one, 2, 1)[0]


def test_what_was_moved_is_not_known_at_its_source(journal: Journal) -> None:
    """The next upload there may look the same: the same size, time and inode number."""
    journal.record([new("/up/a", final="/done/a"), new("/up/b", final="/done/b"), new("/up/c")])
    journal.record([new("/up/b", final="/done/b")._replace(task_id="newer")])
    moved = journal.page_strays((), 2)
    journal.note([(3, State.READY, "")], moved)
    assert [row.seq for row in moved] == [1, 2]
    assert [row.seq for row in journal.page_ready("b", 0, 9)] == [1, 2, 3]
    assert journal.known.lookup("/up", ["a", "b", "c"]).keys() == {"b", "c"}


def test_failed_deliveries_keep_their_reason(journal: Journal) -> None:
    journal.record([new("/up/a")])
    journal.note([(1, State.FAILED, "refused")])
    assert [d.seq for d in failures(journal)] == [1]
    with sqlite3.connect(journal.path) as connection:
        assert connection.execute("SELECT reason FROM deliveries").fetchone() == ("refused",)
    connection.close()


def test_a_task_id_survives_new_times(journal: Journal) -> None:
    journal.record([new("/up/a")])
    later = VERSION._replace(mtime_ns=5)
    journal.known.refresh([("/up/a", later)])
    (delivery,) = journal.page_ready("b", 0, 10)
    assert (delivery.task_id, delivery.version) == ("id of '/up/a'", later)
    assert journal.known.lookup("/up", ["a"])["a"].version == later


def test_sent_deliveries_keep_the_version_that_was_sent(journal: Journal) -> None:
    journal.record([new("/up/a")])
    journal.note([(1, State.SENT, "")])
    journal.known.refresh([("/up/a", VERSION._replace(mtime_ns=5))])
    journal.note([(1, State.READY, "")])
    assert journal.page_ready("b", 0, 10)[0].version == VERSION


def test_announced_later(journal: Journal) -> None:
    journal.record([new("/up/a"), new("/up/b")])
    first, second = journal.page_ready("b", 0, 10)
    journal.record([new("/up/a", version=VERSION._replace(size=9))._replace(task_id="another")])
    assert journal.announced_later(first)
    assert not journal.announced_later(second)


def test_a_task_id_is_under_way_once(journal: Journal) -> None:
    """Two rows of one id would write and remove one another's files."""
    first, again = new("/up/a"), new("/up/a", version=VERSION._replace(changed_ns=7))
    assert journal.record([first]) == []
    assert journal.record([new("/up/b"), again]) == [(again, False)]
    assert journal.record([new("/up/c", final="/to/c"), new("/up/c")]) == [(new("/up/c"), False)]
    assert [row.source for row in journal.page_ready("b", 0, 10)] == ["/up/a", "/up/b"]
    assert [row.source for row in journal.page_strays((), 10)] == ["/up/c"]
    # What is known is that delivery, in the version that was seen last.
    known_as = journal.known.lookup("/up", ["a", "c"])
    assert (known_as["a"].seq, known_as["a"].version.changed_ns) == (1, 7)
    assert known_as["c"].seq == journal.page_strays((), 10)[0].seq


def test_an_arrival_is_not_recorded_while_it_is_under_way_by_another_id(journal: Journal) -> None:
    journal.record([new("/up/a")])
    again = new("/up/a")._replace(task_id="salted", unless="id of '/up/a'")
    assert journal.record([again]) == [(again, False)]
    journal.note([(1, State.SENT, "")])
    assert journal.record([again]) == []
    assert [row.task_id for row in journal.page_ready("b", 0, 10)] == ["salted"]


def test_what_has_left_its_path_is_not_what_is_there(journal: Journal) -> None:
    """It was moved, and waits for its broker, when a file just like it is at its source."""
    first = new("/up/a", final="/to/a")
    journal.record([first])
    journal.note([], journal.page_strays((), 10))
    # Of this id none can be recorded: it is for the caller to give it another one.
    assert journal.record([first]) == [(first, True)]
    assert not journal.known.versions(["/up/a"])
    again = first._replace(task_id="another", unless=first.task_id)
    assert journal.record([again]) == []
    assert [row.task_id for row in journal.page_strays((), 10)] == ["another"]
    assert journal.known.lookup("/up", ["a"])["a"].seq == 3  # the one that was left out had 2


def test_what_is_settled_frees_its_id(journal: Journal) -> None:
    journal.record([new("/up/a"), new("/up/b", final="/to/b")])
    journal.note([(1, State.FAILED, "no"), (2, State.READY, "")])
    assert journal.record([new("/up/a")]) == []
    assert [row.seq for row in journal.page_ready("b", 0, 10)] == [2, 3]


def test_known_and_forgotten(journal: Journal) -> None:
    journal.record([new("/up/d/a")], [("/up/d/e/noted", VERSION), ("/up/dd/other", VERSION)])
    assert journal.known.lookup("/up/d", ["a", "x"]) == {"a": known.Known(VERSION, 1)}
    assert journal.known.lookup("/nowhere", ["a"]) == {}
    journal.known.forget(["/up/d/a", "/nowhere/b"])
    assert journal.known.lookup("/up/d", ["a"]) == {}
    journal.known.forget_below("/up/d")
    assert journal.known.lookup("/up/d/e", ["noted"]) == {}
    assert list(journal.known.lookup("/up/dd", ["other"])) == ["other"]


def test_what_is_gone_is_forgotten_in_small_steps(journal: Journal) -> None:
    names = [f"/up/{d}/f{n}" for d in ("a", "a/b", "c", "d") for n in range(30)]
    journal.record((), [(name, VERSION) for name in [*names, "/up/stays"]])
    left, steps = ["/up/a", "/up/c", "/up/d"], 0
    while left:
        before = known_names(journal)
        left, steps = journal.known.forget_below(*left, most=25), steps + 1
        assert len(before) - len(known_names(journal)) <= 25
    assert steps == 5
    assert known_names(journal) == [(b"stays",)]
    assert not journal.known.knows("/up/a/b")


def known_names(journal: Journal) -> list[tuple[bytes]]:
    connection = sqlite3.connect(journal.path)
    try:
        return connection.execute("SELECT name FROM known").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("count", [1, 9, 10, 11, 499, 500, 501, 1234])
def test_lookups_of_any_length(journal: Journal, count: int) -> None:
    names = [f"f{n}" for n in range(count)]
    journal.record((), [(f"/up/{name}", VERSION) for name in names])
    assert set(journal.known.lookup("/up", names)) == set(names)


@pytest.mark.parametrize("whole", [True, False])
def test_a_scan_tells_what_changed_and_what_is_missing(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(known, "WHOLE", 1000 if whole else 1)
    found = {}
    for name in ("same", "changed", "new", "gone"):
        (tmp_path / name).write_text("x")
        status = (tmp_path / name).stat()
        version = Version(0, status.st_ino, status.st_size, status.st_mtime_ns)
        if name == "changed":
            version = version._replace(size=7)
        if name != "new":
            journal.record((), [(f"{tmp_path}/{name}", version)])
        if name != "gone":
            found[name] = status
    scan = journal.known.scan(str(tmp_path))
    assert scan.changed(found) == ["changed", "new"]
    missing = set(scan.maybe_missing())
    assert "gone" in missing
    assert not whole or missing == {"gone"}


def test_first_runs(journal: Journal) -> None:
    assert journal.first_runs(["/a", "/b"]) == {"/a", "/b"}
    journal.note_first_run(["/a"])
    assert journal.first_runs(["/a", "/b"]) == {"/b"}


def test_pruning_keeps_what_is_unfinished_and_the_last_number(journal: Journal) -> None:
    journal.record([new(f"/up/{n}") for n in range(5)])
    journal.note([(seq, State.SENT, "") for seq in (1, 2, 5)] + [(3, State.FAILED, "x")])
    assert journal.prune(2**62) == (2, False)
    assert journal.prune(2**62) == (0, False)
    assert counts(journal) == {
        ("b", State.SENT): (1, 99),
        ("b", State.FAILED): (1, 99),
        ("b", State.READY): (1, 99),
    }


def test_a_killed_process_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from watchman.journal import Journal, NewDelivery\n"
        "from watchman.model import Move, Route, Version\n"
        "journal = Journal(sys.argv[1])\n"
        "for n in range(10**6):\n"
        "    journal.record([NewDelivery(str(n), f'/up/{n}', None, Version(1, n, 1, 1), 1,\n"
        "                                Route('b', 't'))])\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == 200:
            process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    journal = Journal(str(tmp_path))
    recorded = [delivery.source for delivery in journal.page_ready("b", 0, 10**6)]
    assert recorded[: last + 1] == [f"/up/{n}" for n in range(last + 1)]
    assert len(recorded) <= last + 2
    journal.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Journal(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(JournalError, match="has schema 9"):
        Journal(str(tmp_path))


def test_a_journal_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=str(tmp_path / "missing" / "journal.db")):
        Journal(str(tmp_path / "missing"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(_json, max_size=3), st.dictionaries(st.text(), _json, max_size=3))
def test_routes_survive_as_text(args: list[object], options: dict[str, object]) -> None:
    route = Route("b", "t", tuple(args), {}, options)
    assert arguments.decode("b", "t", arguments.encode(route)) == route


def test_routes_of_earlier_configurations_are_not_kept(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that one is read it has routes of its own, which may equal those before."""
    monkeypatch.setattr(route_table, "KEPT", 4)
    for reload in range(20):
        routes = [Route("b", "one", (1,)), Route("b", "two")]
        journal.record([new(f"/up/{reload}/{route.task}", route=route) for route in routes])
        assert len(journal._routes._numbers) <= 4
    rows = journal.page_ready("b", 0, 100)
    assert [row.route for row in rows] == [Route("b", "one", (1,)), Route("b", "two")] * 20


def test_times_survive_as_text() -> None:
    when = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
    route = Route("b", "t", options={"eta": when, "expires": datetime.timedelta(seconds=5)})
    assert arguments.decode("b", "t", arguments.encode(route)) == route


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_connections_of_threads_that_ended_are_closed(journal: Journal) -> None:
    journal.record([new("/up/a")])

    def read() -> None:
        assert len(journal.page_ready("b", 0, 10)) == 1

    in_thread(read)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        in_thread(read)
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_waits_where_no_file_can_be_opened(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, tried again, and no thread dies of it."""
    journal.record([new("/up/a")])
    found: list[int] = []
    reading = threading.Thread(target=lambda: found.append(len(journal.page_ready("b", 0, 10))))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        reading.start()
        wait_until(lambda: journal.write_retry.trouble, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    reading.join(20)
    assert found == [1]
    assert "cannot be read: unable to open database file; raise the limit" in caplog.text
    assert not journal.write_retry.trouble
    assert journal.sound


def still_open(journal: Journal) -> list[str]:
    """Files that are left open: when they are closed, the next one's locks would go along."""
    links = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if entry.is_symlink())
    return [link for link in links if link.startswith(journal.path)]


def test_no_connection_is_opened_while_it_is_closed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, closed = threading.Event(), threading.Event()
    connect = schema.connect

    def slowly(path: str, *, read_only: bool = False) -> sqlite3.Connection:
        opening.set()
        closed.wait(1.0)
        return connect(path, read_only=read_only)

    monkeypatch.setattr(schema, "connect", slowly)

    def read() -> None:
        with contextlib.suppress(JournalError):  # closed before it is asked
            journal.is_under_way(1)

    thread = threading.Thread(target=read)
    thread.start()
    assert opening.wait(10)
    journal.close()
    closed.set()
    thread.join()
    assert not still_open(journal)


def test_what_is_being_written_is_written_before_it_is_closed(journal: Journal) -> None:
    writing, closed = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO watches VALUES (x'2f7570', 5)")
        writing.set()
        closed.wait(1.0)

    thread = threading.Thread(target=lambda: journal._database.write(work))
    thread.start()
    assert writing.wait(10)
    journal.close()
    closed.set()
    thread.join()
    assert not still_open(journal)
    again = Journal(os.path.dirname(journal.path))
    assert again.first_runs(["/up"]) == set()
    again.close()


def test_monitoring_waits_for_no_journal(journal: Journal) -> None:
    found: list[str] = []

    def read() -> None:
        with pytest.raises(JournalError) as caught:
            journal.measures()
        found.append(str(caught.value))

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        in_thread(read)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "cannot be read: unable to open database file; raise the limit" in found[0]
    assert journal.sound
    assert not journal.write_retry.trouble
    assert journal.measures().last_arrival_ns == 0


def test_monitoring_finds_damage(journal: Journal) -> None:
    journal.record([new("/up/a")])
    with sqlite3.connect(journal.path) as other:
        other.execute("UPDATE deliveries SET arrived_ns = 'x'")
    other.close()
    with pytest.raises(JournalDamaged, match="a number in it cannot be understood"):
        journal.measures()
    assert not journal.sound


def test_a_thread_that_is_late_is_told_that_it_is_closed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.page_ready("b", 0, 1)
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.page_ready("b", 0, 1)
    with pytest.raises(JournalError, match="is closed"):
        journal.record([new("/up/a")])
    assert not journal.damage


@pytest.mark.parametrize("change", ["state = 9", "source = 5", "final = 5", "route = 77"])
def test_a_row_that_cannot_be_understood_is_damage(tmp_path: Path, change: str) -> None:
    """It is left out of the next journal, and its file is found again."""
    journal = Journal(str(tmp_path))
    met: list[str] = []
    journal.when_damaged(lambda: met.append(journal.damage))
    journal.record([new("/up/a"), new("/up/b")])
    with sqlite3.connect(journal.path) as connection:
        query = f"UPDATE deliveries SET {change} WHERE source = ?"  # noqa: S608 — our own text
        connection.execute(query, (b"/up/a",))
    connection.close()
    for _ in range(2):
        with pytest.raises(JournalDamaged, match="is damaged"):
            journal._page("", ())
    assert not journal.sound
    assert len(met) == 1
    journal.close()
    again = Journal(str(tmp_path))
    assert [d.source for d in again._page("", ())] == ["/up/b"]
    assert again.known.lookup("/up", ["a", "b"]).keys() == {"b"}
    again.resume(["/up"])
    assert again.first_runs(["/up"]) == set()
    again.close()


def test_what_no_sound_journal_says_has_it_opened_again(tmp_path: Path) -> None:
    """Whatever the error: no thread ends with a traceback, and none goes on."""
    statements = (
        "SELECT 1 FROM nowhere",
        "SELECT nothing FROM known",
        "INSERT INTO watches VALUES (x'00', NULL)",
        "INSERT INTO routes (id, broker, task, arguments) VALUES ('x', 'b', 't', '')",
        "COMMIT",
        "nonsense",
    )
    for statement in statements:
        journal = Journal(str(tmp_path))
        with pytest.raises(JournalDamaged):
            journal._database.write(lambda connection, text=statement: connection.execute(text))  # type: ignore[misc]  # — binds the text
        assert not journal.sound
        journal.close()
        if statement.startswith("SELECT"):
            journal = Journal(str(tmp_path))
            with pytest.raises(JournalDamaged):
                journal._database.reader.execute(statement)
            assert not journal.sound
            journal.close()
    Journal(str(tmp_path)).close()
    assert {path.name for path in tmp_path.iterdir()} == {"journal.db"}
