"""The directories of a batch: opened once each, through no symlink, and behind no lost mount."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from watchman.file_access import (
    DIRECTORY_FLAGS,
    PATH_FLAGS,
    for_listing,
    open_below,
    open_directory,
    open_watch,
    relative_to,
)
from watchman.model import Delivery, Watch
from watchman.mover.copy import copy_attributes
from watchman.mover.known_mounts import KnownMounts
from watchman.mover.outcomes import DirectoryError, RootError
from watchman.mover.syscalls import NOT_THERE, sync_directory

MOST = 200
"""Directories that a batch may hold open on either side: descriptors are limited."""


class OpenDirectories:
    """The source and destination directories of one batch. A context manager, for one thread.

    The destination root is opened anew with each instance and never made: behind the mount point of
    an unmounted share there is nothing, and it must stay so.
    """

    def __init__(
        self, watch_of: Callable[[str], Watch | None], moves: str, root: str, known: KnownMounts
    ) -> None:
        """``moves`` and ``root`` are the MOVES entry: source directory and destination.

        ``watch_of`` returns the watch that a source is in; None where there is none.
        """
        self._watch_of = watch_of
        self._moves = moves
        self._root = root
        self._mounts = known
        self._sources: dict[str, int | None] = {}
        """Descriptors by path; None for what is not there."""
        self._targets: dict[str, int] = {}

    def __enter__(self) -> OpenDirectories:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all directories; they are opened again when they are needed."""
        for descriptor in (*self._sources.values(), *self._targets.values()):
            if descriptor is not None:
                os.close(descriptor)
        self._sources.clear()
        self._targets.clear()

    @property
    def move(self) -> tuple[str, str]:
        """The MOVES entry: source directory and destination root."""
        return self._moves, self._root

    def mount_points(self) -> list[str]:
        """Return what the destination is mounted on, as far as it has been seen."""
        self._mounts.look()
        return self._mounts.points()

    @property
    def full(self) -> bool:
        """Say whether the batch must end because of its number of directories."""
        return len(self._sources) >= MOST or len(self._targets) >= MOST

    def top_of(self, path: str) -> str:
        """Return the directory below which no symlink is followed on the way to ``path``."""
        return self._around(path).top

    def _around(self, path: str) -> Watch:
        """Return the watch that ``path`` is in; the MOVES entry's directory where it is no more."""
        for watch in (self._watch_of(path), Watch(self._moves)):
            if watch is not None and path.startswith(watch.prefix):
                return watch
        raise OSError(errno.EINVAL, "is below no watch and no MOVES entry", path)

    def source(self, path: str) -> int | None:
        """Return the source directory ``path``; None if it is gone or became a symlink.

        Raises OSError where the watch root cannot be opened, and for EACCES and the like.
        """
        try:
            return self._sources[path]
        except KeyError:
            pass
        try:
            descriptor = self._open_source(path)
        except OSError as error:
            raise DirectoryError(error.errno, error.strerror, error.filename or path) from error
        self._sources[path] = descriptor
        return descriptor

    def _open_source(self, path: str) -> int | None:
        top = self.top_of(path + "/")
        # Where the watch itself is missing (not mounted?), nothing can be said of its files.
        os.close(open_directory(top, ""))
        try:
            return open_directory(top, relative_to(top, path))
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None

    def source_again(self, path: str) -> int | None:
        """Open a source directory anew: another one may have taken its place meanwhile."""
        old = self._sources.pop(path, None)
        if old is not None:
            # What was renamed out of it must be durable before the note, and is not in
            # :meth:`sync_sources` any more.
            sync_directory(old)
            os.close(old)
        return self.source(path)

    def target(self, path: str, like: int | None) -> int | None:
        """Return the destination directory ``path`` below the root.

        With ``like``, the source directory that its files come from, missing directories are
        made, each durable before the next; without, the answer is None where one is missing.
        Raises RootError; DirectoryError: ENOTDIR where a component is a symlink or a file.
        """
        try:
            return self._targets[path]
        except KeyError:
            pass
        descriptor = self._open_root()
        relative = relative_to(self._root, path)
        try:
            if like is not None:
                descriptor = self._descend(descriptor, relative, like)
            else:
                descriptor = open_below(descriptor, relative)
        except FileNotFoundError as error:
            if like is None:
                return None
            raise DirectoryError(error.errno, error.strerror, path) from error
        except (RootError, DirectoryError):
            raise
        except OSError as error:
            raise DirectoryError(error.errno, error.strerror, error.filename or path) from error
        try:
            # Not before it was opened: only what is held open cannot be unmounted.
            self._mounts.refuse_unmounted(relative)
        except OSError:
            os.close(descriptor)
            raise
        self._targets[path] = descriptor
        return descriptor

    def _open_root(self) -> int:
        try:
            descriptor = open_directory(self._root, "")
        except OSError as error:
            raise RootError(error.errno, error.strerror, self._root) from error
        try:
            # Before anything is made in the root: it may be an empty mount point.
            self._mounts.look(os.fstat(descriptor))
            self._mounts.refuse_unmounted("")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _descend(self, descriptor: int, relative: str, like: int) -> int:
        """Return ``relative`` opened, making what is missing; ``descriptor`` is closed."""
        done = ""
        try:
            for component in filter(None, relative.split("/")):
                done = f"{done}/{component}" if done else component
                try:
                    below = os.open(component, PATH_FLAGS, dir_fd=descriptor)
                except FileNotFoundError:
                    self._mounts.refuse_unmounted(done)
                    with _model_of(self._moves, done, like) as model:
                        below = _make_like(model, descriptor, component)
                os.close(descriptor)
                descriptor = below
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def roots_fail(self) -> bool:
        """Say whether source or destination as a whole do not answer, or are read-only."""
        for root in (self._moves, self._root):
            try:
                if os.statvfs(root).f_flag & os.ST_RDONLY:
                    return True
            except FileNotFoundError:
                continue  # said where it is opened
            except OSError:
                return True
        return False

    def forbids(self, row: Delivery) -> bool:
        """Say whether a directory of the row cannot be written: that concerns all files in it."""
        for find, path in ((self.source, row.source), (self._known_target, row.final)):
            try:
                directory = find(os.path.dirname(path))
            except OSError:
                return True
            if directory is not None and not os.access(
                ".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True
            ):
                return True
        return False

    def _known_target(self, path: str) -> int | None:
        return self.target(path, None)

    def refuse_unmounted(self, path: str, device: int) -> None:
        """Raise OSError if the watch of ``path``, recorded on ``device``, may be unmounted.

        Then it is an empty mount point on another file system, and proves nothing about its files.
        """
        watch = self._around(path)
        try:
            top = for_listing(open_watch(watch))
        except OSError as error:
            if not watch.pattern or error.errno not in NOT_THERE:
                raise
            # What matches a pattern goes with its uploader, or with the mount that it is in.
            top = for_listing(open_directory(watch.top, ""))
        try:
            with os.scandir(top) as entries:
                empty = next(entries, None) is None
            other = os.fstat(top).st_dev != device
        finally:
            os.close(top)
        if empty and other:
            reason = "the watched directory is empty and on another file system than before"
            raise RootError(errno.ESTALE, reason, watch.path)

    def sync_sources(self) -> None:
        """Make all that left the source directories durable."""
        for descriptor in self._sources.values():
            if descriptor is not None:
                sync_directory(descriptor)

    def sync_targets(self) -> None:
        """Make all that came into the destination directories durable."""
        for descriptor in self._targets.values():
            sync_directory(descriptor)


@contextlib.contextmanager
def _model_of(moves: str, relative: str, like: int) -> Iterator[int]:
    """Open the directory whose attributes ``relative`` below a destination is to get.

    That is the directory of this relative path below ``moves``, the source of the MOVES entry;
    where it is gone by now, ``like``, the open one that the file comes from. Opened for reading if
    that is allowed: extended attributes need it.
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


def _make_like(model: int, directory: int, component: str) -> int:
    """Make ``component`` in ``directory``, durably, and return it opened.

    It gets the mode (with setgid), group, owner (as root) and attributes of ``model``. One that
    somebody else has made meanwhile stays as it is; a symlink is refused.
    """
    status = os.fstat(model)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | 0o700
    try:
        os.mkdir(component, mode, dir_fd=directory)
    except FileExistsError:
        return os.open(component, PATH_FLAGS, dir_fd=directory)
    # mkdir(2) applies the umask and makes us the owner: the uploader could not read what is in it.
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
