"""Entering directories at a destination, and making them like those they correspond to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from watchman.filesystem import DIRECTORY_FLAGS, PATH_FLAGS, open_directory
from watchman.mover.copy import copy_attributes
from watchman.mover.syscalls import sync_directory


@contextlib.contextmanager
def model_of(moves: str, relative: str, like: int) -> Iterator[int]:
    """Open the source directory that ``relative`` corresponds to, for reading if possible.

    ``moves`` is the directory of the MOVES entry. Where that was changed since, or the directory
    renamed, it is ``like``, the one of the file.
    """
    opened = -1
    try:
        with contextlib.suppress(OSError):
            opened = open_directory(moves, relative)
        model = like if opened < 0 else opened
        with contextlib.suppress(OSError):
            readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=model)
            if opened >= 0:
                os.close(opened)
            opened = model = readable
        yield model
    finally:
        if opened >= 0:
            os.close(opened)


def enter(descriptor: int, relative: str) -> int:
    """Enter ``relative`` without following symlinks; takes over ``descriptor``."""
    try:
        for component in filter(None, relative.split("/")):
            below = os.open(component, PATH_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_like(model: int, directory: int, component: str) -> int:
    """Make ``component`` like ``model``: mode with setgid, group and (as root) owner, attributes.

    One that somebody else has made meanwhile stays as it is; a symlink is refused.
    """
    status = os.fstat(model)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | 0o700
    try:
        os.mkdir(component, mode, dir_fd=directory)
    except FileExistsError:
        return os.open(component, PATH_FLAGS, dir_fd=directory)
    # mkdir(2) takes the umask off, and gives it to us: its uploader could not read what is in it.
    made = os.open(component, DIRECTORY_FLAGS, dir_fd=directory)
    try:
        copy_attributes(model, status, made)
        kept = stat.S_IMODE(os.fstat(made).st_mode)
        if kept & 0o700 != 0o700:
            os.fchmod(made, kept | 0o700)  # as somebody else than root we must get in ourselves
        os.fsync(made)
    finally:
        os.close(made)
    sync_directory(directory)
    return os.open(component, PATH_FLAGS, dir_fd=directory)
