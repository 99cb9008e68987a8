"""Taking turns is a courtesy: it keeps threads apart, and nobody depends on it."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import wait_until
from watchman.turns import PATIENCE, turn


def test_a_second_thread_comes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchman.turns.PATIENCE", 60.0)
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with turn():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with turn():
        inside.set()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_thread_may_take_a_turn_within_its_own() -> None:
    with turn(), turn():
        pass
    free = threading.Event()

    def other() -> None:
        with turn():
            free.set()

    threading.Thread(target=other).start()
    wait_until(free.is_set, what="both turns have ended")


def test_a_thread_that_hangs_holds_up_nobody() -> None:
    release, passed = threading.Event(), threading.Event()
    holding = threading.Event()

    def hang() -> None:
        with turn():
            holding.set()
            release.wait()

    def go_on() -> None:
        with turn():
            passed.set()

    hanging = threading.Thread(target=hang, daemon=True)
    hanging.start()
    wait_until(holding.is_set, what="one thread hangs in its turn")
    threading.Thread(target=go_on).start()
    wait_until(passed.is_set, what="the other goes on without a turn")
    assert not release.is_set()
    # The others do not wait for it each time: they take turns among themselves before long.
    wait_until(lambda: waited() < PATIENCE / 2, what="nobody waits for it any longer")
    release.set()
    hanging.join()
    assert waited() < PATIENCE / 2


def waited() -> float:
    """Return the seconds that this thread waits for a turn."""
    begun = time.monotonic()
    with turn():
        return time.monotonic() - begun
