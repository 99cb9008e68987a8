"""The soft lock keeps threads apart, and nobody waits long for it."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import wait_until
from watchman.soft_lock import PATIENCE, soft_lock


def test_a_second_thread_comes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchman.soft_lock.PATIENCE", 60.0)
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with soft_lock():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with soft_lock():
        inside.set()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_thread_may_nest_it() -> None:
    with soft_lock(), soft_lock():
        pass
    free = threading.Event()

    def other() -> None:
        with soft_lock():
            free.set()

    threading.Thread(target=other).start()
    wait_until(free.is_set, what="both are released")


def test_a_thread_that_hangs_holds_up_nobody() -> None:
    release, passed = threading.Event(), threading.Event()
    holding = threading.Event()

    def hang() -> None:
        with soft_lock():
            holding.set()
            release.wait()

    def go_on() -> None:
        with soft_lock():
            passed.set()

    hanging = threading.Thread(target=hang, daemon=True)
    hanging.start()
    wait_until(holding.is_set, what="one thread hangs while it holds it")
    threading.Thread(target=go_on).start()
    wait_until(passed.is_set, what="the other goes on without it")
    assert not release.is_set()
    # The others do not wait for it each time: they have a new lock before long.
    wait_until(lambda: waited() < PATIENCE / 2, what="nobody waits for it any longer")
    release.set()
    hanging.join()
    assert waited() < PATIENCE / 2


def waited() -> float:
    """Return the seconds that this thread waits for the soft lock."""
    begun = time.monotonic()
    with soft_lock():
        return time.monotonic() - begun
