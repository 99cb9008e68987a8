"""A limit of effort: work counts, and the clock only after a longer time."""

from __future__ import annotations

import time

from tests.waiting import wait_until
from watchman.timelimit import Effort


def test_work_is_limited() -> None:
    begun = time.thread_time()
    effort = Effort(0.05, 600.0)
    while not effort.spent:
        sum(range(1000))
    assert time.thread_time() - begun >= 0.05


def test_waiting_is_no_work_and_is_limited_too() -> None:
    effort = Effort(60.0, 0.2)
    assert not effort.spent
    wait_until(lambda: effort.spent, 10.0)
