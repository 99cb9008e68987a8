"""What is at a path now, and what the daemon would make of it. Nothing is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchman import timelimit
from watchman.checks.matching import Match, match
from watchman.checks.writers import Writer, writers_of
from watchman.directory_identity import identity_at
from watchman.file_access import Seen, ignoring_sigio, look, release, version_of
from watchman.identity import is_same_content
from watchman.journal.journal_reader import JournalReader
from watchman.journal.partial import PartialFile
from watchman.model import Config, Noted, Version, WatchKind
from watchman.router import Router

_FOR_FILES = "it is a directory, and the watch is for files"


@dataclass(frozen=True)
class Present:
    """What is at a path now."""

    path: str
    trouble: str = ""
    """Why it could not be looked at; empty if it could."""
    kind: str = ""
    """``file``, ``directory``, ``other`` (nothing that ever counts); empty where nothing is."""
    size: int = 0
    mtime_ns: int = 0
    seen: str = ""
    """Of a file, as the daemon would see it: ``complete``, ``busy``, ``untested``."""
    writers: Sequence[Writer] = ()
    known: bool = False
    """Whether the journal knows it just as it is."""
    noted: Noted | None = None
    """Why what is known has no delivery; None if it has, or is not known."""
    waits: PartialFile | None = None
    """Why it waits, complete, and since when; None if it does not."""
    match: Match | None = None
    """What would become of it; None without a configuration."""
    ignored_by: str = ""
    """The IGNORE pattern that leaves it out."""

    @property
    def is_there(self) -> bool:
        """Whether there is anything."""
        return bool(self.kind)


def present(config: Config | None, journal: JournalReader, path: str) -> Present:
    """Look at an absolute path as the daemon would, for a second or two at the most."""
    try:
        with ignoring_sigio():
            found = timelimit.within(path, lambda: _look(path))
    except TimeoutError:
        return Present(path, "its file system does not answer")
    except (FileNotFoundError, NotADirectoryError):
        return replace(Present(path), **_expected(config, path, is_directory=False))
    except OSError as error:
        return Present(path, error.strerror or str(error))
    status, version, seen, writers = found
    before = _known(journal, path)
    known = before is not None and is_same_content(before, version)
    is_directory = stat.S_ISDIR(status.st_mode)
    there = Present(
        path,
        kind="directory" if is_directory else "file" if stat.S_ISREG(status.st_mode) else "other",
        size=status.st_size,
        mtime_ns=version_of(status).mtime_ns,
        seen="" if seen is None else seen.value,
        writers=writers,
        known=known,
        noted=journal.noted(path) if known else None,
        waits=None if known else waits(journal, path, version),
    )
    return replace(there, **_expected(config, path, is_directory=is_directory))


def waits(journal: JournalReader, path: str, version: Version) -> PartialFile | None:
    """Return since when, and why, a file that is not known waits as it is; None if it does not."""
    found = journal.partial(path)
    return found if found is not None and is_same_content(found.version, version) else None


def _look(path: str) -> tuple[os.stat_result, Version, Seen | None, list[Writer]]:
    """Return what is there, what the journal would know it as, and how a file is seen."""
    status = os.lstat(path)
    version = version_of(status)
    if stat.S_ISDIR(status.st_mode):
        return status, identity_at(path) or version, None, []
    if not stat.S_ISREG(status.st_mode):
        return status, version, None, []
    above, _, name = path.rpartition("/")
    directory = os.open(above or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen = look(name, directory).seen
    finally:
        release(directory)
    # Who may not be asked for a lease may still see who has it open.
    writers = [] if seen is Seen.COMPLETE else writers_of(status)
    return status, version, seen, writers


def _known(journal: JournalReader, path: str) -> Version | None:
    directory, _, name = path.rpartition("/")
    return journal.known_version(directory, name)


def _expected(config: Config | None, path: str, *, is_directory: bool) -> dict[str, Any]:
    """Return what the configuration says of a path, as fields."""
    if config is None:
        return {}
    found = match(config, path)
    if is_directory and not found.reason and _is_for_files(config, found.watch):
        found = Match(path, found.watch, reason=_FOR_FILES)
    if not found.ignored:
        return {"match": found}
    return {"match": found, "ignored_by": ignored_by(config, path, is_directory=is_directory)}


def _is_for_files(config: Config, watch: str | None) -> bool:
    return {one.kind for one in config.watches if one.path == watch} == {WatchKind.FILES}


def ignored_by(config: Config, path: str, *, is_directory: bool = False) -> str:
    """Return the first IGNORE pattern that leaves a path, or a directory above it, out.

    Empty where none does.
    """
    watches = [watch for watch in config.watches if path.startswith(watch.prefix)]
    tops = [watch.prefix for watch in sorted(watches, key=lambda watch: len(watch.prefix))]
    while path and not any(path + "/" == top for top in tops):
        for pattern in config.ignore:
            one = Router((), (), [pattern])
            if one.ignored(os.path.basename(path), path, directory=is_directory):
                return pattern
        path, is_directory = os.path.dirname(path), True
        if path == "/":
            break
    return ""
