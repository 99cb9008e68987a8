"""Directories that cannot be watched: why, and what helps."""

from __future__ import annotations

import errno
import os
import threading

from watchman import limits
from watchman.file_access import PATH_MAX
from watchman.limits import KernelLimit, watch_limit
from watchman.pipeline.schedule import RETRY_UNWATCHED
from watchman.troubles import Troubles

_ENOUGH = 524_288
_WATCHES = "inotify watches"


class Unwatched:
    """Makes troubles of what the sources meet. Used from any thread."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._lock = threading.Lock()
        self._without_watch: set[str] = set()
        """Directories for which the kernel has no watch left: many, with one trouble for all."""

    def say(self, path: str, error: OSError | None) -> None:
        """Take note of why a directory is not watched, or not as it should be; None: it is."""
        with self._lock:
            if error is not None and error.errno == errno.ENOSPC:
                self._without_watch.add(path)
                self._troubles.end(path)
            else:
                self._without_watch.discard(path)
                if error is None:
                    self._troubles.end(path, line="Watching %s again")
                else:
                    self._begin(path, _reason(error))
            self._say_limit()

    def left(self, path: str) -> None:
        """Take note that a directory with trouble is not there any more."""
        with self._lock:
            self._troubles.end(path)
            if path in self._without_watch:
                self._without_watch.discard(path)
                self._say_limit()

    def _say_limit(self) -> None:
        """Have one trouble for all directories without a watch, until there is none of them."""
        if not self._without_watch:
            self._troubles.end(_WATCHES, line="%s are enough again")
        elif len(self._without_watch) == 1:
            # The first, or the last that is left: the limit may have been raised meanwhile.
            self._begin(_WATCHES, _limit_reached())

    def _begin(self, subject: str, message: str) -> None:
        self._troubles.begin(subject, message, line="Not watching %s: %s")


def _reason(error: OSError) -> str:
    reached = limits.explain(error)
    if reached is not None:
        return reached
    why = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{why}; give user {os.geteuid()} read and search permission there"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{why}; create it or mount it: it is watched as soon as it is there"
    if error.errno == errno.ENAMETOOLONG:
        return (
            "directories in it are so deep that the paths of their files are longer than "
            f"{PATH_MAX} bytes, and no program can open those; move them up"
        )
    if error.errno == errno.EEXIST:
        return f"{why}, which is the same directory; remove one of the two from WATCHES"
    return f"{why}; it is tried again; look into the kernel's log"


def _limit_reached() -> str:
    setting, limit = watch_limit() or KernelLimit("fs.inotify.max_user_watches", 0)
    return (
        f"the limit of {limit} watches is reached; directories without one are only scanned, every "
        f"{RETRY_UNWATCHED:.0f} s; raise it with 'sysctl {setting}={max(2 * limit, _ENOUGH)}'"
    )
