"""The directories of a batch, opened once each and never through a symlink."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType

from watchman.filesystem import PATH_FLAGS, open_directory, relative_to
from watchman.mover.syscalls import sync_directory

MOST = 200
"""Directories that a batch may hold open on either side: descriptors are limited."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class RootError(OSError):
    """The destination root cannot be opened: it concerns every file on its way there."""


class Folders:
    """Descriptors of source and destination directories. A context manager, for one batch.

    The destination root is opened afresh with each instance and never created: behind the mount
    point of an unmounted share there is nothing, and it must stay so.
    """

    def __init__(self, watch_root_of: Callable[[str], str], moves: str, root: str) -> None:
        """``moves`` is the source directory that leads to ``root``."""
        self._watch_root_of = watch_root_of
        self._moves = moves
        self._root = root
        self._sources: dict[str, int | None] = {}
        self._targets: dict[str, int] = {}

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in (*self._sources.values(), *self._targets.values()):
            if descriptor is not None:
                os.close(descriptor)
        self._sources.clear()
        self._targets.clear()

    @property
    def way(self) -> tuple[str, str]:
        """The MOVES entry: source directory and destination root."""
        return self._moves, self._root

    @property
    def full(self) -> bool:
        """Say whether the batch must end because of its number of directories."""
        return len(self._sources) >= MOST or len(self._targets) >= MOST

    def top_of(self, path: str) -> str:
        """Return the directory below which no symlink is followed on the way to ``path``."""
        try:
            top = self._watch_root_of(path)
        except (LookupError, ValueError):
            top = ""  # the watch was taken out of the configuration
        for candidate in (top, self._moves):
            if candidate and path.startswith(candidate.rstrip("/") + "/"):
                return candidate
        raise OSError(errno.EINVAL, "is below no watch and no MOVES entry", path)

    def source(self, path: str) -> int | None:
        """Return the source directory ``path``; None if it is gone or became a symlink.

        Raises OSError where the watch root cannot be opened, and for EACCES and the like.
        """
        try:
            return self._sources[path]
        except KeyError:
            pass
        top = self.top_of(path + "/")
        # Where the watch itself is missing (not mounted?), nothing can be said of its files.
        os.close(open_directory(top, ""))
        try:
            descriptor: int | None = open_directory(top, relative_to(top, path))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            descriptor = None
        self._sources[path] = descriptor
        return descriptor

    def source_again(self, path: str) -> int | None:
        """Open a source directory afresh: another one may have taken its place meanwhile."""
        old = self._sources.pop(path, None)
        if old is not None:
            sync_directory(old)  # what was renamed out of it must be durable before the note
            os.close(old)
        return self.source(path)

    def target(self, path: str, mode: int | None) -> int | None:
        """Return the destination directory ``path`` below the root.

        With a ``mode``, missing directories are created, each made durable before the next;
        without one, the answer is None where it is missing. Raises RootError, OSError: ENOTDIR
        where a component is a symlink or a file.
        """
        try:
            return self._targets[path]
        except KeyError:
            pass
        try:
            descriptor = open_directory(self._root, "")
        except OSError as error:
            raise RootError(error.errno, error.strerror, self._root) from error
        try:
            for component in filter(None, relative_to(self._root, path).split("/")):
                below = _descend(descriptor, component, mode)
                os.close(descriptor)
                descriptor = below
        except FileNotFoundError:
            os.close(descriptor)
            if mode is None:
                return None
            raise
        except OSError:
            os.close(descriptor)
            raise
        self._targets[path] = descriptor
        return descriptor

    def refuse_unmounted(self, path: str, device: int) -> None:
        """Raise OSError if the watch of ``path``, recorded on ``device``, may be unmounted.

        Then it is an empty mount point on another file system, and proves nothing about its files.
        """
        top = self.top_of(path)
        with os.scandir(top) as entries:
            empty = next(entries, None) is None
        if empty and os.stat(top).st_dev != device:
            reason = "the watched directory is empty and on another file system than before"
            raise OSError(errno.ESTALE, reason, top)

    def sync_sources(self) -> None:
        """Make all that left the source directories durable."""
        for descriptor in self._sources.values():
            if descriptor is not None:
                sync_directory(descriptor)

    def sync_targets(self) -> None:
        """Make all that came into the destination directories durable."""
        for descriptor in self._targets.values():
            sync_directory(descriptor)


def mode_like(directory: int) -> int:
    """Return the mode for new directories: the source's, and ours to enter and write."""
    return stat.S_IMODE(os.fstat(directory).st_mode) & 0o777 | 0o700


def _descend(directory: int, component: str, mode: int | None) -> int:
    try:
        return os.open(component, PATH_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        if mode is None:
            raise
    # Somebody else may have made it just now; a symlink fails below.
    with contextlib.suppress(FileExistsError):
        os.mkdir(component, mode, dir_fd=directory)
    sync_directory(directory)
    return os.open(component, PATH_FLAGS, dir_fd=directory)
