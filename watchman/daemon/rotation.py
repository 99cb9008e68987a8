"""The daemon's output files are rotated when they are large, by whoever has written to them.

logging's RotatingFileHandler would know of its own records only, not of what Python or a library
writes to standard error; and two processes (one that can be left behind, one that waits) write to
the same file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from typing import Any, TextIO

from watchman.daemon.places import open_output
from watchman.log_queue import LogTrouble
from watchman.text import printable

log = logging.getLogger("watchman.service")


class Limits:
    """When to rotate; a reload may change it."""

    def __init__(self, size: int, files: int) -> None:
        self.size = size
        """Bytes from which on a file is rotated; 0 for never."""
        self.files = files
        """How many rotated ones are kept: ``watchman.out.1`` is the newest."""


class RotatedStream:
    """A text stream on a file, in place of ``sys.stdout``: rotates it after a write.

    The path is opened again under the stream's descriptor, so nothing that is written meanwhile is
    lost: it is in the one file or in the other.
    """

    def __init__(self, stream: TextIO, path: str, limits: Limits) -> None:
        self._stream = stream
        self._path = path
        self._limits = limits
        self.trouble: LogTrouble | None = None
        """Why the file grows beyond its limit; ``queued_logging`` shows it in the status."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, then rotate the file if it is too large by now."""
        count = self._stream.write(text)
        if text.endswith("\n"):  # a line is never torn
            self._see(self._rotate())
        return count

    def _rotate(self) -> OSError | None:
        """Rotate the file if it is too large; return why it cannot be."""
        size = self._limits.size
        if not size:
            return None
        status = os.fstat(self._stream.fileno())
        if status.st_size <= size or not stat.S_ISREG(status.st_mode):
            return None
        # Where somebody else has moved it away (a second process of ours, logrotate), the new one
        # is opened, and not rotated as well. A name that cannot be moved is written on.
        try:
            if _is_at(self._path, status):
                _shift(self._path, self._limits.files)
            reopen(self._path, self._stream.fileno())
        except OSError as error:
            return error
        return None

    def _see(self, error: OSError | None) -> None:
        """Say, once, that the file cannot be rotated, and that it can again.

        Though what is logged may be written here: by then it has been said.
        """
        before = self.trouble
        if error is None:
            self.trouble = None
            if before is not None:
                log.warning("%s is no longer too large", printable(self._path))
        elif before is None:
            name = error.filename2 or error.filename or self._path
            why = (
                f"cannot be rotated: {printable(name)}: {error.strerror}; it is written on, and "
                "grows; correct that, or set LOG_MEGABYTES = 0"
            )
            self.trouble = LogTrouble(self._path, why, time.time_ns())
            log.error("%s %s", printable(self._path), why)


def reopen(path: str, number: int) -> None:
    """Open a file for output under a descriptor's number. Raises OSError, and changes nothing."""
    descriptor = open_output(path)
    os.dup2(descriptor, number)
    os.close(descriptor)


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _shift(path: str, files: int) -> None:
    """Move ``path`` to ``path.1``, and each older one a number further; the oldest goes.

    Only as far as there is one: where ``path`` cannot be moved, each line tries it again, and none
    of the older ones must be lost by that.
    """
    numbers = range(1, files)
    free = next((n for n in numbers if not os.path.lexists(f"{path}.{n}")), files)
    for number in range(free - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")
    os.replace(path, f"{path}.1")
