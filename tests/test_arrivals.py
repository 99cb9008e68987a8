"""Completeness, with time and observations passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchman.arrivals import (
    EMPTY_AGE,
    FIRST_DELAY,
    LONGEST_DELAY,
    UNTESTED_SETTLE,
    Arrivals,
)
from watchman.filesystem import GONE, OTHER, Look, Seen
from watchman.model import Version

SECOND = 1_000_000_000


def seen(kind: Seen, size: int = 1, mtime_ns: int = 0, changed_ns: int = 0) -> Look:
    return Look(kind, Version(1, 1, size, mtime_ns, changed_ns))


class Clock:
    """Asks about one file at times of its own."""

    def __init__(self, settle: float | None = None) -> None:
        self.arrivals: Arrivals[str] = Arrivals()
        self.settle = settle

    def ask(self, now: float, look: Look, *, closed: bool = False) -> bool:
        return self.arrivals.complete(
            "f", look, now, int(now * SECOND), closed=closed, settle=self.settle
        )


def test_a_free_file_is_complete_at_once() -> None:
    clock = Clock()
    assert clock.ask(0.0, seen(Seen.COMPLETE))
    assert not len(clock.arrivals)


def test_what_is_gone_or_no_file_is_never_complete_and_not_waited_for() -> None:
    clock = Clock()
    assert not clock.ask(0.0, seen(Seen.BUSY))
    for look in (GONE, OTHER):
        assert not clock.ask(1.0, look)
        assert not len(clock.arrivals)


def test_close_write_comes_before_the_writer_lets_go() -> None:
    """No event follows a lease test that came too soon, so the file is looked at again."""
    clock = Clock()
    assert not clock.ask(0.0, seen(Seen.BUSY, size=0), closed=True)
    assert clock.arrivals.due(0.0) == []
    assert clock.arrivals.due(FIRST_DELAY) == ["f"]
    assert clock.ask(FIRST_DELAY, seen(Seen.COMPLETE, size=0))


@given(st.integers(1, 60))
def test_a_busy_file_is_looked_at_for_ever_and_ever_less_often(times: int) -> None:
    clock = Clock()
    now = 0.0
    delays = []
    for _ in range(times):
        assert not clock.ask(now, seen(Seen.BUSY))
        due = clock.arrivals.next_due()
        assert due is not None
        delays.append(round(due - now, 6))
        now = due
        assert clock.arrivals.due(now) == ["f"]
    assert delays == sorted(delays)
    assert max(delays) <= LONGEST_DELAY * 1.0001
    assert clock.ask(now, seen(Seen.COMPLETE))


def test_create_comes_before_the_writer_takes_hold() -> None:
    """An empty file that nobody closed may be one that is about to be written."""
    clock = Clock()
    fresh = seen(Seen.COMPLETE, size=0, changed_ns=100 * SECOND)
    assert not clock.ask(100.0, fresh)
    assert clock.arrivals.next_due() == 100.0 + EMPTY_AGE
    assert not clock.ask(100.5, fresh)
    assert clock.ask(100.0 + EMPTY_AGE, fresh)


def test_an_old_empty_file_is_complete() -> None:
    assert Clock().ask(100.0, seen(Seen.COMPLETE, size=0, changed_ns=90 * SECOND))


def test_a_closed_empty_file_is_complete() -> None:
    assert Clock().ask(100.0, seen(Seen.COMPLETE, size=0, changed_ns=100 * SECOND), closed=True)


def test_settle_counts_from_the_last_change() -> None:
    clock = Clock(settle=5.0)
    assert not clock.ask(0.0, seen(Seen.COMPLETE, mtime_ns=1), closed=True)
    assert not clock.ask(4.0, seen(Seen.COMPLETE, mtime_ns=2), closed=True)
    assert not clock.ask(8.9, seen(Seen.COMPLETE, mtime_ns=2))
    assert clock.arrivals.due(8.99) == []
    assert clock.arrivals.due(9.0) == ["f"]
    assert clock.ask(9.0, seen(Seen.COMPLETE, mtime_ns=2))


def test_a_writer_restarts_the_settle_rule() -> None:
    clock = Clock(settle=5.0)
    assert not clock.ask(0.0, seen(Seen.COMPLETE, mtime_ns=1))
    assert not clock.ask(4.0, seen(Seen.BUSY, mtime_ns=1))
    assert not clock.ask(6.0, seen(Seen.COMPLETE, mtime_ns=1))
    assert clock.ask(11.0, seen(Seen.COMPLETE, mtime_ns=1))


def test_without_the_lease_test_the_settle_rule_decides() -> None:
    clock = Clock()
    assert not clock.ask(0.0, seen(Seen.UNTESTED), closed=True)
    assert not clock.ask(UNTESTED_SETTLE - 0.1, seen(Seen.UNTESTED))
    assert clock.ask(UNTESTED_SETTLE, seen(Seen.UNTESTED))


def test_without_the_lease_test_a_watch_may_trust_the_close() -> None:
    assert Clock(settle=0.0).ask(0.0, seen(Seen.UNTESTED), closed=True)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=40),
    st.floats(0, 20),
)
def test_due_returns_each_waiting_file_once(asked: list[tuple[str, float]], now: float) -> None:
    arrivals: Arrivals[str] = Arrivals()
    clock = 0.0
    for key, step in asked:
        clock += step
        arrivals.complete(key, seen(Seen.BUSY), clock, 0, closed=False, settle=None)
    due = arrivals.due(clock + now + LONGEST_DELAY * 2)
    assert sorted(due) == sorted({key for key, _ in asked})
    assert arrivals.due(clock + now + LONGEST_DELAY * 2) == []
