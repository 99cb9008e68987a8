"""When rows that cannot be moved now are tried again; the time is passed in."""

from __future__ import annotations

import itertools

import pytest

from watchman.file_access import Look, Seen
from watchman.model import Delivery, State, Version
from watchman.mover import deferred
from watchman.mover.deferred import NEVER, Backlog, DeferredRows

VERSION = Version(1, 2, 3, 4, 5)
OTHER = VERSION._replace(size=9)


def row(seq: int, source: str = "") -> Delivery:
    path = source or f"/in/{seq}"
    return Delivery(seq, f"task-{seq}", path, "/out/f", VERSION, 0, None, State.MOVING)


def test_the_backlog_is_read_ever_less_often() -> None:
    backlog = Backlog()
    assert backlog.due == NEVER
    assert backlog.take(1e9) is None
    now, waits = 0.0, []
    for _ in range(7):
        backlog.add(8, now)
        backlog.add(5, now + 1)
        assert backlog.take(backlog.due - 0.1) is None
        waits.append(backlog.due - now)
        now = backlog.due
        assert backlog.take(now) == 5
        assert not len(backlog)
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_the_backlog_is_read_soon_when_an_obstacle_is_gone() -> None:
    backlog = Backlog()
    for now in (0.0, 30.0, 90.0):
        backlog.add(1, now)
        if now < 90:
            backlog.take(backlog.due)
    assert backlog.due == 90 + 120
    backlog.retry_soon(100.0)
    assert backlog.due == 130
    assert backlog.take(130.0) == 1
    backlog.add(1, 130.0)
    assert backlog.due == 130 + 60


def test_what_is_in_the_backlog() -> None:
    backlog = Backlog()
    for seq in (7, 3, 5):
        backlog.add(seq, 0.0)
    assert [seq for seq in range(9) if seq in backlog] == [3, 5, 7]
    assert len(backlog) == 3


def test_a_row_that_stays_changed_is_reported_ever_less_often() -> None:
    rows = DeferredRows()
    now, reports = 0.0, []
    for _ in range(100):
        if rows.add_changed(row(1), Look(Seen.COMPLETE, OTHER), now):
            reports.append(now)
        now = rows.next_due
        assert rows.take_due(now) == [1]
    delays = [round(later - earlier, 3) for earlier, later in itertools.pairwise(reports)]
    assert delays[:8] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert set(delays[8:]) == {30.0}


@pytest.mark.parametrize(
    ("look", "is_news"),
    [
        (Look(Seen.COMPLETE, OTHER), False),
        (Look(Seen.COMPLETE, OTHER._replace(size=10)), True),
        (Look(Seen.BUSY, OTHER), True),
        (Look(Seen.GONE), True),
    ],
)
def test_what_is_new_at_the_source_is_reported_at_once(look: Look, is_news: bool) -> None:
    rows = DeferredRows()
    assert rows.add_changed(row(1), Look(Seen.COMPLETE, OTHER), 0.0)
    assert rows.take_due(0.3) == [1]
    assert rows.add_changed(row(1), Look(Seen.COMPLETE, OTHER), 0.3)
    assert rows.take_due(0.69) == []
    rows.retry_soon(0.31)
    assert rows.take_due(0.51) == [1]
    assert rows.add_changed(row(1), look, 0.51) is is_news


def test_a_file_that_grows_is_no_news_again_and_again() -> None:
    rows = DeferredRows()
    assert rows.add_changed(row(1), Look(Seen.BUSY, OTHER), 0.0)
    assert rows.take_due(1.0) == [1]
    assert rows.add_changed(row(1), Look(Seen.BUSY, OTHER), 1.0)
    rows.retry_soon(1.0)
    assert rows.take_due(1.2) == [1]
    assert not rows.add_changed(row(1), Look(Seen.BUSY, OTHER._replace(size=99)), 1.2)


def test_rows_wait_for_the_obstacle_that_they_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "MOST", 3)
    rows = DeferredRows()
    rows.add(row(1), "a", 10.0)
    rows.add(row(2), "b", 20.0)
    assert (len(rows), rows.room(), rows.next_due) == (2, 1, 10.0)
    assert rows.keys() == {"a", "b"}
    rows.release({"b"})
    assert rows.take_due(1.0) == [2]
    assert rows.keys() == {"a", "b"}  # it is being tried again
    rows.forget([2])
    assert rows.keys() == {"a"}
    assert rows.take_due(9.9) == []
    assert rows.take_due(10.0) == [1]


def test_a_newer_delivery_of_the_source_brings_a_row_forward() -> None:
    rows = DeferredRows()
    rows.add(row(1, "/in/f"), "a", 100.0)
    rows.supersede([row(2, "/in/g"), row(3, "/in/f")])
    assert rows.is_superseded(1)
    assert rows.take_due(0.0) == [1]
    rows.forget([1])
    assert not rows.is_superseded(1)
