"""Whether a directory is finished: decided from what was seen and the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.coverage import is_unfinished
from watchman.finished import Inside, Settling

QUIET = Inside(3, 100, 5, 5)


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
    settling: Settling[str] = Settling()
    assert settling.finished("a", 0.0, marked=True, settle=0, inside=None)
    assert len(settling) == 0


def test_the_marker_is_waited_for_without_a_clock() -> None:
    settling: Settling[str] = Settling()
    assert not settling.finished("a", 0.0, marked=False, settle=0, inside=None)
    assert "a" in settling
    assert settling.next_due() is None
    assert settling.finished("a", 9.0, marked=True, settle=0, inside=None)
    assert "a" not in settling


def test_a_change_starts_the_quiet_again() -> None:
    settling: Settling[str] = Settling()
    assert not settling.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    assert settling.due(4.9) == []
    assert settling.due(5.0) == ["a"]
    assert not settling.finished("a", 5.0, marked=True, settle=5, inside=QUIET._replace(size=101))
    assert settling.next_due() == 10.0
    assert settling.finished("a", 10.0, marked=True, settle=5, inside=QUIET._replace(size=101))


def test_an_open_writer_is_no_quiet() -> None:
    settling: Settling[str] = Settling()
    busy = QUIET._replace(busy=True)
    assert not settling.finished("a", 0.0, marked=True, settle=5, inside=busy)
    assert not settling.finished("a", 6.0, marked=True, settle=5, inside=busy)
    assert not settling.finished("a", 8.0, marked=True, settle=5, inside=QUIET)
    assert settling.finished("a", 13.0, marked=True, settle=5, inside=QUIET)


def test_a_marker_that_goes_away_starts_over() -> None:
    settling: Settling[str] = Settling()
    assert not settling.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    assert not settling.finished("a", 1.0, marked=False, settle=5, inside=None)
    assert settling.due(100.0) == []
    assert not settling.finished("a", 101.0, marked=True, settle=5, inside=QUIET)


def test_what_is_forgotten_is_never_due() -> None:
    settling: Settling[str] = Settling()
    settling.finished("a", 0.0, marked=True, settle=5, inside=QUIET)
    settling.forget("a")
    assert settling.due(100.0) == []


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=60
    ),
    st.floats(0.5, 5),
)
def test_never_finished_before_the_quiet_is_over(
    looks: list[tuple[float, int, bool]], settle: float
) -> None:
    settling: Settling[str] = Settling()
    now, since, before = 0.0, 0.0, None
    for pause, size, busy in looks:
        now += pause
        inside = Inside(1, size, 0, 0, busy)
        if inside != before or busy:
            since, before = now, inside
        done = settling.finished("a", now, marked=True, settle=settle, inside=inside)
        assert done == (now - since >= settle)
        if done:
            before = None
        else:
            due = settling.next_due()
            assert due is not None
            assert due <= now + settle


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.01, 3)), max_size=40))
def test_whatever_waits_for_quiet_becomes_due(steps: list[tuple[str, float]]) -> None:
    settling: Settling[str] = Settling()
    now = 0.0
    for key, pause in steps:
        now += pause
        settling.finished(key, now, marked=True, settle=2.0, inside=QUIET)
    waiting = {key for key in "abcd" if key in settling}
    assert set(settling.due(now + 2.0)) == waiting
