"""A journal that an older version of watchman wrote goes on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.journals import counts
from watchman.journal import Journal, NewDelivery, soundness
from watchman.journal.history import history
from watchman.journal.reading import reading
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
    (moving,) = journal.page_moving(0, 10)
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
    with reading(str(state)) as found:
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
    assert [row.seq for row in journal.page_moving(0, 10)] == [3]
    journal.close()
