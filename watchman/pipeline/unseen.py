"""What is there and cannot be looked at for now: why, and what helps.

Whoever could not look tries again by itself, ever less often; here it is only said. There may be
thousands: there is one trouble for each watch, which counts them and names one.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from watchman import limits
from watchman.pipeline.pending_events import Key
from watchman.sources.base_source import BaseSource
from watchman.text import printable
from watchman.troubles import Troubles

LASTS = 2.0
"""Seconds from which on it is said: a burst may lack descriptors for a moment."""

_REMEDIES = {
    errno.EIO: "look into the kernel's log: the disk may be broken",
    errno.ENOTCONN: "mount it again",
}


class _Failing(NamedTuple):
    since: float
    """By the monotonic clock."""
    code: int
    """The errno of the last look."""


class Unseen:
    """What one loop cannot look at. Used from its thread, but for ``in``.

    ``things`` is what its watches are for, "files" or "directories"; ``done`` is what cannot be
    done with them.
    """

    def __init__(
        self, troubles: Troubles, source: BaseSource[Any], things: str, done: str = "looked at"
    ) -> None:
        self._troubles = troubles
        self._source = source
        self._things = things
        self._done = done
        self._failing: dict[Key, _Failing] = {}
        self._said: set[str] = set()
        """Watches of which there is a trouble."""

    def __len__(self) -> int:
        return len(self._failing)

    def __contains__(self, key: Key) -> bool:
        return key in self._failing

    def note(self, key: Key, code: int = 0) -> None:
        """Take note of a look, and of the errno with which it failed; 0: it did not, or it is gone.

        EAGAIN is no failure: another program has a lease on the file, and lets go of it soon.
        """
        if code in (0, errno.EAGAIN):
            self._failing.pop(key, None)
        else:
            before = self._failing.get(key)
            since = time.monotonic() if before is None else before.since
            self._failing[key] = _Failing(since, code)

    def check(self, now: float) -> None:
        """Say what has lasted, and what is over; to be called every few seconds."""
        if not (self._failing or self._said):
            return
        lasting = self._lasting(now)
        for watch in self._said - lasting.keys():
            over = f"%s: none is left that cannot be {self._done}"
            self._troubles.end(self._subject(watch), self._done, line=over)
        for watch, keys in lasting.items():
            self._troubles.begin(self._subject(watch), self._message(keys), self._done)
        self._said = set(lasting)

    def _lasting(self, now: float) -> dict[str, list[Key]]:
        """Return what is to be said, by watch."""
        found: dict[str, list[Key]] = {}
        for key, failing in list(self._failing.items()):
            node = key[0]
            if node.is_left:
                del self._failing[key]  # nobody looks there again
            elif now - failing.since >= LASTS and not self._source.is_troubled(node):
                found.setdefault(node.root.watch.path, []).append(key)
        return found

    def _subject(self, watch: str) -> str:
        # Not the watch's path alone: that one cannot be watched is another matter (health).
        return f"{self._things} in {watch}"

    def _message(self, keys: Sequence[Key]) -> str:
        node, name = keys[0]
        path = printable(node.join(name))
        which = path if len(keys) == 1 else f"{len(keys)} of them, such as {path},"
        why = _why(self._failing[keys[0]].code)
        return f"{which} cannot be {self._done}: {why}; it is tried again until that works"


def _why(code: int) -> str:
    """Return what is wrong, and what to do about it."""
    error = OSError(code, os.strerror(code))
    reached = limits.explain(error)
    if reached is not None:
        return reached
    remedy = _REMEDIES.get(code, "look into the kernel's log")
    if isinstance(error, PermissionError):
        remedy = f"give user {os.geteuid()} read and search permission there"
    return f"{error.strerror}; {remedy}"
