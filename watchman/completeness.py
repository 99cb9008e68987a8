"""Is a file complete, is a directory finished? Pure: what was seen and the time are passed in.

**A file** is complete when nobody has it open for writing. Two races decide the rules, both read in
the kernel's source (fs/file_table.c ``__fput``, fs/namei.c ``open_last_lookups``):

- ``IN_CLOSE_WRITE`` is queued before the closing writer gives up its claim on the file, so the
  lease test right after the event may still see a writer, and no other event will follow. A busy
  file is therefore looked at again, soon at first and then less and less often, until it is free.
- ``IN_CREATE`` is queued before the creating ``open`` claims the file for writing, so the lease
  test may find a file that is about to be written free, and empty. An empty file is therefore
  believed only after an event that says that it was closed or moved here, or when it is old enough.

**A directory** is finished by its name, which is the uploader's word: it is filled under an
unfinished name and renamed. A watch may ask for more: a file that must be inside (``marker``), and
that nothing below it has changed for a while (``settle``).

Both wait in a :class:`WaitingQueue`, which says when to look at each again. Times are seconds of
one monotonic clock, except where a name ends in ``_ns``.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Container, Hashable, Iterator
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from watchman.file_access import Look, Seen
from watchman.timers import Timers

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

_LOOKED_AT = 1000
"""Files among which the oldest are looked for."""

Key = TypeVar("Key", bound=Hashable)
Waiting = TypeVar("Waiting")


class WaitingQueue(Generic[Key, Waiting]):
    """What is not complete yet, and when to look at it again."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Waiting] = {}
        """How each was when it was last seen."""
        self._times: Timers[Key] = Timers()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: object) -> bool:
        return key in self._waiting

    def forget(self, key: Key) -> None:
        """Stop waiting; it need not have waited."""
        if self._waiting.pop(key, None) is not None:
            self._times.drop(key)

    def due(self, now: float, most: int = sys.maxsize) -> list[Key]:
        """Return what is to be looked at again now, each once; it goes on waiting."""
        return self._times.take(now, most)

    def next_due(self) -> float | None:
        """Return when :meth:`due` has something to say again; None while nothing has a time."""
        return self._times.next()


class _File(NamedTuple):
    since: float
    """When the file was first seen as it is now."""
    size: int
    """In bytes, or _BUSY."""
    mtime_ns: int
    delay: float
    """Seconds between the last look at a busy file and the next."""
    closed: bool
    """Whether an event has said that it was closed or moved here."""


class IncompleteFiles(WaitingQueue[Key, _File]):
    """Files that are not complete yet."""

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
            return self._has_settled(key, look, now, settle or 0.0)
        if look.seen is Seen.UNTESTED:
            return self._has_settled(key, look, now, UNTESTED_SETTLE if settle is None else settle)
        if look.seen is Seen.BUSY:
            self._wait_for_writer(key, now, closed=closed)
        else:
            self.forget(key)
        return False

    def postpone(self, key: Key, now: float) -> None:
        """Look at a file that was written to after a while, unless it is waited for already."""
        if key not in self._waiting:
            self._waiting[key] = _File(now, _BUSY, 0, FIRST_DELAY, closed=False)
            self._times.set(key, now + WRITTEN_DELAY)

    def open_since(self, before: float) -> Iterator[Key]:
        """Yield the files that were open for writing ``before`` some time, and are since."""
        for key, waiting in self._waiting.items():
            if waiting.size == _BUSY and waiting.since <= before:
                yield key

    def oldest(self, most: int, unseen: Container[Key] = ()) -> list[tuple[Key, float]]:
        """Return some that are being written, and since when they are seen to be; from any thread.

        The oldest first, of those that began to wait first. Of those that are ``unseen`` nobody
        knows whether they are.
        """
        some: list[tuple[Key, _File]] = []
        for _ in range(3):
            # Another thread may add one meanwhile.
            with contextlib.suppress(RuntimeError):
                some = list(itertools.islice(self._waiting.items(), _LOOKED_AT))
                break
        busy = [(key, one.since) for key, one in some if one.size == _BUSY and key not in unseen]
        return sorted(busy, key=itemgetter(1))[:most]

    def _has_settled(self, key: Key, look: Look, now: float, settle: float) -> bool:
        assert look.version is not None
        size, mtime_ns = look.version.size, look.version.mtime_ns
        waiting = self._waiting.get(key)
        same = waiting is not None and (waiting.size, waiting.mtime_ns) == (size, mtime_ns)
        since = waiting.since if waiting is not None and same else now
        if now - since >= settle:
            self.forget(key)
            return True
        closed = waiting is not None and waiting.closed
        self._waiting[key] = _File(since, size, mtime_ns, FIRST_DELAY, closed)
        self._times.set(key, since + settle)
        return False

    def _wait_for_writer(self, key: Key, now: float, *, closed: bool) -> None:
        waiting = self._waiting.get(key)
        closed = closed or (waiting is not None and waiting.closed)
        delay = FIRST_DELAY if waiting is None else min(waiting.delay * 2, LONGEST_DELAY)
        since = waiting.since if waiting is not None and waiting.size == _BUSY else now
        self._waiting[key] = _File(since, _BUSY, 0, delay, closed)
        self._times.set(key, now + delay)


class Inside(Protocol):
    """What a walk below a directory found; equal while nothing there changes."""

    @property
    def busy(self) -> bool:
        """Whether somebody has a file below open for writing."""
        ...


class _Directory(NamedTuple):
    inside: Inside | None
    """What was in it when it was last looked at; None while its marker is missing."""
    since: float
    """Since when that is so."""


class UnfinishedDirectories(WaitingQueue[Key, _Directory]):
    """Directories with a finished name that are not finished yet.

    Each waits either for its marker, of which an event tells, or for quiet: that nothing in it
    changes, and nobody has a file in it open, for the seconds that the watch asks for.
    """

    def finished(
        self, key: Key, now: float, *, marked: bool, settle: float, inside: Inside | None
    ) -> bool:
        """Say whether the directory is finished; if not, wait for it.

        ``marked``: its marker is there, or the watch asks for none. ``settle``: seconds for
        which ``inside`` must stay as it is; ``inside`` may be None where that is 0.
        """
        if not marked:
            self._waiting[key] = _Directory(None, now)
            self._times.drop(key)  # an event will tell when to look again
            return False
        if not settle or inside is None:
            self.forget(key)
            return True
        before = self._waiting.get(key)
        same = before is not None and before.inside == inside and not inside.busy
        since = before.since if before is not None and same else now
        if now - since >= settle:
            self.forget(key)
            return True
        self._waiting[key] = _Directory(inside, since)
        self._times.set(key, since + settle)
        return False
