"""What is counted of each minute, and for how long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman.journal import Journal, NewDelivery, activity, schema
from watchman.journal.activity import SLOTS, Minute
from watchman.journal.journal_reader import open_reader
from watchman.model import Route, State, Version

MINUTE = 60_000_000_000
NOW = 30_000_000 * MINUTE + 7


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(made)
    yield made
    made.close()


def test_a_day_is_kept_and_takes_no_more_room(connection: sqlite3.Connection) -> None:
    for minute in range(3 * SLOTS):
        activity.add(connection, NOW - minute * MINUTE, recorded=1)
    for minute in reversed(range(SLOTS)):
        activity.add(connection, NOW - minute * MINUTE, recorded=minute + 1)
        activity.add(connection, NOW - minute * MINUTE, sent=2)
    found = activity.read(connection, NOW)
    assert len(found) == SLOTS >= 24 * 60
    assert found[-1] == Minute(NOW // MINUTE * MINUTE, 1, 2)
    assert [minute.recorded for minute in found] == list(range(SLOTS, 0, -1))
    assert connection.execute("SELECT count(*) FROM activity").fetchone() == (SLOTS,)


def test_what_is_older_or_of_the_future_is_left_out(connection: sqlite3.Connection) -> None:
    activity.add(connection, NOW + MINUTE, recorded=1)
    activity.add(connection, NOW - SLOTS * MINUTE - MINUTE, sent=1)
    assert activity.read(connection, NOW) == []


def test_the_journal_counts_what_it_records_and_what_was_sent(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    route = Route("b", "task")
    news = [
        NewDelivery(f"id-{n}", f"/up/{n}", None, Version(1, n, 2, 3), n, route) for n in range(1, 6)
    ]
    journal.record(news[:3])
    journal.record(news[3:])
    journal.note([(1, State.SENT, ""), (2, State.SENT, ""), (3, State.FAILED, "refused")])
    journal.note([], ready_for="b")
    with open_reader(str(tmp_path)) as found:
        minutes = found.activity(NOW * 10)
        latest = connection_minute(found.connection)
    assert minutes == []  # far in the future: nothing of that day
    assert latest == (5, 2)
    journal.close()


def connection_minute(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return all that was counted: the test may run across the end of a minute."""
    return tuple(connection.execute("SELECT sum(recorded), sum(sent) FROM activity").fetchone())
