"""A damaged journal: set aside, and nothing lost with it; older schemas; crashes in between."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, in_directory, wait_for_tasks
from tests.journals import history
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.errors import JournalDamaged, JournalError
from watchman.journal import Journal, NewDelivery, schema, soundness
from watchman.journal.failed_deliveries import failed
from watchman.journal.journal_reader import open_reader
from watchman.journal.partial import PartialFile
from watchman.model import Noted, Route, State, Upload, Version

ROUTE = Route("b", "task", (1,))
PAGE = 4096


def new(path: str, number: int) -> NewDelivery:
    return NewDelivery(f"id {path}", path, None, Version(1, number, 3, 4), 9, ROUTE)


def fill(state: Path, count: int = 3000) -> None:
    journal = Journal(str(state))
    many = [new(f"/up/d{n % 7}/{n}", n) for n in range(count)]
    journal.record(many, [("/up/n", Version(1, 2, 3, 4))])
    journal.note([(n, State.SENT, "") for n in range(1, count + 1) if n % 3])
    journal.note_first_run(["/up"])
    journal.close()
    with sqlite3.connect(state / "journal.db") as connection:
        connection.execute("VACUUM")  # no page is free: whichever is overwritten counts
    connection.close()


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def set_aside(state: Path) -> list[Path]:
    return sorted(state.glob("journal.db.damaged-*[0-9]"))


def test_what_is_no_database_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 1000)
    journal = Journal(str(tmp_path))
    journal.record([new("/up/a", 1)])
    journal.close()
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == b"no database at all" * 1000
    (record,) = [r for r in caplog.records if r.name == "watchman.journal"]
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    assert str(tmp_path / "journal.db") in message
    assert str(aside) in message
    assert "file is not a database" in message


def test_a_journal_that_was_closed_in_order_is_not_read_through(tmp_path: Path) -> None:
    fill(tmp_path)
    size = (tmp_path / "journal.db").stat().st_size
    overwrite(tmp_path / "journal.db", size // PAGE // 2 * PAGE, b"\xff" * PAGE)
    Journal(str(tmp_path)).close()
    assert not set_aside(tmp_path)


@pytest.mark.parametrize("part", range(1, 10))
def test_what_can_be_read_of_a_damaged_journal_goes_on(tmp_path: Path, part: int) -> None:
    fill(tmp_path)
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        # Before that are the roots, and what says what the tables are: nothing is read without.
        (first,) = connection.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()
    connection.close()
    pages = path.stat().st_size // PAGE
    overwrite(path, (first + (pages - first) * part // 10) * PAGE, b"\xff" * PAGE)
    soundness.suspect(str(path))
    journal = Journal(str(tmp_path))
    assert len(set_aside(tmp_path)) == 1
    journal.resume(["/up"])
    assert journal.first_runs(["/up", "/other"]) == {"/other"}
    ready = journal.page_ready("b", 0, 10_000)
    assert len(ready) >= 500  # of 1,000; a page holds some 40
    for delivery in ready:
        assert delivery.seq % 3 == 0
        assert delivery.task_id == f"id {delivery.source}"
        assert delivery.route == ROUTE
    # What is known has a delivery that deals with it, or was only noted.
    seqs = {d.seq for d in ready}
    for n in range(3000):
        known = journal.known.lookup(f"/up/d{n % 7}", [f"{n}"]).get(f"{n}")
        assert known is None or known.seq % 3 or known.seq in seqs
    journal.record([new("/up/later", 1)])
    assert journal.page_ready("b", 0, 10_000)[-1].source == "/up/later"
    journal.close()
    Journal(str(tmp_path)).close()
    assert len(set_aside(tmp_path)) == 1


def test_a_broken_index_costs_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_ready'"
        ).fetchone()
    connection.close()
    overwrite(tmp_path / "journal.db", (page - 1) * PAGE, b"\xff" * PAGE)
    soundness.suspect(str(tmp_path / "journal.db"))
    journal = Journal(str(tmp_path))
    assert len(set_aside(tmp_path)) == 1
    assert len(journal.page_ready("b", 0, 10_000)) == 1000
    assert journal.known.lookup("/up/d1", ["1"])["1"].seq == 2
    assert journal.first_runs(["/up", "/other"]) == {"/other"}
    journal.resume(["/up", "/other"])
    assert journal.first_runs(["/up", "/other"]) == {"/other"}
    journal.close()


def test_sent_again_rather_than_lost(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    """With existing 'new', a fresh journal would otherwise note all that is there as old."""
    upload, state = tmp_path / "upload", tmp_path / "state"
    upload.mkdir()
    config = tmp_path / "config.py"
    config.write_text(
        f"STATE_DIR = {str(state)!r}\n"
        "BROKERS = {'b': 'filesystem://'}\n"
        f"WATCHES = [{{'path': {str(upload)!r}, 'rec': True, 'auto_add': True}}]\n"
        "PATTERNS = [('*', {'broker': 'b', 'task': 't'})]\n"
    )
    first = daemon(config).wait_watching()
    (upload / "sent").write_text("sent")
    before = wait_for_tasks([str(upload / "sent")], lambda: in_directory(state))
    first.kill()
    (upload / "while down").write_text("waiting")
    (state / "journal.db").write_bytes(os.urandom(50_000))
    for suffix in ("-wal", "-shm"):
        (state / f"journal.db{suffix}").unlink()
    daemon(config).wait_watching()
    both = [str(upload / "sent"), str(upload / "while down")]
    after = wait_for_tasks(both, lambda: in_directory(state))
    assert {m.task_id for m in after if m.path == both[0]} == {before[0].task_id}


@pytest.mark.parametrize("instant", range(10))
def test_a_crash_while_it_is_set_aside(
    tmp_path: Path, instant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each renaming: the next start has a sound journal, the old file is kept."""
    fill(tmp_path, 50)
    path = tmp_path / "journal.db"
    path.with_name("journal.db-wal").write_bytes(b"an old log that must never be played back")
    path.with_name("journal.db-shm").write_bytes(b"its index")
    overwrite(path, 0, b"\xff" * 50)
    old = path.read_bytes()
    numbers = iter(range(100))
    real = os.rename

    class Crash(BaseException):
        pass

    def rename(*arguments: str) -> None:
        number = next(numbers)
        if 2 * number == instant:
            raise Crash
        try:
            real(*arguments)
        finally:
            if 2 * number + 1 == instant:
                raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Crash):
            Journal(str(tmp_path))
    journal = Journal(str(tmp_path))
    journal.record([new("/up/later", 1)])
    journal.close()
    assert old in [aside.read_bytes() for aside in set_aside(tmp_path)]
    assert {p.name for p in tmp_path.iterdir() if "damaged" not in p.name} == {"journal.db"}


def test_an_older_schema_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 10)
    now = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", now + 2)
    steps = {
        now: "ALTER TABLE deliveries ADD COLUMN colour TEXT; CREATE TABLE colours (name TEXT)",
        now + 1: "INSERT INTO colours VALUES ('red'); UPDATE deliveries SET colour = 'red'",
    }
    monkeypatch.setattr(schema, "MIGRATIONS", steps | {now + 1: "INSERT INTO nowhere VALUES (1)"})
    with pytest.raises(JournalError, match="nowhere"):
        Journal(str(tmp_path))
    assert version(tmp_path) == now + 1  # the first step is done, and is not done again
    monkeypatch.setattr(schema, "MIGRATIONS", {now + 1: steps[now + 1]})
    journal = Journal(str(tmp_path))
    assert [d.seq for d in journal.page_ready("b", 0, 10)] == [3, 6, 9]
    journal.close()
    assert version(tmp_path) == now + 2
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        colours = connection.execute("SELECT DISTINCT colour FROM deliveries").fetchall()
    connection.close()
    assert colours == [("red",)]


def version(state: Path) -> int:
    with sqlite3.connect(state / "journal.db") as connection:
        (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(number)


def test_every_version_has_a_way_to_the_present() -> None:
    assert set(schema.MIGRATIONS) == set(range(1, schema.SCHEMA_VERSION))


def test_a_first_run_that_was_cut_short_does_not_make_later_files_old(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    assert journal.begin_first_runs(["/up"], 100) == {"/up": 100}
    assert journal.first_runs(["/up"]) == {"/up"}
    assert journal.begin_first_runs(["/up", "/other"], 200) == {"/up": 100, "/other": 200}
    journal.note_first_run(["/up", "/other"])
    assert journal.first_runs(["/up", "/other"]) == set()
    journal.close()


def test_a_file_that_came_back_as_it_was_is_an_arrival(tmp_path: Path) -> None:
    root = tmp_path / "up"
    root.mkdir()
    config = config_for(root, tmp_path / "state")
    with running(config) as (pipeline, publisher):
        (root / "a").write_text("a")
        wait_until(lambda: len(publisher.messages) == 1, 10)
        before = publisher.messages[0].task_id
        # As a sender does that looks while the file is away for a moment:
        (delivery,) = pipeline.journal._page("WHERE seq = ?", (1,))
        pipeline.journal.note([(delivery.seq, State.VANISHED, "the file is gone")])
        pipeline.parts.changed([delivery.source])
        wait_until(lambda: len(publisher.messages) == 2, 10)
        assert publisher.messages[1].task_id == before


def use_all(state: Path, count: int) -> None:
    """Read and write whatever is in a journal, once."""
    journal = Journal(str(state))
    try:
        journal.resume(["/up"])
        journal.first_runs(["/up"])
        journal.known.load_directories()
        for broker in journal.ready_brokers():
            journal.page_ready(broker, 0, 10_000)
        journal.page_strays((), 10_000)
        for number in range(7):
            journal.known.lookup(f"/up/d{number}", map(str, range(count)))
            scan = journal.known.scan(f"/up/d{number}")
            scan.changed({})
            list(scan.maybe_missing())
        journal.record([new(f"/up/later/{number}", number) for number in range(20)])
        journal.note([(number, State.VANISHED, "gone") for number in range(1, count, 9)])
        journal.known.refresh([(f"/up/d{n % 7}/{n}", Version(1, n, 3, 8)) for n in range(count)])
        journal.known.forget_below("/up/d3")
        journal.prune(1 << 62)
    finally:
        journal.close()


def ask_all(state: Path) -> None:
    with open_reader(str(state)) as found:
        found.counts()
        found.summary()
        found.runs()
        found.known("/up/d1")
        history(found, ["/up"], 100)
        list(failed(found))


@pytest.mark.parametrize("number", [0, 77, -5])
def test_where_only_the_schema_has_another_number(tmp_path: Path, number: int) -> None:
    fill(tmp_path, 30)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute(f"PRAGMA user_version = {number}")
    connection.close()
    journal = Journal(str(tmp_path))
    assert len(set_aside(tmp_path)) == 1
    assert len(journal.page_ready("b", 0, 100)) == 10
    assert journal.first_runs(["/up", "/other"]) == {"/other"}
    journal.close()


def remember(state: Path) -> None:
    """Have the journal hold what nothing is lost without."""
    journal = Journal(str(state))
    journal.record([new("/up/a", 1)], [("/up/n", Version(1, 2, 3, 4), Noted.UNASKED)])
    journal.partial.note([PartialFile("/up/half", Version(1, 2, 3, 4, 5), 6, "half")])
    journal.uploads.note(1, Upload("anna", "host", "ftp", 3, 0.5, 7))
    journal.uploads.write({"/var/log/xferlog": (1, 2, 300, b"hash")})
    journal.close()


def sound(state: Path, *statements: str) -> None:
    """Open the journal as one that is damaged, with these values in it; say what is left."""
    connection = sqlite3.connect(state / "journal.db")
    for statement in statements:
        connection.execute(statement)
    connection.execute("UPDATE routes SET arguments = 'no JSON'")  # which is damage by itself
    connection.commit()
    connection.close()
    soundness.suspect(str(state / "journal.db"))


def test_memories_outlast_damage(tmp_path: Path) -> None:
    remember(tmp_path)
    with open_reader(str(tmp_path)) as reader:
        counters, minutes = reader.measures().counters, reader.activity(time.time_ns())
    assert counters["unmatched", "", 0] == 1
    sound(tmp_path)
    journal = Journal(str(tmp_path))
    assert len(set_aside(tmp_path)) == 1
    (half,) = journal.partial.below("/up")
    assert half == PartialFile("/up/half", Version(1, 2, 3, 4, 5), 6, "half")
    assert journal.uploads.of([1])[1].user == "anna"
    assert journal.uploads.position("/var/log/xferlog") == (1, 2, 300, b"hash")
    journal.close()
    with open_reader(str(tmp_path)) as reader:
        assert reader.measures().counters == counters
        assert reader.activity(time.time_ns()) == minutes


def test_memories_of_the_wrong_types_are_left_behind(tmp_path: Path) -> None:
    remember(tmp_path)
    sound(
        tmp_path,
        "UPDATE partial SET since_ns = 'then'",
        'UPDATE transfer_logs SET "offset" = -1',
        "UPDATE activity SET recorded = x'00'",
        "UPDATE counters SET count = -5 WHERE name = 'unmatched'",
    )
    journal = Journal(str(tmp_path))
    assert journal.partial.below("/up") == []
    assert journal.uploads.position("/var/log/xferlog") is None
    journal.close()
    with open_reader(str(tmp_path)) as reader:
        assert set(reader.measures().counters) == {("arrived", "b", 0)}
        assert reader.activity(time.time_ns()) == []


def test_whatever_bytes_are_wrong(tmp_path: Path) -> None:
    """It raises nothing but what has it opened again, and that is of use the first time."""
    fill(tmp_path, 500)
    whole = (tmp_path / "journal.db").read_bytes()
    chance = random.Random(10)
    for number in range(80):
        state = tmp_path / f"{number}"
        state.mkdir()
        (state / "heartbeat").touch()
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3, 10])):
            size = chance.choice([1, 1, 2, 8, 100, PAGE])
            start = chance.choice([chance.randrange(len(data) - size), chance.randrange(100)])
            data[start : start + size] = chance.choice([chance.randbytes(size), bytes(size)])
        (state / "journal.db").write_bytes(data)
        with contextlib.suppress(JournalError):
            ask_all(state)
        if chance.random() < 0.5:
            soundness.clear(str(state / "journal.db"))  # as where another user has asked
        with contextlib.suppress(JournalDamaged):
            use_all(state, 500)
        use_all(state, 500)
