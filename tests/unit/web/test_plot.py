"""Bars: as high as what they stand for, and no more of them than there is room."""

from __future__ import annotations

import re

from watchman.journal.activity import Minute
from watchman.web.plot import plot

MINUTE = 60_000_000_000
NOW = 30_000_000 * MINUTE + 59_000_000_000


def shapes(svg: str, kind: str) -> list[tuple[int, int, int]]:
    found = re.findall(
        rf'<rect class="{kind}" x="(\d+)" y="(\d+)" width="10" height="(\d+)"/>', svg
    )
    return [(int(x), int(y), int(height)) for x, y, height in found]


def test_each_bar_is_as_high_as_what_it_stands_for() -> None:
    minutes = [Minute(NOW // MINUTE * MINUTE - n * MINUTE, 10 * n, n) for n in range(3)]
    drawn = plot(minutes, NOW, count=3, step=1)
    assert [(bar.recorded, bar.sent) for bar in drawn.bars] == [(20, 2), (10, 1), (0, 0)]
    assert (drawn.recorded, drawn.sent, drawn.most) == (30, 3, 20)
    assert shapes(drawn.svg, "arrived") == [(0, 0, 100), (12, 50, 50)]
    assert shapes(drawn.svg, "sent") == [(0, 101, 10), (12, 101, 5)]


def test_one_of_a_million_is_seen_and_nothing_is_nothing() -> None:
    minutes = [Minute(NOW - MINUTE, 1_000_000, 1)]
    assert shapes(plot(minutes, NOW, count=60, step=1).svg, "sent") == [(58 * 12, 101, 2)]
    empty = plot([], NOW, count=60, step=1)
    assert (empty.most, empty.recorded, len(empty.bars)) == (1, 0, 60)
    assert shapes(empty.svg, "arrived") == []


def test_what_is_older_is_left_out_and_steps_gather() -> None:
    minutes = [Minute((NOW // MINUTE - n) * MINUTE, 1, 0) for n in range(2000)]
    drawn = plot(minutes, NOW, count=96, step=15)
    assert len(drawn.bars) == 96
    assert {bar.recorded for bar in drawn.bars[:-1]} == {15}
    assert drawn.bars[-1].recorded == NOW // MINUTE % 15 + 1
