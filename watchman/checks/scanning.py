"""``notify scan``: what is in the watches and not known, found without changing anything."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace

from watchman import coverage
from watchman.checks import present
from watchman.checks.asked import Asked
from watchman.directory_identity import identify
from watchman.file_access import (
    GONE_ERRNOS,
    Look,
    Seen,
    for_listing,
    ignoring_sigio,
    look,
    open_below,
    open_watch,
    version_of,
)
from watchman.identity import is_same_content
from watchman.journal.journal_reader import JournalReader
from watchman.model import Config, Existing, Version, Watch, WatchKind
from watchman.router import Router
from watchman.sources.directory_version import look_inside

_PENDING = {
    Seen.COMPLETE: "complete",
    Seen.BUSY: "being written",
    Seen.UNTESTED: "not tested",
}


NO_PATTERN = "no pattern matches"
WAITS = "waits for what is asked of it"


@dataclass(frozen=True)
class Unknown:
    """A file (or finished directory) that the journal does not know in its present version."""

    path: str
    watch: str
    size: int
    state: str
    """``complete``, ``being written`` (a directory: its marker is missing, or being written),
    ``not tested`` (the settle rule decides), ``partial`` (it waits for its criteria),
    ``unreadable``."""
    task: str | None
    destination: str | None
    note: str = ""
    """Why a catch-up would send no task for it; empty if it would."""
    reason: str = ""
    """Why it waits, if it is ``partial``."""
    asked: tuple[str, ...] = ()
    """What it has to be before it counts, where nobody has judged it yet."""
    changed_ns: int | None = None
    """When it came there or was changed last (its ctime); None where that cannot be told."""


def _nothing() -> None:
    """Do nothing."""


def unknown(
    config: Config, journal: JournalReader, listed: Callable[[], None] = _nothing
) -> Iterator[Unknown]:
    """Yield what the catch-up of a start would look at. The journal is only read.

    ``listed`` is called after each directory.
    """
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    asked = Asked(config)
    watches = [
        watch
        for watch in config.watches
        if watch.processor is None and not coverage.asks_for_nothing(watch)
    ]
    with ignoring_sigio():
        for watch in watches:
            yield from _Walk(watch, router, journal, asked).all(listed)


class _Walk:
    """The walk of one watch, a directory at a time."""

    def __init__(self, watch: Watch, router: Router, journal: JournalReader, asked: Asked) -> None:
        self.watch = watch
        self.router = router
        self.journal = journal
        self.asked = asked
        self.note = ""
        """Why what predates the run that notes is not sent; empty where it is."""
        self.noted_before_ns: float = 0
        """In the directory that is being listed, what changed before that is only noted."""
        if watch.existing is Existing.NONE:
            self.note = "existing is 'none': what is there at a start is never sent"
            self.noted_before_ns = math.inf
        elif watch.existing is Existing.NEW:
            self.note = "existing is 'new': what is there before the first run is not sent"
        self.runs = journal.runs()
        self.matched_before_ns = self.runs.matched_before_ns(watch)

    def _why_noted(self, changed_ns: int) -> str:
        return self.note if changed_ns < self.noted_before_ns else ""

    def _noted_before_ns(self, path: str) -> float:
        if self.watch.existing is not Existing.NEW:
            return self.noted_before_ns
        return min(self.runs.before_ns(self.watch.kind, path), self.matched_before_ns)

    def all(self, listed: Callable[[], None]) -> Iterator[Unknown]:
        todo: list[str] = [""]
        while todo:
            relative = todo.pop()
            path = self.watch.prefix + relative if relative else self.watch.path
            try:
                descriptor = _open(self.watch, relative)
            except OSError as error:
                yield self._unreadable(path, error)
                continue
            try:
                yield from self._list(descriptor, relative, path, todo)
            finally:
                os.close(descriptor)
            listed()

    def _list(
        self, descriptor: int, relative: str, path: str, todo: list[str]
    ) -> Iterator[Unknown]:
        known = self.journal.known(path)
        self.noted_before_ns = self._noted_before_ns(path)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    full = f"{path.rstrip('/')}/{entry.name}"
                    try:
                        yield from self._entry(entry, full, relative, descriptor, known, todo)
                    except OSError as error:
                        if error.errno not in GONE_ERRNOS:
                            yield self._unreadable(full, error)
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
        if entry.is_dir(follow_symlinks=False):
            if coverage.directory_left_out(self.watch, full, self.router) is not None:
                return
            if self.watch.kind is WatchKind.FILES:
                enter = coverage.is_followed(self.watch, at_start=True)
            else:
                enter = yield from self._unit(entry.name, full, descriptor, known)
            if enter:
                todo.append(f"{relative}/{entry.name}" if relative else entry.name)
        elif self.watch.kind is WatchKind.FILES and entry.is_file(follow_symlinks=False):
            version = version_of(entry.stat(follow_symlinks=False))
            before = known.get(entry.name)
            if before is not None and is_same_content(before, version):
                return
            if coverage.file_left_out(full, self.router) is None:
                yield from self._look(entry.name, descriptor, full)

    def _unit(
        self, name: str, full: str, descriptor: int, known: Mapping[str, Version]
    ) -> Generator[Unknown, None, bool]:
        """Yield a directory in a watch for whole directories, if it is not known.

        Return whether it is entered, as the pipeline would (``pipeline.directories``). Raises
        OSError where that cannot be told.
        """
        found = identify(name, descriptor)
        if found is None:
            return False
        version, changed_ns = found
        before = known.get(name)
        if before is not None and is_same_content(before, version):
            announced = self.journal.is_announced(full)
            return coverage.is_entered(self.watch, full, self.router, announced=announced)
        note = self._why_noted(changed_ns)
        state = "complete" if note else self._state_of_unit(name, descriptor)
        enter = coverage.is_entered(self.watch, full, self.router, announced=False)
        if note or not enter or self.router.is_wanted(full):
            yield self._found(full, 0, state, note, changed_ns)
            return enter and bool(note)
        return state == "complete"

    def _state_of_unit(self, name: str, descriptor: int) -> str:
        if self.watch.marker is not None:
            marker = _surely(look_inside(name, self.watch.marker, descriptor))
            if marker.seen in (Seen.BUSY, Seen.GONE):
                return "being written"
        return "not tested" if self.watch.settle else "complete"

    def _unreadable(self, path: str, error: OSError) -> Unknown:
        reason = error.strerror or str(error)
        return Unknown(path, self.watch.path, 0, "unreadable", None, None, reason)

    def _look(self, name: str, descriptor: int, path: str) -> Iterator[Unknown]:
        seen = _surely(look(name, descriptor))
        if seen.version is not None:
            # What is being written when the run begins is an arrival.
            busy = seen.seen is Seen.BUSY
            note = "" if busy else self._why_noted(seen.version.changed_ns)
            found = self._found(
                path, seen.version.size, _PENDING[seen.seen], note, seen.version.changed_ns
            )
            yield found if busy else self._judged(found, seen.version)

    def _judged(self, found: Unknown, version: Version) -> Unknown:
        """Return a file with what is asked of it, and why it waits, if it does."""
        beside = self.asked.why_beside(found.path)
        if beside:
            return replace(found, task=None, destination=None, note=beside)
        waits = present.waits(self.journal, found.path, version)
        if waits is not None:
            return replace(found, state="partial", note=WAITS, reason=waits.reason)
        return found if found.note else replace(found, asked=self.asked.words(found.path))

    def _found(
        self, path: str, size: int, state: str, note: str, changed_ns: int | None
    ) -> Unknown:
        route = self.router.route(path)
        # What a first run only takes note of is not moved either, whatever matches it.
        if not note and self.router.is_dry_run(path):
            note = "DRY_RUN matches"
        elif not note and route is None:
            note = NO_PATTERN
        task = route.task if route else None
        destination = self.router.destination(path)
        return Unknown(
            path,
            self.watch.path,
            size,
            state,
            task,
            destination,
            note,
            changed_ns=changed_ns or None,
        )


def _surely(seen: Look) -> Look:
    """Raise OSError where a look could tell nothing."""
    if seen.is_unseen:
        raise OSError(seen.error, os.strerror(seen.error))
    return seen


def _open(watch: Watch, relative: str) -> int:
    """Open a directory in a watch for listing, through no symlink that an uploader made."""
    return for_listing(open_below(open_watch(watch), relative))
