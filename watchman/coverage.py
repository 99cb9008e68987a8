"""Does a watch see this path, as what, and if not, why? Pure: nothing is looked at here.

``rec`` and ``auto_add`` mean what they mean in pyinotify's ``add_watch``, each without the other:
``rec`` is about the directories that are below at the start, ``auto_add`` about those that are made
or moved there later. The start is that of the watching: of the process, or of the directory where
another one takes the watch's path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from watchman.model import Watch

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


class Verdict(NamedTuple):
    """Whether a watch sees a path."""

    reason: str = ""
    """Why it does not; empty if it does."""
    condition: str = ""
    """What must hold for it to be seen; empty where nothing must."""
    ignored: bool = False
    """It is in the watch, and IGNORE leaves it out."""


def reaches_below(watch: Watch) -> bool:
    """Say whether any directory below the watch's own can be watched."""
    return watch.rec or watch.auto_add


def is_followed(watch: Watch, *, at_start: bool) -> bool:
    """Say whether a directory below is watched: one that was there at the start, or came later."""
    return watch.rec if at_start else watch.auto_add


def is_excluded(watch: Watch, directory: str) -> bool:
    """Say whether the watch's ``exclude_filter`` leaves a directory out."""
    return watch.exclude is not None and watch.exclude(directory)


def asks_for(watch: Watch, mask: int) -> bool:
    """Say whether the watch's own ``mask`` lets an event through; what is none always passes."""
    return watch.mask is None or not mask & COMPLETING or bool(mask & watch.mask & COMPLETING)


def asks_for_nothing(watch: Watch) -> bool:
    """Say whether the watch's ``mask`` has no event with which anything arrives.

    For whole directories a closed file is none.
    """
    completing = MOVED_TO | CREATE if watch.kind == "directories" else COMPLETING
    return watch.mask is not None and not watch.mask & completing


def is_unfinished(name: str, patterns: Sequence[str] | None) -> bool:
    """Say whether the name is one of a directory that is still being filled.

    Without ``patterns``: its extension, what follows the last dot, begins with ``tmp``.
    """
    if patterns is None:
        _, dot, extension = name.rpartition(".")
        return bool(dot) and extension.startswith("tmp")
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def judge(watch: Watch, path: str, rules: Rules) -> Verdict:
    """Say whether the watch sees a complete file, or finished directory, at ``path`` below it."""
    if watch.processor is not None:
        return Verdict(f"{watch.path} is left to the processor {watch.processor_name}")
    if asks_for_nothing(watch):
        return Verdict(f"'mask' of {watch.path} has no event with which anything arrives")
    if watch.kind == "directories":
        return _judge_unit(watch, path, rules)
    return _judge_file(watch, path, rules)


def _judge_file(watch: Watch, path: str, rules: Rules) -> Verdict:
    *above, full = _way(watch, path)
    if above and not reaches_below(watch):
        return Verdict(f"{watch.path} is watched without what is below it ('rec', 'auto_add')")
    for directory in above:
        if is_excluded(watch, directory):
            return Verdict(f"'exclude_filter' leaves it out of {watch.path}")
    ignored = _ignored(above, full, rules, directory=False)
    if ignored:
        return Verdict(ignored, ignored=True)
    if above and not watch.rec:
        return Verdict(condition=f"if {above[0]} is made while watchman runs ('rec' is not set)")
    if above and not watch.auto_add:
        return Verdict(
            condition=f"if {above[-1]} is there when watchman starts ('auto_add' is not set)"
        )
    return Verdict()


def _judge_unit(watch: Watch, path: str, rules: Rules) -> Verdict:
    """With ``rec``, a directory that becomes no task itself is entered, and those in it count."""
    *above, full = _way(watch, path)
    if above and not watch.rec:
        return Verdict(f"{watch.path} watches for whole directories")
    for directory in above:
        if is_unfinished(os.path.basename(directory), watch.unfinished):
            return Verdict(
                f"{directory} is unfinished by its name, and nothing below it is looked at"
            )
        if is_excluded(watch, directory):
            return Verdict(f"'exclude_filter' leaves out {directory}")
        if rules.is_wanted(directory):
            return Verdict(
                f"{directory} is itself a directory that is moved or sent as a whole (unless it "
                "was there before the first run)"
            )
    if is_excluded(watch, full):
        return Verdict(f"'exclude_filter' leaves out {full}")
    ignored = _ignored(above, full, rules, directory=True)
    if ignored:
        return Verdict(ignored, ignored=True)
    return Verdict()


def _way(watch: Watch, path: str) -> Iterator[str]:
    """Yield the directories between the watch and the path, and the path itself."""
    way = watch.path
    for name in path[len(watch.prefix) :].split("/"):
        way = os.path.join(way, name)
        yield way


def _ignored(above: Sequence[str], full: str, rules: Rules, *, directory: bool) -> str:
    """Return which entry on the way is ignored: a directory's name counts as well."""
    for path in above:
        if rules.ignored(os.path.basename(path), path, directory=True):
            return f"IGNORE matches {path}"
    if rules.ignored(os.path.basename(full), full, directory=directory):
        return f"IGNORE matches {full}"
    return ""
