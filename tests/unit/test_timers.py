"""Keys come when they are due, once, and what is dropped takes no room."""

from __future__ import annotations

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st

from watchman.timers import Timers


class Key:
    """A key whose life can be watched."""


def test_each_key_is_due_once_at_the_last_time_that_was_set() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.set("a", 3.0)
    assert timers.take(2.5) == ["b"]
    assert "a" in timers
    assert "b" not in timers
    assert timers.take(3.0) == ["a"]
    assert timers.take(9.0) == []
    assert timers.next() is None


def test_what_is_not_taken_yet_stays_due() -> None:
    timers: Timers[int] = Timers()
    for number in range(5):
        timers.set(number, number)
    assert timers.take(9.0, 3) == [0, 1, 2]
    assert timers.next() == 3
    assert timers.take(9.0, 3) == [3, 4]


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 20)), max_size=60))
def test_whatever_was_set_and_dropped(steps: list[tuple[int, int | None]]) -> None:
    timers: Timers[int] = Timers()
    expected: dict[int, int] = {}
    for key, due in steps * 40:  # often enough that what is over is dropped
        if due is None:
            timers.drop(key)
            expected.pop(key, None)
        else:
            timers.set(key, due)
            expected[key] = due
    assert timers.next() == min(expected.values(), default=None)
    taken = timers.take(10)
    assert sorted(taken) == sorted(key for key, due in expected.items() if due <= 10)
    assert [expected[key] for key in taken] == sorted(expected[key] for key in taken)


def test_what_is_dropped_takes_no_room_until_its_time_comes() -> None:
    timers: Timers[Key] = Timers()
    kept = Key()
    timers.set(kept, 3600.0)
    seen = []
    for number in range(20_000):
        key = Key()
        seen.append(weakref.ref(key))
        timers.set(key, 3600.0 + number)
        timers.drop(key)
    del key
    gc.collect()
    assert sum(one() is not None for one in seen) < 2000
    assert timers.take(9999.0) == [kept]
