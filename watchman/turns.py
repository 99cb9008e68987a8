"""Taking turns at work that is made of many short system calls.

After each such call a thread needs the interpreter's lock back. Where several threads do this at
once, each call becomes a switch between threads, which costs several times the call. So whoever has
hundreds of files to look at, to rename or to write into the journal takes a turn, and the others
wait for its end, but never for long: a turn is a courtesy, and nobody depends on it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

PATIENCE = 0.02
"""Seconds after which a thread goes on without its turn: another one may hang in a call."""

_turn = threading.RLock()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Do a bounded piece of work in a turn, or in the one that this thread has."""
    mine = _turn.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        if mine:
            _turn.release()
