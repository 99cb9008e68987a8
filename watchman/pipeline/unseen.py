"""What is there and cannot be looked at for now: why, and what helps.

Whoever could not look tries again by itself, ever less often; here it is only said. There may be
thousands: there is one trouble for each watch, which counts them and names one.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from watchman import limits
from watchman.pipeline.pending_events import Key
from watchman.sources.base_source import BaseSource
from watchman.sources.tree import Node
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
        self._failing: dict[Node, dict[str, _Failing]] = {}
        """By directory and name; what fails for longest is the first in its directory."""
        self._said: set[str] = set()
        """Watches of which there is a trouble."""

    def __bool__(self) -> bool:
        return bool(self._failing)

    def __contains__(self, key: object) -> bool:
        node, name = cast("Key", key)
        return name in self._failing.get(node, ())

    def note(self, key: Key, code: int = 0) -> None:
        """Take note of a look, and of the errno with which it failed; 0: it did not, or it is gone.

        EAGAIN is no failure: another program has a lease on the file, and lets go of it soon.
        """
        node, name = key
        if code not in (0, errno.EAGAIN):
            names = self._failing.setdefault(node, {})
            before = names.get(name)
            since = time.monotonic() if before is None else before.since
            names[name] = _Failing(since, code)
        elif node in self._failing:
            self._failing[node].pop(name, None)
            if not self._failing[node]:
                del self._failing[node]

    def check(self, now: float) -> None:
        """Say what has lasted, and what is over; to be called every few seconds."""
        if not (self._failing or self._said):
            return
        lasting = self._lasting(now)
        failing = {node.root.watch.path for node in self._failing}
        for watch in self._said - lasting.keys():
            # Where some are left, what has been said of their directories says all.
            over = "" if watch in failing else f"%s: none is left that cannot be {self._done}"
            self._troubles.end(self._subject(watch), self._done, line=over)
        for watch, nodes in lasting.items():
            self._troubles.begin(self._subject(watch), self._message(nodes), self._done)
        self._said = set(lasting)

    def _lasting(self, now: float) -> dict[str, list[Node]]:
        """Return the directories of which something is to be said, by watch."""
        found: dict[str, list[Node]] = {}
        for node, names in list(self._failing.items()):
            oldest = next(iter(names.values()))
            if node.is_left:
                del self._failing[node]  # nobody looks there again
            elif now - oldest.since >= LASTS and not self._source.is_troubled(node):
                found.setdefault(node.root.watch.path, []).append(node)
        return found

    def _subject(self, watch: str) -> str:
        # Not the watch's path alone: that one cannot be watched is another matter (health).
        return f"{self._things} in {watch}"

    def _message(self, nodes: Sequence[Node]) -> str:
        count = sum(len(self._failing[node]) for node in nodes)
        name, one = next(iter(self._failing[nodes[0]].items()))
        path, why = printable(nodes[0].join(name)), _why(one.code)
        which = path if count == 1 else f"{count} of them, such as {path},"
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
