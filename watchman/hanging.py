"""File systems that may hang: who works in them, and whether they answer.

A call into a network or FUSE file system whose server is asleep returns when that wakes up, perhaps
never, and no signal ends it. So such calls are made in threads that nobody waits for without a
limit. Each of these threads has a :class:`Station` that says since when it has been in there; if
that is long, its file systems are asked for something that no cache answers (statvfs), each by a
thread of its own: slow is not hung.

What is known here is true for the whole process, whichever configuration it runs: a thread that
hangs outlives a reload.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from watchman import mounts

SUSPECT = 2.0
"""Seconds in one piece of work after which the file systems are asked."""
SILENT = 2.0
"""Seconds without an answer after which a file system counts as one that hangs."""
_SLICE = 0.05
"""Seconds between two looks at a thread that is waited for."""

_lock = threading.Lock()
_questions: dict[tuple[str, int | None], tuple[threading.Thread, float]] = {}
"""By mount (point and id): who asks, and since when (monotonic). Answered ones are dropped."""
_left: list[tuple[threading.Thread, dict[str, int]]] = []
"""Threads that nobody waited for any longer, and the mounts (id by point) that they may be in."""


def points(*paths: str) -> frozenset[str]:
    """Return the mount points of what may hang on the way to these paths, or below them."""
    table = mounts.mounts()
    found = set()
    for path in paths:
        real, point = mounts.trace(path, table)
        below = real.rstrip("/") + "/"
        found |= {point} if point else set()
        found |= {
            other
            for other, mount in table.items()
            if other.startswith(below) and mounts.may_hang(mount.type)
        }
    return frozenset(found)


def prefixes(paths: Iterable[str]) -> dict[str, str]:
    """Return what may hang in or below these directories: path with a slash → mount point."""
    table = mounts.mounts()
    found = {}
    for path in paths:
        prefix = path.rstrip("/") + "/"
        point = mounts.trace(path, table)[1]
        if point:
            found[prefix] = point
            continue
        real = mounts.trace(path, table)[0].rstrip("/") + "/"
        for other, mount in table.items():
            if other.startswith(real) and mounts.may_hang(mount.type):
                found[f"{prefix}{other[len(real) :]}/"] = other
    return found


def describe(point: str) -> str:
    """Return what is to be said of a file system that does not answer, and the remedy."""
    mount = mounts.mounts().get(point)
    what = f" ({mount.type}, {mount.source})" if mount is not None else ""
    return (
        f"the file system {point}{what} does not answer; what is there waits until its server "
        f"does: wake that up, or give the mount up with 'umount --force --lazy {point}'"
    )


# Asking


def ask(which: Iterable[str]) -> None:
    """Ask file systems for a sign of life, unless they are being asked. Never blocks."""
    now, table = time.monotonic(), mounts.mounts()
    with _lock:
        for point in which:
            mount = _mount(point, table)
            asked = _questions.get(mount)
            if asked is None or not asked[0].is_alive():
                thread = threading.Thread(
                    target=_statvfs, args=(point,), name="are-you-there", daemon=True
                )
                _questions[mount] = (thread, now)
                thread.start()


def _mount(point: str, table: Mapping[str, mounts.Mount]) -> tuple[str, int | None]:
    return point, table[point].id if point in table else None


def _statvfs(point: str) -> None:
    try:
        os.statvfs(point)
    except OSError:
        return  # an answer, too


def silent(which: Iterable[str], since: float = math.inf) -> str:
    """Return one of these mount points that has left a question unanswered; "" if none has.

    What has been unmounted counts only for who is at work ``since`` before it was asked.
    """
    now, wanted = time.monotonic(), frozenset(which)
    with _lock:
        late = [one for one in _questions.items() if now - one[1][1] >= SILENT]
        table = mounts.mounts() if late else {}
        for mount, (thread, asked) in late:
            if not thread.is_alive():
                del _questions[mount]
            elif mount[0] in wanted and (asked >= since or mount == _mount(mount[0], table)):
                return mount[0]
    return ""


def is_silent_since(point: str, thread: threading.Thread, asked: float) -> None:
    """Take note of a thread that got no answer to what it asked (monotonic time) there."""
    with _lock:
        _questions[_mount(point, mounts.mounts())] = (thread, asked)


# Working


class Station:
    """Where one thread works, and since when it has not come back. A context manager.

    ``subjects`` say what waits if it does not: watches' paths, or words. It works in ``paths``.
    """

    def __init__(self, subjects: Sequence[str], paths: Sequence[str]) -> None:
        self.subjects = subjects
        self._paths = paths
        self.where = points(*paths)
        """The mount points that may keep it."""
        self.since: float | None = None
        """Since when (monotonic) it has been at work; None while it waits for work."""

    def __enter__(self) -> Station:
        self.since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.since = None

    def look_at_mounts(self) -> None:
        """Take note that something was mounted or unmounted."""
        # It may still be in what was unmounted.
        self.where = points(*self._paths) or self.where

    def hangs(self, now: float) -> str:
        """Return the mount point of what keeps it, "" if nothing does; asks where need be."""
        since = self.since
        if since is None or now - since < SUSPECT or not self.where:
            return ""
        ask(self.where)
        return silent(self.where, since)


# Ending


def join(threads: Iterable[threading.Thread], where: Iterable[str], timeout: float) -> bool:
    """Wait for threads; False where that takes too long, or what they work in hangs."""
    deadline = time.monotonic() + timeout
    where = frozenset(where)
    alive = list(threads)
    asked = False
    while True:
        alive = [thread for thread in alive if thread.is_alive()]
        if not alive:
            return True
        if silent(where) or time.monotonic() > deadline:
            return False
        alive[0].join(_SLICE)
        if not asked:
            ask(where)
            asked = True


def leave(threads: Iterable[threading.Thread], where: Iterable[str]) -> None:
    """Take note of threads that hang, and that nobody waits for any longer."""
    table = mounts.mounts()
    ids = {point: table[point].id for point in where if point in table}
    with _lock:
        _left.extend((thread, ids) for thread in threads if thread.is_alive())


def await_left(where: frozenset[str], give_up: Callable[[], bool]) -> bool:
    """Wait for threads that were left in these file systems; False if told to give up.

    What they were doing when they hung they may still do when they come back: nobody begins
    anything in the same place before. A file system that has been unmounted is another place.
    """
    never = threading.Event()
    while _in_the_way(where):
        if give_up():
            return False
        never.wait(_SLICE)
    return not give_up()


def _in_the_way(where: frozenset[str]) -> bool:
    with _lock:
        _left[:] = [entry for entry in _left if entry[0].is_alive()]
        if not (_left and where):
            return False
        left = list(_left)
    table = mounts.mounts()
    return any(
        point in where and point in table and table[point].id == number
        for _, ids in left
        for point, number in ids.items()
    )
