"""What the configuration asks of a file before it is an arrival, in words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from watchman import timelimit
from watchman.file_access import DIRECTORY_FLAGS, Seen, ignoring_sigio, look, release
from watchman.model import Config, Criteria, Criterion, WatchKind
from watchman.router import Router

if TYPE_CHECKING:
    from watchman.pipeline.companions import Companions

COMPANION = "it only tells of the file that it stands beside"
READ = "what is in it is asked when it is complete"
_LOG = "the word of a transfer log that it is complete"


class Asked:
    """Answers for one configuration, as the pipeline would. Nothing is looked at."""

    def __init__(self, config: Config) -> None:
        self._companions: Companions | None = None
        self._router = Router(
            config.patterns, config.moves, config.ignore, config.dry_run, config.criteria
        )
        files = [
            watch
            for watch in config.watches
            if watch.kind is WatchKind.FILES and watch.processor is None
        ]
        self._logged = tuple(watch.prefix for watch in files if watch.require_log)
        if config.has_criteria:
            # Most configurations ask for nothing, and need not wait for the pipeline's modules.
            from watchman.pipeline.companions import Companions

            patterns = [pattern for pattern, _ in config.patterns]
            self._companions = Companions(patterns, config.criteria, files, self._router)

    def criteria(self, path: str) -> Criteria | None:
        """Return what is asked of the file at a path, a log's word aside; None for nothing."""
        if self._companions is None or not self._is_judged(path):
            return None
        return self._companions.criteria(path)

    def words(self, path: str) -> tuple[str, ...]:
        """Return all that is asked of the file at a path."""
        criteria, name = self.criteria(path), os.path.basename(path)
        each = criteria.each if criteria is not None else ()
        found = [_words(one, name) for one in each]
        if criteria is not None:
            found += _set_words(criteria, name)
        if self._is_judged(path) and path.startswith(self._logged):
            found.append(_LOG)
        return tuple(found)

    def why_beside(self, path: str) -> str:
        """Return why the file at a path is none of its own; empty if it is.

        It tells of another one, or goes with another.
        """
        if self._companions is None:
            return ""
        if self._companions.tells_of_another(path):
            return COMPANION
        main_files = self._companions.main_files(path)
        return f"it goes with {', '.join(map(os.path.basename, main_files))}" if main_files else ""

    def _is_judged(self, path: str) -> bool:
        return self._router.is_wanted(path) and not self._router.is_dry_run(path)


def _words(one: Criterion, name: str) -> str:
    from watchman.pipeline.companions import is_companion, name_for

    if one.kind == "format":
        return "whole, by its format" if one.argument == "auto" else f"whole {one.argument}"
    if one.kind == "callable":
        return f"{getattr(one.function, '__qualname__', 'a function')}() says yes"
    if not is_companion(one):
        return f"of the size that its name tells, as {one.argument}"
    beside = name_for(one.argument, name)
    return f"{beside} beside it" if one.kind == "marker" else f"its {one.kind} in {beside}"


def _set_words(criteria: Criteria, name: str) -> list[str]:
    from watchman.pipeline.companions import name_for

    needed = [name_for(one.template, name) for one in criteria.members if not one.optional]
    others = [name_for(one.template, name) for one in criteria.members if one.optional]
    words = [f"{', '.join(needed)}, which the task is about too"] if needed else []
    if others:
        words.append(f"{', '.join(others)} as well, if it comes within {criteria.set_after:g} s")
    return words


def what_is_told_now(path: str, criteria: Criteria) -> str:
    """Return what stands beside the file at a path says of it now; empty where there is no file.

    What has to be read is not: processes that may do nothing else are for that.
    """
    try:
        with ignoring_sigio():
            return timelimit.within(path, lambda: _look(path, criteria))
    except OSError:
        return ""


def _look(path: str, criteria: Criteria) -> str:
    from watchman.pipeline.file_check import FileCheck

    above, _, name = path.rpartition("/")
    directory = os.open(above or "/", DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    try:
        seen = look(name, directory)
        if seen.version is None:
            return ""
        if seen.seen is Seen.BUSY:
            return "it is open for writing"
        with FileCheck(name, seen.version, directory, criteria) as check:
            reason = check.look_beside() or check.look_at_members()
            return reason or (READ if check.is_to_be_read else "it has all that is asked")
    finally:
        release(directory)
