"""What recorded times tell when the clock was set back."""

from __future__ import annotations

import time

import pytest

from watchman.clock import Begun, ClockSteps, is_recent, latest

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("times", "last"),
    [
        ([], 0), ([0], 0), ([5, 7], 7), ([10], 10), ([5, 11], 5), ([0, 11], 11), ([12, 11], 12),
        ([-5], -5), ([-5, 11], -5),
    ],
)  # fmt: skip
def test_the_last_of_some_times(times: list[int], last: int) -> None:
    assert latest(times, 10) == last


@pytest.mark.parametrize(
    ("ago_ns", "recent"),
    [(0, True), (2 * SECOND - 1, True), (2 * SECOND, False), (-1, False), (-(1 << 62), False)],
)
def test_the_future_is_not_recent(ago_ns: int, recent: bool) -> None:
    now = 1_800_000_000 * SECOND
    assert is_recent(now - ago_ns, now, 2.0) is recent


def test_how_long_something_lasts_is_no_matter_of_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, steps, true = Begun(), ClockSteps(), time.time_ns
    assert steps.look() == 0
    for hours in (-1, 2):
        monkeypatch.setattr(time, "time_ns", lambda: true() + hours * 3600 * SECOND)  # noqa: B023 — at once
        assert 0 <= begun.seconds < 60
        assert round(steps.look() / SECOND) == hours * 3600
        assert steps.look() == steps.ns
