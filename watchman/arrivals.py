"""Is a file complete? Pure: what was seen and what time it is are passed in.

Two races decide the rules, both read in the kernel's source (fs/file_table.c ``__fput``,
fs/namei.c ``open_last_lookups``):

- ``IN_CLOSE_WRITE`` is queued before the closing writer gives up its claim on the file, so the
  lease test right after the event may still see a writer, and no other event will follow. A busy
  file is therefore looked at again, soon at first and then less and less often, until it is free.
- ``IN_CREATE`` is queued before the creating ``open`` claims the file for writing, so the lease
  test may find a file that is about to be written free, and empty. An empty file is therefore
  believed only after an event that says that it was closed or moved here, or when it is old enough.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from watchman.duetimes import DueTimes
from watchman.filesystem import Look, Seen

FIRST_DELAY = 0.001
"""Seconds until a busy file is looked at again; doubled each time."""
LONGEST_DELAY = 30.0
WRITTEN_DELAY = 1.0
"""Seconds until a file that was written to is looked at, where no close comes before."""
EMPTY_AGE = 2.0
"""Seconds after which an empty file that nobody closed counts as complete."""
UNTESTED_SETTLE = 10.0
"""Seconds of the settle rule where the lease test cannot be made and the watch sets none."""

_BUSY = -1
"""A size that no file has: however one looks when it is free, it has to settle from then on."""

Key = TypeVar("Key", bound=Hashable)


class _Waiting(NamedTuple):
    since: float
    """When the file was first seen as it is now."""
    size: int
    mtime_ns: int
    delay: float
    closed: bool


class Arrivals(Generic[Key]):
    """Files that are not complete yet, and when to look at each again.

    Times are seconds of a monotonic clock, except where a name ends in ``_ns``.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, _Waiting] = {}
        self._times: DueTimes[Key] = DueTimes()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def complete(
        self, key: Key, look: Look, now: float, now_ns: int, *, closed: bool, settle: float | None
    ) -> bool:
        """Say whether the file is complete; if it is not yet, remember to look again.

        ``closed``: the hint says that somebody closed the file after writing, or moved it here.
        ``settle``: seconds for which size and mtime must stay as they are.
        """
        if look.seen is Seen.COMPLETE:
            assert look.version is not None
            if self._waiting and not closed:
                waiting = self._waiting.get(key)
                closed = waiting is not None and waiting.closed
            if not settle and (closed or look.version.size):
                if self._waiting:
                    self.forget(key)
                return True
            if not look.version.size and not closed:
                age = (now_ns - look.version.changed_ns) / 1e9
                settle = max(settle or 0.0, min(EMPTY_AGE, EMPTY_AGE - age))
            return self._settled(key, look, now, settle or 0.0)
        if look.seen is Seen.UNTESTED:
            return self._settled(key, look, now, UNTESTED_SETTLE if settle is None else settle)
        if look.seen is Seen.BUSY:
            self._wait_for_writer(key, now, closed=closed)
        else:
            self.forget(key)
        return False

    def postpone(self, key: Key, now: float) -> None:
        """Look at a file that was written to after a while, unless it is waited for already."""
        if key not in self._waiting:
            self._waiting[key] = _Waiting(now, _BUSY, 0, FIRST_DELAY, closed=False)
            self._times.set(key, now + WRITTEN_DELAY)

    def forget(self, key: Key) -> None:
        """Stop waiting for a file."""
        if self._waiting.pop(key, None) is not None:
            self._times.drop(key)

    def due(self, now: float) -> list[Key]:
        """Return the files to look at again now, without forgetting them."""
        return self._times.take(now)

    def open_since(self, before: float) -> Iterator[Key]:
        """Yield the files that were open for writing ``before`` some time, and are since."""
        for key, waiting in self._waiting.items():
            if waiting.size == _BUSY and waiting.since <= before:
                yield key

    def next_due(self) -> float | None:
        """Return when :meth:`due` has something to say again."""
        return self._times.next()

    def _settled(self, key: Key, look: Look, now: float, settle: float) -> bool:
        assert look.version is not None
        size, mtime_ns = look.version.size, look.version.mtime_ns
        waiting = self._waiting.get(key)
        same = waiting is not None and (waiting.size, waiting.mtime_ns) == (size, mtime_ns)
        since = waiting.since if waiting is not None and same else now
        if now - since >= settle:
            self.forget(key)
            return True
        closed = waiting is not None and waiting.closed
        self._waiting[key] = _Waiting(since, size, mtime_ns, FIRST_DELAY, closed)
        self._times.set(key, since + settle)
        return False

    def _wait_for_writer(self, key: Key, now: float, *, closed: bool) -> None:
        waiting = self._waiting.get(key)
        closed = closed or (waiting is not None and waiting.closed)
        delay = FIRST_DELAY if waiting is None else min(waiting.delay * 2, LONGEST_DELAY)
        since = waiting.since if waiting is not None and waiting.size == _BUSY else now
        self._waiting[key] = _Waiting(since, _BUSY, 0, delay, closed)
        self._times.set(key, now + delay)
