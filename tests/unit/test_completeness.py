"""Whether files are complete and directories finished, with time and observations passed in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.completeness import (
    EMPTY_AGE,
    FIRST_DELAY,
    LONGEST_DELAY,
    UNTESTED_SETTLE,
    IncompleteFiles,
    UnfinishedDirectories,
)
from watchman.coverage import is_unfinished
from watchman.file_access import GONE, OTHER, Look, Seen
from watchman.model import Version
from watchman.sources.directory_version import Contents

SECOND = 1_000_000_000
QUIET = Contents(3, 100, 5, 5)


def seen(kind: Seen, size: int = 1, mtime_ns: int = 0, changed_ns: int = 0) -> Look:
    return Look(kind, Version(1, 1, size, mtime_ns, changed_ns))


class Clock:
    """Asks about one file at times of its own."""

    def __init__(self, settle: float | None = None) -> None:
        self.files: IncompleteFiles[str] = IncompleteFiles()
        self.settle = settle

    def ask(self, now: float, look: Look, *, closed: bool = False) -> bool:
        return self.files.complete(
            "f", look, now, int(now * SECOND), closed=closed, settle=self.settle
        )


def test_a_free_file_is_complete_at_once() -> None:
    clock = Clock()
    assert clock.ask(0.0, seen(Seen.COMPLETE))
    assert not len(clock.files)


def test_what_is_gone_or_no_file_is_never_complete_and_not_waited_for() -> None:
    clock = Clock()
    assert not clock.ask(0.0, seen(Seen.BUSY))
    for look in (GONE, OTHER):
        assert not clock.ask(1.0, look)
        assert not len(clock.files)


def test_close_write_comes_before_the_writer_lets_go() -> None:
    """No event follows a lease test that came too soon, so the file is looked at again."""
    clock = Clock()
    assert not clock.ask(0.0, seen(Seen.BUSY, size=0), closed=True)
    assert clock.files.due(0.0) == []
    assert clock.files.due(FIRST_DELAY) == ["f"]
    assert clock.ask(FIRST_DELAY, seen(Seen.COMPLETE, size=0))


@given(st.integers(1, 60))
def test_a_busy_file_is_looked_at_for_ever_and_ever_less_often(times: int) -> None:
    clock = Clock()
    now = 0.0
    delays = []
    for _ in range(times):
        assert not clock.ask(now, seen(Seen.BUSY))
        due = clock.files.next_due()
        assert due is not None
        delays.append(round(due - now, 6))
        now = due
        assert clock.files.due(now) == ["f"]
    assert delays == sorted(delays)
    assert max(delays) <= LONGEST_DELAY * 1.0001
    assert clock.ask(now, seen(Seen.COMPLETE))


def test_create_comes_before_the_writer_takes_hold() -> None:
    """An empty file that nobody closed may be one that is about to be written."""
    clock = Clock()
    fresh = seen(Seen.COMPLETE, size=0, changed_ns=100 * SECOND)
    assert not clock.ask(100.0, fresh)
    assert clock.files.next_due() == 100.0 + EMPTY_AGE
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
    assert clock.files.due(8.99) == []
    assert clock.files.due(9.0) == ["f"]
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
    files: IncompleteFiles[str] = IncompleteFiles()
    clock = 0.0
    for key, step in asked:
        clock += step
        files.complete(key, seen(Seen.BUSY), clock, 0, closed=False, settle=None)
    due = files.due(clock + now + LONGEST_DELAY * 2)
    assert sorted(due) == sorted({key for key, _ in asked})
    assert files.due(clock + now + LONGEST_DELAY * 2) == []


# Directories


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [
        ("test_notfinished.tmp1234", True),
        ("a.tmp", True),
        (".tmp", True),
        ("a.tmp.b", True),
        ("tmp", False),
        ("a.TMP", False),
        ("test_finished", False),
        ("a.dcm", False),
    ],
)
def test_default_names(name: str, unfinished: bool) -> None:
    assert is_unfinished(name, ("*.tmp*",)) is unfinished


def test_no_patterns_no_unfinished_names() -> None:
    assert not is_unfinished("a.tmp", ())


def test_a_name_alone_is_enough() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    assert directories.finished("a", 0.0, marked=True, settle=0, inside=None)
    assert len(directories) == 0


def test_the_marker_is_waited_for_without_a_clock() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    assert not directories.finished("a", 0.0, marked=False, settle=0, inside=None)
    assert "a" in directories
    assert directories.next_due() is None
    assert directories.finished("a", 9.0, marked=True, settle=0, inside=None)
    assert "a" not in directories


def test_a_change_starts_the_quiet_again() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    assert not directories.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    assert directories.due(4.9) == []
    assert directories.due(5.0) == ["a"]
    assert not directories.finished(
        "a", 5.0, marked=True, settle=5, inside=replace(QUIET, size=101)
    )
    assert directories.next_due() == 10.0
    assert directories.finished("a", 10.0, marked=True, settle=5, inside=replace(QUIET, size=101))


def test_an_open_writer_is_no_quiet() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    busy = replace(QUIET, busy=True)
    assert not directories.finished("a", 0.0, marked=True, settle=5, inside=busy)
    assert not directories.finished("a", 6.0, marked=True, settle=5, inside=busy)
    assert not directories.finished("a", 8.0, marked=True, settle=5, inside=QUIET)
    assert directories.finished("a", 13.0, marked=True, settle=5, inside=QUIET)


def test_a_marker_that_goes_away_starts_over() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    assert not directories.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    assert not directories.finished("a", 1.0, marked=False, settle=5, inside=None)
    assert directories.due(100.0) == []
    assert not directories.finished("a", 101.0, marked=True, settle=5, inside=QUIET)


def test_what_is_forgotten_is_never_due() -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    directories.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    directories.forget("a")
    assert directories.due(100.0) == []


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=60
    ),
    st.floats(0.5, 5),
)
def test_never_finished_before_the_quiet_is_over(
    looks: list[tuple[float, int, bool]], settle: float
) -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    now, since, before = 0.0, 0.0, None
    for pause, size, busy in looks:
        now += pause
        inside = Contents(1, size, 0, 0, busy)
        if inside != before or busy:
            since, before = now, inside
        done = directories.finished("a", now, marked=True, settle=settle, inside=inside)
        assert done == (now - since >= settle)
        if done:
            before = None
        else:
            due = directories.next_due()
            assert due is not None
            assert due <= now + settle


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.01, 3)), max_size=40))
def test_whatever_waits_for_quiet_becomes_due(steps: list[tuple[str, float]]) -> None:
    directories: UnfinishedDirectories[str] = UnfinishedDirectories()
    now = 0.0
    for key, pause in steps:
        now += pause
        directories.finished(key, now, marked=True, settle=2.0, inside=QUIET)
    waiting = {key for key in "abcd" if key in directories}
    assert set(directories.due(now + 2.0)) == waiting
