"""Does a watch see this path, as what, and if not, why? Pure: nothing is looked at here.

This is the only place that decides it: for the sources, for ``match``, ``scan`` and ``check``, and
for the configuration, which refuses two watches that would announce the same.

``rec`` and ``auto_add`` mean what they mean in pyinotify's ``add_watch``, each without the other:
``rec`` is about the directories that are below at the start, ``auto_add`` about those that are made
or moved there later. The start is that of the watching: of the process, or of the directory where
another one takes the watch's path.

What is seen in a watch for whole directories is called a unit: a directory directly in the watch's
path. With ``rec``, one that is neither moved nor gets a task is entered, and the directories in it
are units; ``auto_add`` means nothing there.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from watchman.file_access import PATH_MAX, is_too_long
from watchman.model import Watch, WatchKind

MODIFY, CLOSE_WRITE, MOVED_TO, CREATE = 0x2, 0x8, 0x80, 0x100
"""The kernel's events with which a file can arrive (inotify(7)); the first one where a file is
truncated by its path, which no close follows."""
COMPLETING = MODIFY | CLOSE_WRITE | MOVED_TO | CREATE


class Rules(Protocol):
    """What the configuration says of paths, whatever watch they are in (``router.Router``)."""

    def ignored(self, name: str, path: str | None = None, *, directory: bool = False) -> bool:
        """Say whether an entry is never looked at."""
        ...

    def is_wanted(self, path: str) -> bool:
        """Say whether what arrives at the path is moved or gets a task."""
        ...

    def is_dry_run(self, path: str) -> bool:
        """Say whether what arrives at the path is logged, but neither moved nor sent."""
        ...


class LeftOut(enum.Enum):
    """Why an entry of a directory that a watch covers is not looked at, nor anything in it."""

    IGNORED = enum.auto()
    UNFINISHED = enum.auto()
    """Of a unit: its name says that it is still being filled."""
    EXCLUDED = enum.auto()
    """By the watch's ``exclude_filter``."""
    TOO_LONG = enum.auto()
    """No program can open its path, or that of any file in it."""


class Verdict(NamedTuple):
    """Whether a watch sees a path."""

    reason: str = ""
    """Why it does not; empty if it does."""
    condition: str = ""
    """What must hold for it to be seen; empty where nothing must."""
    left_out: LeftOut | None = None
    """Set where the path is in the watch, and its own name or one above it leaves it out."""


def is_of_units(watch: Watch) -> bool:
    """Say whether it is whole directories that are announced, and not files."""
    return watch.kind is WatchKind.DIRECTORIES and watch.processor is None


def reaches_below(watch: Watch) -> bool:
    """Say whether any directory below the watch's own can be watched."""
    return watch.rec or (watch.auto_add and not is_of_units(watch))


def is_followed(watch: Watch, *, at_start: bool) -> bool:
    """Say whether a directory below is watched: one that was there at the start, or came later."""
    return watch.rec if at_start else watch.auto_add


def is_excluded(watch: Watch, directory: str) -> bool:
    """Say whether the watch's ``exclude_filter`` leaves a directory out."""
    return watch.exclude is not None and watch.exclude(directory)


def is_entered(watch: Watch, unit: str, rules: Rules, *, announced: bool) -> bool:
    """Say whether the directories in a unit are units, if it is none that is moved or gets a task.

    ``announced``: it was moved or got a task before; then it never is.
    """
    return watch.rec and not announced and not rules.is_dry_run(unit)


def file_left_out(path: str, rules: Rules) -> LeftOut | None:
    """Say why a file in a directory that is watched is not looked at; None if it is.

    ``pipeline.files`` has the same, written out, since it is asked for every event.
    """
    if rules.ignored(os.path.basename(path), path):
        return LeftOut.IGNORED
    return LeftOut.TOO_LONG if is_too_long(path) else None


def directory_left_out(watch: Watch, path: str, rules: Rules) -> LeftOut | None:
    """Say why a directory below the watch is not looked at, nor anything in it; None if it is."""
    name = path[path.rfind("/") + 1 :]
    if rules.ignored(name, path, directory=True):
        return LeftOut.IGNORED
    units = is_of_units(watch)
    if units and is_unfinished(name, watch.unfinished):
        return LeftOut.UNFINISHED
    if is_excluded(watch, path):
        return LeftOut.EXCLUDED
    # The shortest path that a file in it can have.
    return LeftOut.TOO_LONG if not units and is_too_long(f"{path}/x") else None


def asks_for(watch: Watch, mask: int) -> bool:
    """Say whether something arrives with an event, and the watch's own ``mask`` asks for it."""
    asked = mask & COMPLETING
    return bool(asked if watch.mask is None else asked & watch.mask)


def asks_for_nothing(watch: Watch) -> bool:
    """Say whether the watch's ``mask`` has no event with which anything arrives.

    For whole directories a closed file is none.
    """
    completing = MOVED_TO | CREATE if watch.kind is WatchKind.DIRECTORIES else COMPLETING
    return watch.mask is not None and not watch.mask & completing


def is_unfinished(name: str, patterns: Sequence[str] | None) -> bool:
    """Say whether the name is one of a directory that is still being filled.

    Without ``patterns``: its extension, what follows the last dot, begins with ``tmp``.
    """
    if patterns is None:
        _, dot, extension = name.rpartition(".")
        return bool(dot) and extension.startswith("tmp")
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def may_reach(watch: Watch, below: str) -> bool:
    """Say whether what is made in a directory can be an arrival of the watch, or part of one.

    ``below`` is its path below the watch's own, empty for that. What IGNORE and the patterns say
    of it is left aside: they may be other ones tomorrow.
    """
    if not below:
        return True
    # A directory right in a watch for whole directories is a unit whatever `rec` says.
    is_unit = is_of_units(watch) and "/" not in below
    if not (is_unit or reaches_below(watch)):
        return False
    return not any(is_excluded(watch, directory) for directory in _way(watch, below))


def begins_to_match(pattern: str, directory: str) -> bool:
    """Say whether a directory of that path, once it is there, matches a pattern (``do_glob``).

    As glob(7) has it: wildcards match no slash, and no dot at the beginning of a name.
    """
    patterns, names = pattern.split("/"), directory.split("/")
    return len(patterns) == len(names) and all(
        fnmatchcase(name, one) and (one[:1] == "." or name[:1] != ".")
        for one, name in zip(patterns, names, strict=True)
    )


def judge(watch: Watch, path: str, rules: Rules) -> Verdict:
    """Say whether the watch sees a complete file, or finished directory, at ``path`` below it."""
    if watch.processor is not None:
        return Verdict(f"{watch.path} is left to the processor {watch.processor_name}")
    if asks_for_nothing(watch):
        return Verdict(f"'mask' of {watch.path} has no event with which anything arrives")
    if watch.kind is WatchKind.DIRECTORIES:
        return _judge_unit(watch, path, rules)
    return _judge_file(watch, path, rules)


def _judge_file(watch: Watch, path: str, rules: Rules) -> Verdict:
    *above, full = _way(watch, path[len(watch.prefix) :])
    if above and not reaches_below(watch):
        return Verdict(f"{watch.path} is watched without what is below it ('rec', 'auto_add')")
    for directory in above:
        left_out = directory_left_out(watch, directory, rules)
        if left_out is LeftOut.EXCLUDED:
            return Verdict(f"'exclude_filter' leaves it out of {watch.path}")
        if left_out is LeftOut.IGNORED:
            return Verdict(f"IGNORE matches {directory}", left_out=left_out)
    left_out = file_left_out(full, rules)
    if left_out is LeftOut.IGNORED:
        return Verdict(f"IGNORE matches {full}", left_out=left_out)
    if left_out is not None:
        return Verdict(f"its path is longer than {PATH_MAX} bytes, so that no program can open it")
    if above and not watch.rec:
        return Verdict(condition=f"if {above[0]} is made while watchman runs ('rec' is not set)")
    if above and not watch.auto_add:
        return Verdict(
            condition=f"if {above[-1]} is there when watchman starts ('auto_add' is not set)"
        )
    return Verdict()


def _judge_unit(watch: Watch, path: str, rules: Rules) -> Verdict:
    *above, full = _way(watch, path[len(watch.prefix) :])
    if above and not watch.rec:
        return Verdict(f"{watch.path} watches for whole directories")
    for directory in above:
        left_out = directory_left_out(watch, directory, rules)
        if left_out is LeftOut.IGNORED:
            return Verdict(f"IGNORE matches {directory}", left_out=left_out)
        if left_out is LeftOut.UNFINISHED:
            return Verdict(
                f"{directory} is unfinished by its name, and nothing below it is looked at"
            )
        if left_out is LeftOut.EXCLUDED:
            return Verdict(f"'exclude_filter' leaves out {directory}")
        if rules.is_dry_run(directory):
            return Verdict(f"DRY_RUN matches {directory}, and nothing below it is looked at")
        if rules.is_wanted(directory):
            return Verdict(
                f"{directory} is itself a directory that is moved or sent as a whole (unless it "
                "was there before the first run)"
            )
    left_out = directory_left_out(watch, full, rules)
    if left_out is LeftOut.IGNORED:
        return Verdict(f"IGNORE matches {full}", left_out=left_out)
    if left_out is LeftOut.UNFINISHED:
        return Verdict("its name says that it is unfinished ('unfinished')", left_out=left_out)
    if left_out is LeftOut.EXCLUDED:
        return Verdict(f"'exclude_filter' leaves out {full}")
    if above and watch.marker is not None:
        return Verdict(condition=f"if {watch.marker} is in {' and in '.join(above)} ('marker')")
    return Verdict()


def _way(watch: Watch, below: str) -> Iterator[str]:
    """Yield the directories between the watch and what is ``below`` it, and that itself."""
    way = watch.path
    for name in below.split("/"):
        way = os.path.join(way, name)
        yield way
