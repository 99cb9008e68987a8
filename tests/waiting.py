"""Waiting for an observable state with a deadline: the only way in which tests pass time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    observe: Callable[[], T | None], timeout: float = 10.0, what: str = "", interval: float = 0.01
) -> T:
    """Return the first truthy value of ``observe()``; fail after ``timeout`` seconds.

    ``what`` says in the failure's message what was waited for.
    """
    deadline = time.monotonic() + timeout
    never = threading.Event()
    while True:
        value = observe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or observe}; last seen: {value!r}")
        never.wait(interval)
