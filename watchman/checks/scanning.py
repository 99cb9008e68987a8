"""``notify scan``: what is in the watches and not known, found without changing anything."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from watchman import coverage
from watchman.filesystem import DIRECTORY_FLAGS, Seen, look, version_of
from watchman.identity import is_same_content
from watchman.journal.reading import Reading
from watchman.model import Config, Version, Watch
from watchman.router import Router

_PENDING = {
    Seen.COMPLETE: "complete",
    Seen.BUSY: "being written",
    Seen.UNTESTED: "not tested",
}


NO_PATTERN = "no pattern matches"


@dataclass(frozen=True)
class Unknown:
    """A file (or finished directory) that the journal does not know in its present version."""

    path: str
    watch: str
    size: int
    state: str
    """``complete``, ``being written``, ``not tested`` (the settle rule decides), ``unreadable``."""
    task: str | None
    destination: str | None
    note: str = ""
    """Why a catch-up would send no task for it; empty if it would."""


def unknown(config: Config, journal: Reading) -> Iterator[Unknown]:
    """Yield what the catch-up of a start would look at. The journal is only read."""
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    watches = [
        watch
        for watch in config.watches
        if watch.processor is None and not coverage.asks_for_nothing(watch)
    ]
    first_runs = journal.first_runs(watch.path for watch in watches)
    with _ignoring_sigio():
        for watch in watches:
            first = watch.path in first_runs
            yield from _Walk(watch, router, journal, first=first).all()


class _Walk:
    """The walk of one watch, a directory at a time."""

    def __init__(self, watch: Watch, router: Router, journal: Reading, *, first: bool) -> None:
        self.watch = watch
        self.router = router
        self.journal = journal
        self.note = ""
        if watch.existing == "none":
            self.note = "existing is 'none': what is there at a start is never sent"
        elif watch.existing == "new" and first:
            self.note = "existing is 'new': what is there before the first run is not sent"

    def all(self) -> Iterator[Unknown]:
        flags = DIRECTORY_FLAGS & ~os.O_NOFOLLOW  # the configured path may be a symlink
        todo: list[str] = [""]
        while todo:
            relative = todo.pop()
            path = self.watch.prefix + relative if relative else self.watch.path
            try:
                descriptor = _open(self.watch.path, relative, flags)
            except OSError as error:
                yield self._unreadable(path, error)
                continue
            try:
                yield from self._list(descriptor, relative, path, todo)
            finally:
                os.close(descriptor)

    def _list(
        self, descriptor: int, relative: str, path: str, todo: list[str]
    ) -> Iterator[Unknown]:
        known = self.journal.known(path)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    full = f"{path.rstrip('/')}/{entry.name}"
                    with contextlib.suppress(OSError):  # gone meanwhile
                        yield from self._entry(entry, full, relative, descriptor, known, todo)
        except OSError as error:  # the listing itself
            yield self._unreadable(path, error)

    def _entry(
        self,
        entry: os.DirEntry[str],
        full: str,
        relative: str,
        descriptor: int,
        known: Mapping[str, Version],
        todo: list[str],
    ) -> Iterator[Unknown]:
        is_dir = entry.is_dir(follow_symlinks=False)
        if self.router.ignored(entry.name, full, directory=is_dir):
            return
        if is_dir:
            if self.watch.kind == "directories":
                yield from self._unit(entry.name, full, relative, known, todo)
            elif coverage.is_followed(self.watch, at_start=True) and not coverage.is_excluded(
                self.watch, full
            ):
                todo.append(f"{relative}/{entry.name}" if relative else entry.name)
        elif self.watch.kind == "files" and entry.is_file(follow_symlinks=False):
            version = version_of(entry.stat(follow_symlinks=False))
            before = known.get(entry.name)
            if before is None or not is_same_content(before, version):
                yield from self._look(entry.name, descriptor, full)

    def _unit(
        self, name: str, full: str, relative: str, known: Mapping[str, Version], todo: list[str]
    ) -> Iterator[Unknown]:
        """A directory in a watch for whole directories.

        With ``rec``, one that was never announced and becomes no task itself is entered, as the
        service does (``notify.directories``).
        """
        unfinished = coverage.is_unfinished(name, self.watch.unfinished)
        if unfinished or coverage.is_excluded(self.watch, full):
            return
        wanted = self.router.is_wanted(full)
        if name not in known and (wanted or not self.watch.rec):
            yield self._found(full, 0, "complete")
        elif (
            self.watch.rec
            and not self.router.is_dry_run(full)
            and (name not in known or not self.journal.is_announced(full))
        ):
            todo.append(f"{relative}/{name}" if relative else name)

    def _unreadable(self, path: str, error: OSError) -> Unknown:
        reason = error.strerror or str(error)
        return Unknown(path, self.watch.path, 0, "unreadable", None, None, reason)

    def _look(self, name: str, descriptor: int, path: str) -> Iterator[Unknown]:
        seen = look(name, descriptor)
        if seen.version is not None:
            yield self._found(path, seen.version.size, _PENDING[seen.seen])

    def _found(self, path: str, size: int, state: str) -> Unknown:
        route = self.router.route(path)
        note = self.note
        if self.router.is_dry_run(path):
            note = "DRY_RUN matches"
        elif route is None:
            note = NO_PATTERN
        task = route.task if route else None
        destination = self.router.destination(path)
        return Unknown(path, self.watch.path, size, state, task, destination, note)


def _open(root: str, relative: str, root_flags: int) -> int:
    """Open a directory below the root for listing, through no symlink that an uploader made."""
    descriptor = os.open(root, root_flags)
    try:
        for name in relative.split("/") if relative else ():
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _ignoring_sigio() -> Iterator[None]:
    """A lease that a writer breaks while we hold it raises SIGIO (filesystem.look)."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGIO, before)
