"""A look at something that may hang, with a limit of time."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from watchman import mounts
from watchman.hanging import SILENT, describe, is_silent_since, silent
from watchman.helper_process import let_go

T = TypeVar("T")

FORGET = 10.0
"""Seconds after which a file system that kept a child is asked again."""
_unanswered: dict[str, float] = {}
"""Mount points that have kept a child of :func:`within`, and when (monotonic)."""


class Effort:
    """A limit for a search: so many seconds of work, or many times that where others take the time.

    By the clock alone a busy machine would have nothing found. Used from one thread.
    """

    def __init__(self, seconds: float, longest: float) -> None:
        self._work = time.thread_time() + seconds
        self._end = time.monotonic() + longest

    @property
    def spent(self) -> bool:
        """Whether it is time to give up."""
        return time.thread_time() > self._work or time.monotonic() > self._end


def within(
    path: str,
    call: Callable[[], T],
    where: Iterable[str] | None = None,
    *,
    table: mounts.MountTable | None = None,
) -> T:
    """Return ``call()``, which looks at ``path``. Raises what it raises.

    Where that leads through something that may hang (to be told by ``where``, if to more than
    the path itself), and does, raises TimeoutError. Who looks at many paths has a ``table``.
    """
    point = mounts.trace(path, mounts.mounts() if table is None else table.read())[1]
    places = [point] if where is None else list(where)
    if not any(places):
        return call()
    now = time.monotonic()
    kept = (place for place in places if now < _unanswered.get(place, -FORGET) + FORGET)
    hangs = silent(places) or next(kept, "")
    if not hangs:
        # A thread that hangs may keep its process from ending: one who has no threads forks.
        alone = threading.active_count() == 1
        answer = _in_child(call) if alone else _in_thread(call, places)
        if answer is not None:
            return answer[0]
        hangs = places[0]
        if alone and len(places) == 1:
            _unanswered[hangs] = now
    raise TimeoutError(errno.ETIMEDOUT, describe(hangs), path)


def _in_thread(call: Callable[[], T], places: Sequence[str]) -> tuple[T] | None:
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 — handed to whoever asked
            raised.append(error)

    thread = threading.Thread(target=run, name="look", daemon=True)
    thread.start()
    thread.join(SILENT)
    if raised:
        raise raised[0]
    if found:
        return (found[0],)
    if len(places) == 1:
        # Others need not wait as long again for the same file system.
        is_silent_since(places[0], thread, time.monotonic() - SILENT)
    return None


def _in_child(call: Callable[[], T]) -> tuple[T] | None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        try:
            let_go({writing})
            try:
                answer: Any = (call(),)
            except BaseException as error:  # noqa: BLE001 — raised where the answer is read
                answer = error
            os.write(writing, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = select.select([pipe], [], [], SILENT)[0] and pipe.read()
    if not said:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it is not reaped yet: the number is still its own
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0 if said else os.WNOHANG)
    if not said:
        return None
    answered = pickle.loads(said)  # noqa: S301 — from a process of ours
    if isinstance(answered, Exception):
        raise answered
    found: tuple[T] = answered
    return found
