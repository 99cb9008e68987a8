"""For how long a file waits, however the clock is set meanwhile."""

from __future__ import annotations

import time

import pytest

from watchman.identity import Evidence
from watchman.model import Criteria, Version
from watchman.pipeline.found import Found
from watchman.pipeline.waiting_file import WaitingFile
from watchman.sources.tree import Node

HOUR = 3600
FOUND = Found(Node("up", None, None), "a", "/up/a", Version(1, 2, 3, 4, 5), Evidence.WRITTEN)
CRITERIA = Criteria((), incomplete_after=600.0)


@pytest.mark.parametrize(
    ("seconds_ago", "age"), [(0, 0.0), (60, 60.0), (HOUR, 3600.0), (-1, 0.0), (-HOUR, 0.0)]
)
@pytest.mark.parametrize("set_by", [0, HOUR, -HOUR])
def test_its_time_is_over_in_time(
    monkeypatch: pytest.MonkeyPatch, seconds_ago: int, age: float, set_by: int
) -> None:
    now_ns, now = time.time_ns(), time.monotonic()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    waiting = WaitingFile(FOUND, CRITERIA, now_ns - seconds_ago * 10**9)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + set_by * 10**9)
    monkeypatch.setattr(time, "monotonic", lambda: now + 5.0)
    assert waiting.age == pytest.approx(age + 5.0)
    assert waiting.due == pytest.approx(now + 600.0 - age)
    assert waiting.since_ns == now_ns - max(0, seconds_ago) * 10**9
