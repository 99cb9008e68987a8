"""The daemon's output files are rotated when they are large, by whoever has written to them.

logging's RotatingFileHandler would know of its own records only, not of what Python or a library
writes to standard error; and two processes (one that can be left behind, one that waits) write to
the same file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, TextIO

from watchman.daemon.places import open_output


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, then rotate the file if it is too large by now."""
        count = self._stream.write(text)
        if text.endswith("\n"):  # a line is never torn
            self._rotate()
        return count

    def _rotate(self) -> None:
        size = self._limits.size
        if not size:
            return
        status = os.fstat(self._stream.fileno())
        if status.st_size <= size or not stat.S_ISREG(status.st_mode):
            return
        # Where somebody else has moved it away (a second process of ours, logrotate), the new one
        # is opened, and not rotated as well. A name that cannot be moved is written on.
        with contextlib.suppress(OSError):
            if _is_at(self._path, status):
                _shift(self._path, self._limits.files)
            reopen(self._path, self._stream.fileno())


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
    """Move ``path`` to ``path.1``, and each older one a number further; the oldest goes."""
    for number in range(files - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")
    os.replace(path, f"{path}.1")
