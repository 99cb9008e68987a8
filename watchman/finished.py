"""Whether a directory is finished. Pure: what was seen and the time are passed in.

The name is the uploader's word: a directory is filled under an unfinished name and renamed. A
watch may ask for more: a file that must be inside (``marker``), and that nothing below it has
changed for a while (``settle``).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from watchman.duetimes import DueTimes

Key = TypeVar("Key", bound=Hashable)


class Inside(NamedTuple):
    """What a walk below a directory found; equal while nothing there changes."""

    entries: int
    size: int
    """The sum of all sizes in bytes."""
    mtime_ns: int
    """The newest modification below, or of the directory itself."""
    ctime_ns: int
    busy: bool = False
    """Somebody has a file below open for writing."""


class _Waiting(NamedTuple):
    inside: Inside | None
    since: float


class Settling(Generic[Key]):
    """Directories with a finished name that wait for their marker or for quiet.

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, _Waiting] = {}
        self._times: DueTimes[Key] = DueTimes()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def finished(
        self, key: Key, now: float, *, marked: bool, settle: float, inside: Inside | None
    ) -> bool:
        """Say whether the directory is finished; if not, wait for it.

        ``marked``: its marker is there, or the watch asks for none. ``settle``: seconds for
        which ``inside`` must stay as it is; ``inside`` may be None where that is 0.
        """
        if not marked:
            self._waiting[key] = _Waiting(None, now)
            self._times.drop(key)
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
        self._waiting[key] = _Waiting(inside, since)
        self._times.set(key, since + settle)
        return False

    def forget(self, key: Key) -> None:
        """Stop waiting for a directory."""
        self._waiting.pop(key, None)
        self._times.drop(key)

    def due(self, now: float) -> list[Key]:
        """Return the directories to look at again now, without forgetting them."""
        return self._times.take(now)

    def next_due(self) -> float | None:
        """Return when :meth:`due` has something to say again."""
        return self._times.next()
