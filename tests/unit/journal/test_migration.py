"""A journal that an older version of watchman wrote goes on."""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journals import counts, history
from watchman.errors import JournalError
from watchman.journal import Journal, NewDelivery, migration, schema, soundness
from watchman.journal.journal_reader import open_reader
from watchman.model import Route, State, Version

# What version 1 made; never to be changed.
VERSION_1 = """
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, source BLOB NOT NULL, final BLOB,
    device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, arrived_ns INTEGER NOT NULL, broker TEXT,
    route INTEGER REFERENCES routes (id), kind TEXT NOT NULL, state INTEGER NOT NULL,
    noted_ns INTEGER NOT NULL, reason TEXT
);
CREATE INDEX deliveries_moving ON deliveries (seq) WHERE state = 1;
CREATE INDEX deliveries_ready ON deliveries (broker, seq) WHERE state = 2;
CREATE INDEX deliveries_failed ON deliveries (seq) WHERE state = 4;
CREATE TABLE routes (
    id INTEGER PRIMARY KEY, broker TEXT NOT NULL, task TEXT NOT NULL, arguments TEXT NOT NULL,
    UNIQUE (broker, task, arguments)
);
CREATE TABLE directories (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE known (
    directory INTEGER NOT NULL, name BLOB NOT NULL, device INTEGER NOT NULL,
    inode INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (directory, name)
) WITHOUT ROWID;
CREATE TABLE watches (path BLOB PRIMARY KEY, first_run_ns INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO routes VALUES (1, 'b', 'task', '[[], {}, {}]');
INSERT INTO directories VALUES (1, CAST('/up' AS BLOB));
INSERT INTO watches VALUES (CAST('/up' AS BLOB), 5);
PRAGMA user_version = 1;
"""
ROUTE = Route("b", "task", (), {}, {})


DELIVERY = "INSERT INTO deliveries VALUES (?,?,?,?,1,?,3,4,5,'b',1,'files',?,6,NULL)"
KNOWN = "INSERT INTO known VALUES (1,?,1,?,3,4,?)"
Row = tuple[int, str, bytes, bytes | None, int, int]


def delivery(seq: int, name: str, state: State, final: bytes | None = None) -> Row:
    return seq, name, f"/up/{name}".encode(), final, seq, int(state)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A journal of version 1: three rows of one id under way, and one of each other kind."""
    rows = [
        delivery(1, "sent", State.SENT),
        delivery(2, "ready", State.READY),
        delivery(3, "moving", State.MOVING, b"/store/moving"),
        delivery(4, "failed", State.FAILED),
        delivery(5, "ready", State.READY),
        delivery(6, "moving", State.MOVING, b"/store/moving"),
        delivery(7, "ready", State.READY),
        delivery(8, "sent", State.SENT),
    ]
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.executemany(DELIVERY, rows)
    connection.executemany(KNOWN, [(b"sent", 8, 8), (b"ready", 7, 7), (b"moving", 6, 6)])
    connection.close()
    return tmp_path


def test_version_1_goes_on(state: Path) -> None:
    journal = Journal(str(state))
    (ready,) = journal.page_ready("b", 0, 10)
    (moving,) = journal.page_strays((), 10)
    assert (ready.seq, ready.task_id, ready.source, ready.route) == (2, "ready", "/up/ready", ROUTE)
    assert (moving.seq, moving.final) == (3, "/store/moving")
    assert ready.version == Version(1, 2, 3, 4, 0)
    assert counts(journal) == {
        ("b", State.SENT): (2, 5),
        ("b", State.READY): (1, 5),
        ("b", State.MOVING): (1, 5),
        ("b", State.FAILED): (1, 5),
        ("b", State.VANISHED): (3, 5),
    }
    # What is known is the delivery that goes on.
    assert {n: k.seq for n, k in journal.known.lookup("/up", ["ready", "moving"]).items()} == {
        "ready": 2,
        "moving": 3,
    }
    assert journal.first_runs(["/up", "/other"]) == {"/other"}
    journal.record([NewDelivery("new", "/up/new", None, Version(1, 2, 3, 4, 5), 9, ROUTE)])
    assert journal.page_ready("b", 2, 10)[0].version.changed_ns == 5
    journal.close()
    with open_reader(str(state)) as found:
        reasons = {record.seq: record.reason for record in history(found, ["/up/ready"], 9)}
    assert reasons == {
        2: "",
        5: "it was on its way already",
        7: "it was on its way already",
    }
    Journal(str(state)).close()


def test_what_is_migrated_is_what_is_made_anew(state: Path, tmp_path: Path) -> None:
    Journal(str(state)).close()
    connection = sqlite3.connect(state / "journal.db")
    soundness.check_tables(connection)
    connection.close()


def test_one_that_is_damaged_is_saved_and_goes_on(state: Path) -> None:
    soundness.suspect(str(state / "journal.db"), "met by the one before")
    journal = Journal(str(state))
    assert [row.seq for row in journal.page_ready("b", 0, 10)] == [2]
    assert [row.seq for row in journal.page_strays((), 10)] == [3]
    journal.close()


def test_one_that_is_not_up_to_date_yet_is_told(state: Path) -> None:
    said = pytest.raises(JournalError, match="brought up to date when this one starts")
    with said, open_reader(str(state)):
        pytest.fail("it was opened")


COUNT = 5_000


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A journal of version 1 with a past, where every tenth has the id of the one before."""
    top = tmp_path / "long"
    top.mkdir()
    rows = []
    for n in range(1, COUNT + 1):
        first = n - 1 if n % 10 == 0 else n
        state = (State.SENT, State.READY, State.FAILED)[(n + 1) // 10 % 3]
        rows.append(delivery(n, f"{first:07d}", state))
    connection = sqlite3.connect(top / "journal.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(f"{VERSION_1} BEGIN")
    connection.executemany(DELIVERY, rows)
    connection.executemany(KNOWN, [(one[2].rpartition(b"/")[2], 1, 1) for one in rows[10::20]])
    connection.execute("COMMIT")
    connection.close()
    return top


def content(state_dir: Path) -> list[list[tuple[object, ...]]]:
    Journal(str(state_dir)).close()
    connection = sqlite3.connect(state_dir / "journal.db")
    try:
        tables = ("deliveries", "known", "tallies", "watches", "routes", "moves", "directories")
        return [
            [
                connection.execute("PRAGMA user_version").fetchone(),
                *connection.execute("SELECT name FROM sqlite_master ORDER BY name"),
            ],
            *(connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables),  # noqa: S608 — these
        ]
    finally:
        connection.close()


KILLED = """
import os, sys
from watchman.journal import Journal, migration

at = float(sys.argv[2])
migration._LOOK, calls, look = 1000, 0, migration._MigrationProgress.look

def looking(self):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), 9)
    return look(self)

migration._MigrationProgress.look = looking
done = migration._MigrationProgress.has_done

def doing(self, version):
    if at == version / 10:
        os.kill(os.getpid(), 9)
    done(self, version)

migration._MigrationProgress.has_done = doing
Journal(sys.argv[1]).close()
print(calls)
"""


def run_killed(state_dir: Path, at: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(state_dir), str(at)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_killed_at_any_instant_it_begins_again_without_loss(long: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(long, whole)
    done = run_killed(whole, 0)
    assert done.returncode == 0, done
    looks = int(done.stdout)
    assert looks > 100
    expected = content(whole)
    assert expected[0][0] == (schema.SCHEMA_VERSION,)
    # Through each part of it, and behind each commit.
    instants = (*range(1, looks + 1, looks // 4), looks, 0.1, 0.3)
    for number, at in enumerate(instants):
        killed = tmp_path / f"killed-{number}"
        shutil.copytree(long, killed)
        assert run_killed(killed, at).returncode == -signal.SIGKILL
        # Once more, somewhere else: what is left of a transaction is no obstacle either.
        run_killed(killed, looks // 3)
        assert content(killed) == expected, at


def test_how_far_it_is_is_said(
    long: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_LOOK", 2_500)
    monkeypatch.setattr(migration, "_AGAIN", 0.0)
    caplog.set_level(logging.INFO, "watchman.journal")
    Journal(str(long)).close()
    path = long / "journal.db"
    first, *lines, last = [record.getMessage() for record in caplog.records]
    assert first.startswith(
        f"The journal {path} is of an older watchman (schema 1) and is brought up to date (schema "
        f"{schema.SCHEMA_VERSION})."
    )
    assert last.startswith(f"The journal {path} is up to date after ")
    words = f"The journal {path} is brought up to date: about "
    assert {line[: len(words)] for line in lines} == {words}
    percents = [int(line[len(words) :].split()[0]) for line in lines]
    assert percents == sorted(percents)
    assert percents[0] <= 5
    assert 80 <= percents[-1] <= 99
    caplog.clear()
    Journal(str(long)).close()
    assert caplog.records == []


def test_a_stop_is_not_held_up(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "_LOOK", 2_500)
    before = (long / "journal.db").read_bytes()
    asked: list[int] = []

    def give_up() -> bool:
        asked.append(1)
        return len(asked) == 20

    with pytest.raises(JournalError, match="stopped while the journal"):
        Journal(str(long), give_up)
    assert len(asked) == 20
    assert (long / "journal.db").read_bytes() == before
    journal = Journal(str(long))
    assert sum(number for number, _ in counts(journal).values()) == COUNT
    journal.close()
