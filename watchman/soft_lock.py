"""A lock that is waited for 20 ms at most, around work that is made of many short system calls.

After each such call a thread needs the interpreter's lock back. Where several threads do this at
once, each call becomes a switch between threads, which costs several times the call: with MOVES
there were 4 for each file, and 115 µs of system time. So whoever has hundreds of files to look at,
to rename or to write into the journal takes the soft lock first. Whoever waits in vain goes on
without it: it saves time, and nothing may depend on it.

A holder that hangs in a system call, say on a share that is away, costs the others a few such waits
and no more: the first who finds it held for ``HUNG`` seconds puts a new lock in its place.
"""

from __future__ import annotations

import threading
import time

PATIENCE = 0.02
"""Seconds after which a thread goes on without the lock: its holder may hang in a call."""
HUNG = 0.2
"""Seconds for which it may be held before a new one takes its place."""


class _Lock:
    """The lock that is in use."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = 0.0
        """When it was taken, by the monotonic clock."""


_current = _Lock()


class _SoftLock:
    """A context manager of its own: one made of a generator takes three times as long."""

    __slots__ = ("_lock", "_mine")

    def __enter__(self) -> None:
        global _current  # noqa: PLW0603 — the one place where a lock is replaced
        lock = self._lock = _current
        mine = self._mine = lock.lock.acquire(timeout=PATIENCE)
        now = time.monotonic()
        if mine:
            lock.taken = now
        elif lock is _current and now - lock.taken > HUNG:
            _current = _Lock()

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._lock.lock.release()


def soft_lock() -> _SoftLock:
    """Hold the soft lock, if it can be had, for a bounded piece of work; a thread may nest it."""
    return _SoftLock()
