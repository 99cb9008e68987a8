"""Taking turns at work that is made of many short system calls.

After each such call a thread needs the interpreter's lock back. Where several threads do this at
once, each call becomes a switch between threads, which costs several times the call. So whoever has
hundreds of files to look at, to rename or to write into the journal takes a turn, and the others
wait for its end, but never for long: a turn is a courtesy, and nobody depends on it.

Who hangs in a turn, say on a share that is away, costs the others a few such waits and no more: who
waits in vain for a turn that has been taken for long begins a new queue.
"""

from __future__ import annotations

import threading
import time

PATIENCE = 0.02
"""Seconds after which a thread goes on without its turn: another one may hang in a call."""
HUNG = 0.2
"""Seconds for which one turn may be taken before nobody waits for its end any longer."""


class _Queue:
    """Those who wait for the end of one turn."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = 0.0
        """When the turn was taken, by the monotonic clock."""


_queue = _Queue()


class _Turn:
    """A context manager of its own: one made of a generator takes three times as long."""

    __slots__ = ("_mine", "_queue")

    def __enter__(self) -> None:
        global _queue  # noqa: PLW0603 — the one place where a queue that hangs is replaced
        queue = self._queue = _queue
        mine = self._mine = queue.lock.acquire(timeout=PATIENCE)
        now = time.monotonic()
        if mine:
            queue.taken = now
        elif queue is _queue and now - queue.taken > HUNG:
            _queue = _Queue()

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._queue.lock.release()


def turn() -> _Turn:
    """Do a bounded piece of work in a turn, or in the one that this thread has."""
    return _Turn()
