"""What is said of how far something is, and how fast it goes."""

from __future__ import annotations

import logging

import pytest

from watchman import text
from watchman.pipeline import scan_progress
from watchman.pipeline.rates import Rates
from watchman.pipeline.scan_progress import ScanProgress


class Clock:
    """Stands for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scan_progress, "time", clock)
    return clock


def test_rates_are_of_the_last_minute() -> None:
    rates, total = Rates(), 0
    assert rates.per_second(0.0, {"in": 5}) == {"in": 0.0}
    for second in range(300):
        total += 10 if second < 200 else 2
        rates.sample(float(second), {"in": total})
    assert rates.per_second(299.0, {"in": total})["in"] == pytest.approx(2.0, rel=0.02)
    assert len(rates._samples) <= 31
    # What was not counted before has not grown.
    assert rates.per_second(299.0, {"new": 1000}) == {"new": 0.0}


def test_rates_of_one_that_slept() -> None:
    rates = Rates()
    rates.sample(0.0, {"in": 0})
    assert rates.per_second(500.0, {"in": 1_000_000}) == {"in": 0.0}


def test_a_scan_says_how_far_it_is(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = ScanProgress(["/up"], first_run=True)
    progress.listed(1000)
    progress.step(10, 0, listing=True)
    assert progress.shown() is None
    assert not caplog.messages
    clock.now += 11
    progress.listed(10_000)
    progress.step(600, 0, listing=True)
    assert caplog.messages == ["Scanning: 11000 files so far, 600 new, 1000/s"]
    shown = progress.shown()
    assert shown is not None
    assert (shown["first_run"], shown["listed"], shown["eta_s"]) == (True, 11000, None)
    progress.step(500, 100, listing=False)
    clock.now += 20
    progress.step(200, 300, listing=False)
    assert caplog.messages[1:] == [
        "Scanning: 11000 files listed; of 600 new ones 400 are dealt with, 20/s, 10 s left"
    ]
    shown = progress.shown()
    assert shown is not None
    assert (shown["new"], shown["done"], shown["eta_s"]) == (600, 400, 10.0)
    progress.step(0, 200, listing=False)
    progress.end()
    assert caplog.messages[2:] == ["Scanned 11000 files in 31 s, 600 of them new"]
    assert progress.shown() is None
    # The next one is no first run, and a short one is not told of.
    progress.listed(5)
    progress.end()
    assert len(caplog.messages) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (101, "1 min"),
        (3660, "1 h 1 min"),
        (36_060, "10 h"),
        (90_000, "1 d 1 h"),
        (864_000 * 3, "30 d"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert text.span(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (512 * 10**6, "512 MB"),
        (2 * 10**9, "2.0 GB"),
        (3 * 10**15, "3,000 TB"),
    ],
)
def test_sizes(number: float, words: str) -> None:
    assert text.size(number) == words
