"""Times as people write them, one row each; whatever else is typed is an error in one line."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.commands import times
from watchman.commands.times import FIRST, LAST, since, until
from watchman.text import iso, moment

NOW = datetime.datetime(2026, 11, 26, 15, 30, 20, 500_000)
DAY = 86_400
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def _in_amsterdam(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(times, "_now", lambda: NOW)
    with monkeypatch.context() as patch:
        patch.setitem(os.environ, "TZ", "Europe/Amsterdam")
        time.tzset()
        yield
    time.tzset()


def ns(text: str) -> int:
    """Return a time in UTC in ns."""
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000) * 1_000_000


@pytest.mark.parametrize(
    ("text", "begin", "seconds"),
    [
        ("14:05", "2026-11-26 13:05:00", 1),
        ("9:05", "2026-11-26 08:05:00", 1),
        ("14:05:07", "2026-11-26 13:05:07", 1),
        ("today 14:05", "2026-11-26 13:05:00", 1),
        ("15:30:20", "2026-11-26 14:30:20", 1),
        ("15:31", "2026-11-25 14:31:00", 1),  # that has not been yet today
        ("today 15:31", "2026-11-26 14:31:00", 1),
        ("yesterday 14:05", "2026-11-25 13:05:00", 1),
        ("today", "2026-11-25 23:00:00", DAY),
        ("yesterday", "2026-11-24 23:00:00", DAY),
        ("Yesterday", "2026-11-24 23:00:00", DAY),
        ("monday", "2026-11-22 23:00:00", DAY),
        ("wednesday", "2026-11-24 23:00:00", DAY),
        ("thursday", "2026-11-18 23:00:00", DAY),  # the last one before today
        ("2026-11-25", "2026-11-24 23:00:00", DAY),
        ("2026-03-29", "2026-03-28 23:00:00", 23 * 3600),  # when summer time begins
        ("2026-10-25", "2026-10-24 22:00:00", 25 * 3600),
        ("2026-11-25T14:30", "2026-11-25 13:30:00", 1),
        ("2026-11-25 14:30", "2026-11-25 13:30:00", 1),
        ("2026-11-25t14:30:05", "2026-11-25 13:30:05", 1),
        ("2026-11-25T14:30:05Z", "2026-11-25 14:30:05", 1),
        ("2026-11-25T14:30:05+05:30", "2026-11-25 09:00:05", 1),
        ("now", "2026-11-26 14:30:20.500", 0),
        ("2h", "2026-11-26 12:30:20.500", 0),
        ("2 hours ago", "2026-11-26 12:30:20.500", 0),
        ("90 min", "2026-11-26 13:00:20.500", 0),
        ("30s", "2026-11-26 14:29:50.500", 0),
        ("5m", "2026-11-26 14:25:20.500", 0),
        ("3d", "2026-11-23 14:30:20.500", 0),
        ("1 week ago", "2026-11-19 14:30:20.500", 0),
    ],
)
def test_a_time_has_a_beginning_and_an_end(text: str, begin: str, seconds: int) -> None:
    assert since(text) == ns(begin)
    assert until(text) == ns(begin) + seconds * SECOND - (1 if seconds else 0)


def test_two_hours_are_two_hours_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = datetime.datetime(2026, 10, 25, 3, 30)
    monkeypatch.setattr(times, "_now", lambda: night)
    assert since("2h") == ns("2026-10-25 00:30:00")


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        # What a report shows of the second time is meant as well as the first.
        ("2026-10-25 02:30", "2026-10-25 00:30:00", "2026-10-25 01:30:01"),
        ("2026-10-25 01:59:59", "2026-10-24 23:59:59", "2026-10-25 00:00:00"),
        ("2026-10-25 02:59:59", "2026-10-25 00:59:59", "2026-10-25 02:00:00"),
        # There was no such time: half past one may be meant, or half past three.
        ("2026-03-29 02:30", "2026-03-29 00:30:00", "2026-03-29 01:30:01"),
    ],
)
def test_a_time_that_was_twice_is_meant_each_time(text: str, begin: str, end: str) -> None:
    assert since(text) == ns(begin)
    assert until(text) == ns(end) - 1


def test_a_day_ends_once_where_its_midnight_was_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # Undone before the fixture's is: that one's zone would be left for the tests that follow.
    with monkeypatch.context() as patch:
        patch.setitem(os.environ, "TZ", "America/Havana")
        time.tzset()
        assert until("2026-10-31") == ns("2026-11-01 04:00:00") - 1
        assert since("2026-11-01") == ns("2026-11-01 04:00:00")


def test_a_fraction_of_a_second_counts_as_a_beginning_alone() -> None:
    assert since("1970-01-01T00:00:01.5Z") == SECOND + SECOND // 2
    assert until("1970-01-01T00:00:01.5Z") == 2 * SECOND - 1


@pytest.mark.parametrize("text", ["0001-01-01", "0001-01-01T00:00Z"])
def test_before_what_can_be_compared(text: str) -> None:
    assert since(text) == until(text) == FIRST


@pytest.mark.parametrize("text", ["9999-12-31", "9999-12-31T23:59:59Z"])
def test_after_what_can_be_compared(text: str) -> None:
    assert since(text) == until(text) == LAST


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "next year", "tomorrow", "10", "14", "25:00", "14:60", "14:05:60", "1:5",
        "2026-13-01", "2026-02-30", "2026-11-26T25:00", "20261126", "2026-W48-4", "26-11-26",
        "11/26/2026", "Z", "2 fortnights", "-2h", "2.5h", "h", "999999999 weeks", "٣h", "\udcff",
        "yesterday 25:00", "2026-11-26T14:30 Europe/Berlin", "\x1b[2J",
    ],
)  # fmt: skip
def test_what_is_no_time_is_said_in_one_line(text: str) -> None:
    for read in (since, until):
        with pytest.raises(click.BadParameter) as error:
            read(text)
        assert error.value.message.isprintable()
        assert error.value.message.startswith(f"{text!a} is no time; write one like 14:05, ")


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    try:
        found = since(text)
    except click.BadParameter:
        return
    assert FIRST <= found <= until(text) <= LAST


@given(st.integers(FIRST + SECOND, LAST - SECOND))
def test_what_reports_show_of_a_time_means_it(ns: int) -> None:
    shown = iso(ns)
    assert shown is not None
    assert ns - 1000 < since(shown) <= ns <= until(shown)


def test_a_time_is_shown_as_the_second_that_it_is_in() -> None:
    assert moment(ns("2026-11-26 14:30:20") + SECOND - 1) == "2026-11-26 15:30:20"
