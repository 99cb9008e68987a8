"""What the configuration asks of a file before it is an arrival, in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        for main_file in self._companions.main_files(path):
            return self._companions.criteria_of_member(path, main_file)
        return self._companions.criteria(path)

    def members(self, path: str) -> dict[str, Criteria]:
        """Return what is asked of the members of its set, by name, where anything is."""
        from watchman.pipeline.companions import name_for

        criteria, (above, name) = self.criteria(path), os.path.split(path)
        if self._companions is None or criteria is None:
            return {}
        names = [name_for(one.template, name) for one in criteria.members]
        found = {
            one: self._companions.criteria_of_member(os.path.join(above, one), path)
            for one in names
        }
        return {one: asked for one, asked in found.items() if asked is not None}

    def main_files(self, path: str) -> list[str]:
        """Return the files with which the file at a path goes, by whose pattern it has its task."""
        return [] if self._companions is None else self._companions.main_files(path)

    def words(self, path: str) -> tuple[str, ...]:
        """Return all that is asked of the file at a path."""
        criteria, name = self.criteria(path), os.path.basename(path)
        each = criteria.each if criteria is not None else ()
        found = [_words(one, name) for one in each]
        if criteria is not None:
            found += _set_words(criteria, name)
            for member, asked in self.members(path).items():
                found += [f"{member}: {_words(one, member)}" for one in asked.each]
        if self._is_judged(path) and path.startswith(self._logged):
            found.append(_LOG)
        return tuple(found)

    def told_now(self, path: str) -> str:
        """Return what stands beside the file at a path says of it now; empty where there is none.

        What has to be read is not: processes that may do nothing else are for that.
        """
        criteria = self.criteria(path)
        if criteria is None:
            return ""
        try:
            with ignoring_sigio():
                return timelimit.within(path, lambda: _look(path, criteria, self.members(path)))
        except OSError:
            return ""

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
        if self._companions is not None and self._companions.main_files(path):
            return True
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


def _look(path: str, criteria: Criteria, members: Mapping[str, Criteria]) -> str:
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
            if reason:
                return reason
            is_to_be_read = check.is_to_be_read
        for member, asked in members.items():
            version = look(member, directory).version
            if version is None:
                continue  # it may be missing
            with FileCheck(member, version, directory, asked) as check:
                reason = check.look_beside()
                if reason:
                    return f"{member}: {reason}"
                is_to_be_read |= check.is_to_be_read
        return READ if is_to_be_read else "it has all that is asked"
    finally:
        release(directory)
