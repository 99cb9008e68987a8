"""Files that get no task, or get it late: said once for each watch, shown as long as it lasts.

There may be thousands of a kind: the log names the first, and the status counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from watchman.completeness import UNTESTED_SETTLE
from watchman.file_access import PATH_MAX
from watchman.model import Watch
from watchman.text import printable
from watchman.troubles import Trouble, Troubles

log = logging.getLogger("watchman.notify")

LONG = 300.0
"""Seconds from which on it is told that a file is open for writing."""
_LEASE, _PATH, _UNASKED, _BEFORE, _OPEN = "lease", "path", "unasked", "before", "open"
_PARTIAL = "partial"


class Notes:
    """The notes on the watches of one loop. Used from its thread; :meth:`all` from any."""

    def __init__(self, *, only_of_arrivals: bool = False) -> None:
        """``only_of_arrivals``: in a dry run, which tells of what is there by itself."""
        self._only_of_arrivals = only_of_arrivals
        self._found = Troubles()
        self._counts: dict[tuple[str, str], int] = {}
        """How many files there are of a kind, by watch and kind."""
        self._unsaid: dict[str, str] = {}
        """By watch: what a scan has noted, and the log is to say at its end."""

    def all(self) -> list[Trouble]:
        """Return all that is so at the moment; the subjects are the watches."""
        return self._found.all()

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
        self._found.begin(watch.path, text, _LEASE)

    def too_long(self, watch: Watch, path: str) -> None:
        """Say that a file cannot be announced, because no program can open its path."""
        if (watch.path, _PATH) in self._found:
            return
        text = (
            f"files whose paths are longer than {PATH_MAX} bytes are not announced, because no "
            f"program can open them by their path; the first begins with {printable(path[:200])}; "
            "have them uploaded with shorter names, or move their directories up"
        )
        self._found.begin(watch.path, text, _PATH)

    def unasked(self, watch: Watch, paths: Sequence[str]) -> None:
        """Say that no pattern matches what arrived."""
        count = self._count(watch, _UNASKED, paths)
        what = "no task is sent, because no pattern matches; add one, or names to IGNORE"
        said = f"{printable(paths[0])}: {what}; others like it are counted in 'notify status'"
        text = f"{_such_as(count, paths[-1])}: {what}"
        self._found.begin(watch.path, text, _UNASKED, said=said)

    def before(self, watch: Watch, paths: Sequence[str]) -> None:
        """Take note of what was there before and is not sent; :meth:`end_scan` says it."""
        if self._only_of_arrivals:
            return
        count = self._count(watch, _BEFORE, paths)
        what = (
            "there before, and not sent because 'existing' is "
            f"{watch.existing.value!r}; touch what is to be sent"
        )
        text = f"{_such_as(count, paths[-1])}: {what}"
        new = self._found.begin(watch.path, text, _BEFORE, said="")
        if new or watch.path in self._unsaid:
            self._unsaid[watch.path] = text

    def left(self, watch: Watch) -> None:
        """Drop what is noted of a watch that is no more."""
        for kind in (_LEASE, _PATH, _UNASKED, _BEFORE, _OPEN, _PARTIAL):
            self._found.end(watch.path, kind)
            self._counts.pop((watch.path, kind), None)
        self._unsaid.pop(watch.path, None)

    def end_scan(self) -> None:
        """Say what has only been noted, once for each watch."""
        while self._unsaid:
            path, text = self._unsaid.popitem()
            log.info("%s: %s", printable(path), text)

    def long_open(self, watch: Watch, paths: Sequence[str]) -> None:
        """Say which files have been open for writing for long; none: that is over."""
        if not paths:
            over = "%s: no file has been open for long any more"
            self._found.end(watch.path, _OPEN, line=over, level=logging.INFO)
            return
        what = (
            f"open for writing for more than {LONG / 60:g} minutes; a task is sent when nobody "
            "writes any more: 'fuser -v' tells who does"
        )
        self._found.begin(watch.path, f"{_such_as(len(paths), paths[0])}: {what}", _OPEN)

    def partial(self, watch: Watch, count: int, path: str, reason: str) -> None:
        """Say that files do not meet their criteria, one of them for that reason; 0: none does."""
        if not count:
            self._found.end(watch.path, _PARTIAL)
            return
        what = f"{_such_as(count, path)}: {printable(reason)}"
        then = (
            "a task is sent when it is whole, and after 'incomplete_after' it is incomplete; have "
            "it uploaded again if nobody does"
        )
        # The log has told of each of them.
        self._found.begin(watch.path, f"{what}; {then}", _PARTIAL, said="")

    def _count(self, watch: Watch, kind: str, paths: Sequence[str]) -> int:
        count = self._counts.get((watch.path, kind), 0) + len(paths)
        self._counts[watch.path, kind] = count
        return count


def _such_as(count: int, path: str) -> str:
    if count == 1:
        return printable(path)
    return f"{count} files or directories, such as {printable(path)}"


def say_what_would_happen(
    path: str,
    final: str | None,
    task: str | None,
    level: int = logging.INFO,
    *,
    is_asked: bool = False,
) -> None:
    """Log what an ordinary run would do with an arrival; ``is_asked`` if it were judged first."""
    if final is not None:
        log.log(level, "Dry run: would move %s to %s", printable(path), printable(final))
    if task is None:
        log.log(level, "Dry run: would send no task for %s: no pattern matches", printable(path))
    else:
        condition = " if it is what is asked of it" if is_asked else ""
        log.log(level, "Dry run: would send task %s%s", task, condition)
