"""What is counted for good: against what was done, across a restart, and at what price."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.journals import discard, retry
from watchman.journal import Journal, NewDelivery, counters
from watchman.journal.failed_deliveries import Selection
from watchman.journal.hold_orders import hold, release
from watchman.journal.journal_reader import open_reader
from watchman.journal.measures import OTHER_MOVES, Measures
from watchman.model import Batch, HoldKind, Move, Noted, Route, State, Version

A, B = Route("a", "task"), Route("b", "task")
SECOND = 1_000_000_000


def new(
    number: int, route: Route | None, arrived_ns: int = 1, move: Move | None = None
) -> NewDelivery:
    final = None if move is None else f"{move.root}/{number}"
    version = Version(1, number, 3, 4)
    return NewDelivery(f"{number}", f"/up/{number}", final, version, arrived_ns, route, move=move)


def measured(state: Path) -> Measures:
    with open_reader(str(state)) as found:
        return found.measures()


def test_what_happened_is_counted_once_and_for_good(journal: Journal, tmp_path: Path) -> None:
    move = Move("/up", "/store")
    journal.record(
        [new(1, A), new(2, A), new(3, B), new(4, None, move=move), new(5, B, move=move)],
        [
            ("/up/x", Version(1, 90, 3, 4), Noted.UNASKED),
            ("/up/y", Version(1, 91, 3, 4), Noted.BEFORE),
        ],
    )
    # Under way already: no arrival.
    assert len(journal.record([new(1, A)])) == 1
    four, five = journal.page_moving(move, 0, 9)
    journal.note([(1, State.SENT, ""), (2, State.FAILED, "no")], ready_for="a", sent={1: 1})
    journal.note([(3, State.VANISHED, "gone")], [four, five])
    # To say it twice is no second time.
    journal.note([(1, State.SENT, "")], ready_for="a")
    retry(tmp_path, Selection(frozenset({2})), lambda _: True)
    journal.note([(2, State.FAILED, "no")], ready_for="a")
    discard(tmp_path, Selection(frozenset({2})), "root")
    expected = {
        ("arrived", "a"): 2, ("arrived", "b"): 2, ("arrived", ""): 1, ("unmatched", ""): 1,
        ("sent", "a"): 1, ("failed", "a"): 2, ("discarded", "a"): 1, ("vanished", "b"): 1,
        ("moved", ""): 1,
    }  # fmt: skip
    for _ in range(2):
        found = measured(tmp_path).counters
        assert {key[:2]: n for key, n in found.items() if "latency" not in key[0]} == expected
        journal.prune(time.time_ns() + SECOND)
        journal.close()
        journal.__init__(str(tmp_path))  # type: ignore[misc]  # — closed by the fixture


def test_latencies_by_bucket(journal: Journal, tmp_path: Path) -> None:
    now = time.time_ns()
    ages = [0.004, 0.2, 0.2, 90.0, 10 * 86400.0, -5.0]
    journal.record([new(n, A, now - int(age * SECOND)) for n, age in enumerate(ages, 1)])
    arrived = Counter(row.arrived_ns for row in journal.page_ready("a", 0, 9))
    journal.note([(n + 1, State.SENT, "") for n in range(6)], ready_for="a", sent=arrived)
    found = measured(tmp_path).counters
    buckets = {bound: n for (name, _, bound), n in found.items() if name == counters.LATENCY}
    assert sum(buckets.values()) == len(ages)
    # The commit takes a while.
    assert buckets[300_000] == 1
    assert buckets[counters.BEYOND] == 1
    assert sum(n for bound, n in buckets.items() if 0 < bound <= 250) >= 1
    total = found[counters.LATENCY_SUM, "a", 0] / 1e6
    assert sum(ages) <= total < sum(ages) + 60


def test_a_bound_belongs_to_its_own_bucket() -> None:
    bounds = [0, 5_000_000, 5_000_001, 86_400_000 * 10**6, 86_400_000 * 10**6 + 1]
    found = [
        bound
        for ns in bounds
        for (name, _, bound) in counters.latencies("b", {0: 1}, ns)
        if name == counters.LATENCY
    ]
    assert found == [5, 5, 10, 86_400_000, counters.BEYOND]


def test_the_oldest_that_waits(journal: Journal, tmp_path: Path) -> None:
    move, other = Move("/up", "/store"), Move("/in", "/store")
    journal.record([new(1, A, 10), new(2, A, 20), new(3, B, 30, move), new(4, B, 40, other)])
    found = measured(tmp_path)
    assert found.oldest_ready_ns == {"a": 10}
    assert found.oldest_moving_ns == {move: 30, other: 40}
    assert found.counts[("b", State.MOVING)] == 2
    journal.note([(1, State.SENT, "")], journal.page_moving(move, 0, 9))
    found = measured(tmp_path)
    assert found.oldest_ready_ns == {"a": 20, "b": 30}
    assert found.oldest_moving_ns == {other: 40}
    assert OTHER_MOVES not in found.oldest_moving_ns


def test_its_price_does_not_grow(journal: Journal, tmp_path: Path) -> None:
    """Every answer is at one end of an index: SQLite says how it finds it."""
    for first in range(1, 5001, 1000):
        journal.record([new(first + n, (A, B)[n % 2]) for n in range(1000)])
    with open_reader(str(tmp_path)) as found:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        found.connection.set_progress_handler(step, 1)
        found.measures()
        found.connection.set_progress_handler(None, 1)
    assert steps < 500


def test_what_an_operator_holds_is_not_late(journal: Journal, tmp_path: Path) -> None:
    journal.record([new(1, A, 10), new(2, B, 20)])
    hold(str(tmp_path), [(HoldKind.BROKER, "a")], "root")
    found = measured(tmp_path)
    assert found.oldest_ready_ns == {"b": 20}
    assert found.held == {"a": 1}
    assert found.counts[("a", State.READY)] == 1


def test_what_was_released_and_not_sent_yet_is_late(journal: Journal, tmp_path: Path) -> None:
    """Its mark stays until a sender has come to it, and none does while its broker is down."""
    journal.record([new(1, A, 10), new(2, A, 20), new(3, B, 30)])
    for name in ("task", "other"):
        hold(str(tmp_path), [(HoldKind.TASK, name)], "root")
    journal.holds.refresh()
    for broker in ("a", "b"):
        assert journal.holds.keep(journal.page_ready(broker, 0, 9)) == []
    assert measured(tmp_path).oldest_ready_ns == {}
    release(str(tmp_path), [(HoldKind.TASK, "task")])
    assert measured(tmp_path).oldest_ready_ns == {"a": 10, "b": 30}
    hold(str(tmp_path), [(HoldKind.BROKER, "a")], "root")
    assert measured(tmp_path).oldest_ready_ns == {"b": 30}


def test_a_batch_whose_time_is_over_is_late(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its broker is down nobody completes it."""
    route = A._replace(batch=Batch(10, 60.0))
    journal.record([new(1, route, 10), new(2, route, 20)])
    assert measured(tmp_path).oldest_ready_ns == {}
    later = time.time_ns() + 61 * SECOND
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert measured(tmp_path).oldest_ready_ns == {"a": 10}
