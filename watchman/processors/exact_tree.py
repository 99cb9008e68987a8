"""The directories that a processor's watch covers, kept right through renames and lost events."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from watchman import coverage
from watchman.file_access import (
    GONE_ERRNOS,
    PATH_FLAGS,
    for_listing,
    open_below,
    open_watch,
    status_of_watch,
)
from watchman.model import Watch
from watchman.sources import instance as ev
from watchman.sources.at_start import AtStart
from watchman.sources.just_gone import JustGone
from watchman.sources.listener import UnwatchedListener

Identity = tuple[int, int]
"""Device and inode."""

_LISTING = ev.IN_OPEN | ev.IN_ACCESS | ev.IN_CLOSE_NOWRITE
"""What listing a directory causes in the directory itself."""


class WatchedDirectory:
    """A watched directory."""

    __slots__ = ("children", "identity", "leaving", "name", "parent", "wd")

    def __init__(self) -> None:
        self.wd = -1
        self.identity: Identity | None = None
        self.name = ""
        self.parent: WatchedDirectory | None = None
        self.children: dict[str, WatchedDirectory] = {}
        self.leaving = False
        """It left its name, and where it went is not known yet."""

    @property
    def relative(self) -> str:
        """The path below the watch's own; empty for that."""
        names: list[str] = []
        directory: WatchedDirectory = self
        while directory.parent is not None:
            names.append(directory.name)
            directory = directory.parent
        return "/".join(reversed(names))

    def leave(self) -> None:
        """Give up the name."""
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]

    def settle(self, parent: WatchedDirectory, name: str) -> None:
        """Stand under this name from now on."""
        self.leave()
        self.parent, self.name, self.leaving = parent, name, False
        parent.children[name] = self


class KernelWatch(NamedTuple):
    """A directory that the kernel watches, by its number there."""

    wd: int
    identity: Identity


class Entry(NamedTuple):
    """A name in a directory."""

    name: str
    is_dir: bool
    is_file: bool
    inode: int


class ExactTree:
    """The watched directories of one watch; ``mask`` is what the kernel is asked for."""

    def __init__(
        self,
        watch: Watch,
        instance: ev.Instance,
        mask: int,
        listener: UnwatchedListener,
        at_start: AtStart,
    ) -> None:
        self._watch = watch
        self._instance = instance
        self._mask = mask
        self._listener = listener
        self._at_start = at_start
        self._just_gone = JustGone(watch)
        self._troubled: set[str] = set()
        self.root = WatchedDirectory()
        self.by_wd: dict[int, WatchedDirectory] = {}

    def path(self, directory: WatchedDirectory, name: str = "") -> str:
        """Return a directory's path, or that of an entry in it, as the events so far tell it."""
        below = "/".join(filter(None, (directory.relative, name)))
        return self._watch.prefix + below if below else self._watch.path

    def begin(self, *, first: bool) -> None:
        """Watch the tree from its top: at the start, or again after events were lost.

        Our own listing is not seen by the watch: what it causes is asked for afterwards.
        """
        deeper = coverage.reaches_below(self._watch)
        self.root.identity = None
        found = self.add(self.root, mask=self._mask & ~_LISTING if deeper else self._mask)
        if found is None:
            return
        self.root.wd, self.root.identity = found
        self.by_wd[found.wd] = self.root
        self._at_start.watched = True
        if deeper:
            if not self._watch.rec:
                # A reload goes on with what is watched already.
                first = not self._at_start.has_begun(found.identity)
            self._walk(first=first)
            self._at_start.begin(found.identity)

    def check_root(self) -> bool:
        """Say whether the watch's path is there; start over if it is not what is watched.

        A directory that is renamed away stays watched: it may come back, and nothing was missed.
        """
        path = self._watch.path
        try:
            identity = _identity(status_of_watch(self._watch))
        except OSError as error:
            self._lost(path, error)
            return False
        self._just_gone.is_there()
        ended = self.root.wd < 0 and not self._mask & ev.IN_ONESHOT
        if identity != self.root.identity or ended:
            self.forget(self.root)
            self.begin(first=True)
        elif path in self._troubled:
            self._say(path, None)
        return True

    def settle(self, found: KernelWatch, parent: WatchedDirectory, name: str) -> WatchedDirectory:
        """Put a directory that the kernel watches under this name; return it as in the tree.

        One that was watched before is the same as before, whatever its name was.
        """
        directory = self.by_wd.get(found.wd)
        if directory is None:
            directory = self.by_wd[found.wd] = WatchedDirectory()
            directory.wd, directory.identity = found
        if directory is not self.root:  # a bind mount can show it again further down
            directory.settle(parent, name)
        return directory

    def add(
        self, parent: WatchedDirectory, name: str = "", mask: int | None = None
    ) -> KernelWatch | None:
        """Have the directory ``name`` watched, or the parent itself; None where that fails."""
        try:
            descriptor = self._open(parent, name)
        except OSError as error:
            self._lost(self.path(parent, name), error)
            return None
        try:
            identity = _identity(os.fstat(descriptor))
            wd = self._instance.add(descriptor, mask or self._mask)
        except OSError as error:
            self._say(self.path(parent, name), error)
            return None
        finally:
            os.close(descriptor)
        if self._troubled:
            self._say(self.path(parent, name), None)
        return KernelWatch(wd, identity)

    def _open(self, directory: WatchedDirectory, name: str = "") -> int:
        """Open a watched directory, or the one ``name`` in it, as an ``O_PATH`` descriptor.

        Raises OSError, ESTALE where its path leads to another directory by now.
        """
        descriptor = open_below(open_watch(self._watch), directory.relative)
        try:
            if directory.identity not in (None, _identity(os.fstat(descriptor))):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return os.open(name, PATH_FLAGS, dir_fd=descriptor) if name else os.dup(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def listing(self, directory: WatchedDirectory) -> Iterator[tuple[int, list[Entry]]]:
        """Yield a descriptor of a watched directory and what is in it; -1 if it is gone."""
        descriptor, entries = -1, []
        try:
            descriptor = for_listing(self._open(directory))
            with os.scandir(descriptor) as found:
                entries = [
                    Entry(
                        e.name,
                        e.is_dir(follow_symlinks=False),
                        e.is_file(follow_symlinks=False),
                        e.inode(),
                    )
                    for e in found
                ]
        except OSError as error:
            self._lost(self.path(directory), error)
        try:
            yield descriptor, entries
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def excluded(self, parent: WatchedDirectory, name: str) -> bool:
        """Say whether the watch leaves a directory out (``exclude_filter``)."""
        return coverage.is_excluded(self._watch, self.path(parent, name))

    def dropped(self, wd: int) -> None:
        """Note that the kernel watches a directory no longer."""
        directory = self.by_wd.pop(wd)
        directory.leave()
        directory.wd = -1

    def release(self, found: KernelWatch) -> None:
        """Stop watching a directory that is not in the tree."""
        if found.wd not in self.by_wd:
            self._instance.remove(found.wd)

    def forget(self, top: WatchedDirectory) -> None:
        """Stop watching a directory and all below it, which may still be there."""
        top.leave()
        pending = [top]
        while pending:
            directory = pending.pop()
            pending.extend(directory.children.values())
            directory.children = {}
            if self.by_wd.pop(directory.wd, None) is not None:
                self._instance.remove(directory.wd)
            directory.wd = -1

    def gone(self, directory: WatchedDirectory, name: str) -> None:
        """Note that nothing is left under this name of what could not be watched there."""
        if self._troubled:
            path = self.path(directory, name)
            self._end({one for one in self._troubled if f"{one}/".startswith(f"{path}/")})

    def _end(self, paths: set[str]) -> None:
        self._troubled -= paths
        for path in paths:
            self._listener.left(path)

    def _walk(self, *, first: bool) -> None:
        visited = {self.root.wd}
        troubled = self._troubled - {self._watch.path}
        queue = [self.root]
        for directory in queue:  # grows meanwhile
            known, directory.children = directory.children, {}
            with self.listing(directory) as (descriptor, entries):
                names = [
                    entry.name
                    for entry in entries
                    if entry.is_dir
                    and (
                        entry.name in known
                        or self._is_followed(directory, entry, descriptor, first=first)
                    )
                ]
            for name in names:
                if self.excluded(directory, name):
                    continue
                troubled.discard(self.path(directory, name))
                watched = self.add(directory, name, self._mask & ~_LISTING)
                if watched is not None and watched.wd not in visited:
                    visited.add(watched.wd)
                    queue.append(self.settle(watched, directory, name))
        self._end(troubled)  # what the walk has not met
        for wd in self.by_wd.keys() - visited:
            del self.by_wd[wd]
            self._instance.remove(wd)
        if self._mask & _LISTING:
            for directory in reversed(queue):
                self.add(directory)

    def _is_followed(
        self, directory: WatchedDirectory, entry: Entry, descriptor: int, *, first: bool
    ) -> bool:
        """Say whether a directory that a walk found is to be watched."""
        # Without `rec` all below the watch's own directory came after the start.
        begins = first and (self._watch.rec or directory is self.root)
        if begins and not self._watch.rec:
            self._at_start.note(self.path(directory), entry.name, entry.inode, descriptor)
        was_there = begins or bool(self.left_out(directory, descriptor, [entry]))
        return coverage.is_followed(self._watch, at_start=was_there)

    def left_out(
        self, directory: WatchedDirectory, descriptor: int, entries: Sequence[Entry]
    ) -> set[str]:
        """Return the names in a directory of those that were there at the start, under any name.

        ``descriptor`` is that of the directory. None of a watch with ``rec``.
        """
        if self._watch.rec:
            return set()
        path = self.path(directory)
        return {
            entry.name
            for entry in entries
            if entry.is_dir
            and self._at_start.finds(path, entry.name, entry.inode, descriptor, moved_in=False)
        }

    def left(self, directory: WatchedDirectory, name: str, cookie: int) -> None:
        """Note that a directory that is not watched was removed or renamed."""
        self._at_start.left(self.path(directory), name, cookie)

    def is_new(self, directory: WatchedDirectory, name: str, cookie: int) -> bool:
        """Say whether a directory that came, and was not watched, was not there at the start."""
        return self._watch.rec or not self._at_start.came(self.path(directory), name, cookie)

    def _lost(self, path: str, error: OSError) -> None:
        """Pass on what is wrong with a directory, unless it is only gone and not the top."""
        if path != self._watch.path:
            self._say(path, None if error.errno in GONE_ERRNOS else error)
        elif not self._just_gone.may_be_given_up(error):
            self._say(path, error)

    def _say(self, path: str, error: OSError | None) -> None:
        if error is not None and path not in self._troubled:
            self._troubled.add(path)
            self._listener.say(path, error)
        elif error is None and path in self._troubled:
            self._troubled.discard(path)
            self._listener.say(path, None)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
