"""Replacing a small file in one step, and removing what is left of that by killed processes."""

from __future__ import annotations

import contextlib
import os
import re
import time

_SUFFIX = ".new"
"""Nobody takes a file with this ending for one of his: node_exporter reads ``*.prom``."""
_RANDOM = 8
"""Bytes that tell one attempt from all others, of whichever process."""
_HEX = f"[0-9a-f]{{{2 * _RANDOM}}}"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFT = 60.0
"""Seconds after which a file is nobody's any more who is still at it."""


def replace(path: str, words: bytes, mode: int = 0o600) -> None:
    """Replace a file, so that nobody reads half of it. Raises OSError.

    Not fsynced: after a crash of the machine it may be empty.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(_RANDOM).hex()}{_SUFFIX}")
    descriptor = os.open(temporary, _FLAGS, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(words)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_left(path: str) -> None:
    """Remove what processes that were killed in :func:`replace` have left beside a file."""
    directory, name = os.path.split(path)
    ours = re.compile(re.escape(f".{name}.") + _HEX + re.escape(_SUFFIX))
    with contextlib.suppress(OSError):
        for other in filter(ours.fullmatch, os.listdir(directory)):
            left = os.path.join(directory, other)
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(left).st_mtime > _LEFT:
                    os.unlink(left)
