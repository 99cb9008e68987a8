"""What recorded times tell when the clock was set back."""

from __future__ import annotations

import pytest

from watchman.clock import is_recent, latest

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
