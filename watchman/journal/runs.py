"""What runs have seen to the end: which files of which directories are no longer "there before".

A run is kept by what it covers: by kind, path and ``rec`` of its watch. So what was seen stays seen
when a watch is widened, narrowed or moved, and what is newly covered has a first run of its own.
Older versions kept the path alone; such a run has covered whatever is below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from watchman.model import Watch, WatchKind


def run_of(watch: Watch, path: str | None = None) -> str:
    """Return the name of a run on a watch, or on one like it on another path or pattern."""
    return _name(watch.kind, watch.path if path is None else path, rec=watch.rec)


class Runs:
    """The runs that a journal knows, by name: when each was over, or minus when it began, in ns."""

    def __init__(self, times: Mapping[str, int]) -> None:
        self._times = times

    def before_ns(self, kind: WatchKind, directory: str) -> float:
        """Return the time before which what changed in a directory was there before any run on it.

        -inf where a run has seen all that was there; inf where none has begun.
        """
        times = [self._times[name] for name in _covering(kind, directory) if name in self._times]
        if any(time_ns > 0 for time_ns in times):
            return -math.inf
        return min((-time_ns for time_ns in times), default=math.inf)

    def matched_before_ns(self, watch: Watch) -> float:
        """Return when the first run began on the pattern that a watch matches; inf for none.

        Runs on patterns are never over. That of what matches begins when its pattern's began.
        """
        names = (run_of(watch, watch.pattern), watch.pattern) if watch.pattern else ()
        return next((-self._times[name] for name in names if name in self._times), math.inf)


def _name(kind: WatchKind, path: str, *, rec: bool) -> str:
    return f"{kind.value}{' rec' if rec else ''}:{path}"


def _covering(kind: WatchKind, directory: str) -> Iterator[str]:
    """Yield the names of all runs that would see what is of this kind in a directory."""
    yield _name(kind, directory, rec=False)
    above = directory
    while True:
        yield _name(kind, above, rec=True)
        yield above
        if above in ("", "/"):
            return
        above = above.rpartition("/")[0] or "/"
