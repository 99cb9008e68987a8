"""What is said once for each watch and shown as long as it lasts: files that get no task, or late.

There may be thousands of a kind: the log names the first, and the status counts them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from watchman.arrivals import UNTESTED_SETTLE
from watchman.filesystem import PATH_MAX
from watchman.model import Watch
from watchman.text import printable

log = logging.getLogger("watchman.notify")

LONG = 300.0
"""Seconds from which on it is told that a file is open for writing."""
_LEASE, _PATH, _UNASKED, _BEFORE, _OPEN = "lease", "path", "unasked", "before", "open"


class _Remark(NamedTuple):
    since_ns: int
    files: int
    text: str


class Remarks:
    """Used from one thread; :meth:`all` from any."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _Remark] = {}
        self._unsaid: dict[str, Watch] = {}
        """Watches in which a scan has noted something that the log does not have yet."""

    def all(self) -> list[tuple[str, str, int]]:
        """Return (watch, what, since when in ns) for all that is so at the moment."""
        return [(path, one.text, one.since_ns) for (path, _), one in list(self._found.items())]

    def untested(self, watch: Watch) -> None:
        """Say that the lease test cannot be made."""
        if (watch.path, _LEASE) in self._found:
            return
        settle = UNTESTED_SETTLE if watch.settle is None else watch.settle
        text = (
            "whether a file is still open for writing cannot be told for all of them (a lease "
            "needs their owner, or CAP_LEASE); such a file counts as complete when its size and "
            f"time have not changed for {settle:g} s; run watchman as the uploads' owner or as root"
        )
        self._set(watch, _LEASE, 0, text)
        self._log(watch, text)

    def too_long(self, watch: Watch, path: str) -> None:
        """Say that a file cannot be announced, because no program can open its path."""
        if (watch.path, _PATH) in self._found:
            return
        text = (
            f"files whose paths are longer than {PATH_MAX} bytes are not announced, because no "
            f"program can open them by their path; the first begins with {printable(path[:200])}"
        )
        self._set(watch, _PATH, 0, text)
        self._log(watch, text)

    def unasked(self, watch: Watch, paths: Sequence[str]) -> None:
        """Say that no pattern matches what arrived."""
        before = self._found.get((watch.path, _UNASKED))
        count = len(paths) + (before.files if before else 0)
        what = "no task is sent, because no pattern matches; add one, or names to IGNORE"
        self._set(watch, _UNASKED, count, f"{_such_as(count, paths[-1])}: {what}")
        if before is None:
            others = "; others like it are counted in 'notify status'"
            self._log(watch, f"{printable(paths[0])}: {what}{others}")

    def before(self, watch: Watch, paths: Sequence[str]) -> None:
        """Take note of what was there before and is not sent; :meth:`end_scan` says it."""
        found = self._found.get((watch.path, _BEFORE))
        if found is None:
            self._unsaid[watch.path] = watch
        count = len(paths) + (found.files if found else 0)
        what = (
            f"there before, and not sent because 'existing' is {watch.existing!r}; touch what is "
            "to be sent"
        )
        self._set(watch, _BEFORE, count, f"{_such_as(count, paths[-1])}: {what}")

    def end_scan(self) -> None:
        """Say what has only been noted, once for each watch."""
        while self._unsaid:
            path, watch = self._unsaid.popitem()
            self._log(watch, self._found[path, _BEFORE].text, logging.INFO)

    def long_open(self, watch: Watch, paths: Sequence[str]) -> None:
        """Say which files have been open for writing for long; none: that is over."""
        before = self._found.get((watch.path, _OPEN))
        if not paths:
            if before is not None:
                del self._found[watch.path, _OPEN]
                self._log(watch, "no file has been open for long any more", logging.INFO)
            return
        what = (
            f"open for writing for more than {LONG / 60:g} minutes; a task is sent when nobody "
            "writes any more: 'fuser -v' tells who does"
        )
        text = f"{_such_as(len(paths), paths[0])}: {what}"
        self._set(watch, _OPEN, len(paths), text)
        if before is None:
            self._log(watch, text)

    def _set(self, watch: Watch, kind: str, count: int, text: str) -> None:
        before = self._found.get((watch.path, kind))
        since_ns = before.since_ns if before else time.time_ns()
        self._found[watch.path, kind] = _Remark(since_ns, count, text)

    @staticmethod
    def _log(watch: Watch, text: str, level: int = logging.WARNING) -> None:
        log.log(level, "%s: %s", printable(watch.path), text)


def _such_as(count: int, path: str) -> str:
    if count == 1:
        return printable(path)
    return f"{count} files or directories, such as {printable(path)}"
