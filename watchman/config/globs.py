"""``do_glob``: the directories that match a pattern, at the start and later.

What matches is no matter of the configuration: directories come and go, and who makes them may be
an uploader. So a directory that cannot be watched beside the others is left out and told, and
never a mistake.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from watchman import hanging, mounts, timelimit
from watchman.config.overlap import covers, meet
from watchman.file_access import GONE_ERRNOS, PATH_FLAGS, for_listing, open_directory, relative_to
from watchman.model import Config, Watch

_Key = tuple[str, str, str]


def _key(watch: Watch) -> _Key:
    """Return what tells watches apart: a processor may share its directory."""
    return watch.path, watch.pattern, watch.processor_name


@dataclass
class Memory:
    """What was found at earlier looks."""

    left_out: set[_Key] = field(default_factory=set)
    """What need not be looked at again, as long as it is there."""
    devices: dict[str, int] = field(default_factory=dict)
    """By path: the device that each directory that matched was on when it was last seen."""


class Expansion(NamedTuple):
    """What matches."""

    watches: tuple[Watch, ...]
    """Those given before, and one for each directory that matches."""
    wrong: Mapping[str, OSError]
    """By pattern: that nothing matches it, or why that cannot be told."""


def expand(
    watches: Sequence[Watch], globs: Sequence[Watch], memory: Memory | None = None
) -> Expansion:
    """Look for the directories that match now, but for those that are left out.

    What matched before and was removed matches no more. One that may only be out of reach, not
    being mounted say, is kept: it is missed, and may come back.
    """
    memory = memory or Memory()
    found = list(watches)
    there = set(map(_key, watches))
    wrong: dict[str, OSError] = {}
    for one in globs:
        before = {watch.path for watch in found if watch.pattern == one.path}
        before |= {path for path, pattern, _ in memory.left_out if pattern == one.path}
        try:
            paths, gone = _look(one, before, memory.devices)
        except OSError as error:
            wrong[one.path] = error
            continue
        found = [w for w in found if w.pattern != one.path or w.path not in gone]
        # An uploader may make and remove them for ever.
        memory.left_out -= {k for k in memory.left_out if k[1] == one.path and k[0] in gone}
        passed_over = there | memory.left_out
        matching = [replace(one, path=path) for path in paths]
        found += [watch for watch in matching if _key(watch) not in passed_over]
        if not paths and not any(watch.pattern == one.path for watch in found):
            wrong[one.path] = FileNotFoundError(errno.ENOENT, "no directory matches")
    return Expansion(tuple(found), wrong)


def expand_again(config: Config, memory: Memory) -> tuple[Config, Mapping[str, OSError]]:
    """Return the configuration with what matches by now, and what is wrong, by pattern.

    ``memory`` gets what is left out this time.
    """
    found, wrong = expand(config.watches, config.globs, memory)
    new = more(found, config.watches)
    if not new and len(found) == len(config.watches):
        return config, wrong
    fresh = without_conflicts(replace(config, watches=found), new)
    memory.left_out.update(map(_key, more(new, fresh.watches)))
    return fresh, wrong


def more(watches: Sequence[Watch], others: Sequence[Watch]) -> list[Watch]:
    """Return those of the watches that are not among the others."""
    known = set(map(_key, others))
    return [watch for watch in watches if _key(watch) not in known]


def without_conflicts(config: Config, new: Collection[Watch]) -> Config:
    """Leave out those of the ``new`` watches that must not be watched; ``warnings`` says so."""
    keys = set(map(_key, new))
    kept = [watch for watch in config.watches if _key(watch) not in keys]
    warnings = list(config.warnings)
    real_path = functools.cache(mounts.real_path)
    for watch in new:
        reason = _conflict(watch, kept, config, real_path)
        if reason:
            warnings.append(
                f"WATCHES: {watch.path} matches {watch.pattern} and is left out: {reason}"
            )
        else:
            kept.append(watch)
    return replace(config, watches=tuple(kept), warnings=tuple(warnings))


def _conflict(
    watch: Watch, kept: Sequence[Watch], config: Config, real: Callable[[str], str]
) -> str:
    """Return why a directory must not be watched; empty if it may."""
    if any(meet(watch, other, real) for other in kept):
        return "it would be watched twice"
    own = [config.state_dir, config.log_dir]
    own += [os.path.dirname(path) for path in (config.pid_file, config.out_file, config.err_file)]
    if any(covers(watch, path, real) for path in own if path):
        return "watchman itself writes there"
    if covers(watch, os.path.dirname(config.path), real):
        return "the configuration lies there"
    if any(covers(watch, root, real) for _, root in config.moves):
        return "what is moved would arrive there again"
    return ""


def _look(one: Watch, before: Iterable[str], devices: dict[str, int]) -> tuple[list[str], set[str]]:
    """Return the directories that match, and which of those that matched ``before`` are gone.

    Raises OSError (ETIMEDOUT) where one cannot look.
    """
    top = one.top

    def look() -> tuple[dict[str, int], set[str]]:
        try:
            descriptor = open_directory(top, "")
        except OSError:
            return {}, set()
        try:
            parts = list(filter(None, relative_to(top, one.path).split("/")))
            found = dict(_below(descriptor, top, parts))
            missed = [path for path in before if path not in found]
            gone = {path for path in missed if _is_gone(descriptor, top, path, devices.get(path))}
            return found, gone
        finally:
            os.close(descriptor)

    found, gone = timelimit.within(top, look, where=hanging.points(top))
    devices.update(found)
    for path in gone:
        devices.pop(path, None)
    return sorted(found), gone


def _is_gone(top: int, above: str, path: str, device: int | None) -> bool:
    """Say whether a directory was removed; ``top`` is the open one at ``above``.

    Not so where the last one on the way to it is empty and on another device than it was: that is
    how a mount point looks while nothing is mounted.
    """
    descriptor = os.dup(top)
    try:
        for name in relative_to(above, path).split("/"):
            try:
                below = os.open(name, PATH_FLAGS, dir_fd=descriptor)
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    return False
                break
            os.close(descriptor)
            descriptor = below
        else:
            return False
        return os.fstat(descriptor).st_dev == device or not _is_empty(descriptor)
    finally:
        os.close(descriptor)


def _is_empty(directory: int) -> bool:
    try:
        descriptor = for_listing(os.dup(directory))
    except OSError:
        return False
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is None
    finally:
        os.close(descriptor)


def _below(above: int, path: str, parts: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield path and device of the directories in ``above`` that match the parts of a pattern.

    ``path`` is where it is. Not by ``glob.glob``, which follows the symlinks of an uploader.
    """
    if not parts:
        yield path, os.fstat(above).st_dev
        return
    for name in _names(above, parts[0]) if glob.has_magic(parts[0]) else [parts[0]]:
        try:
            descriptor = os.open(name, PATH_FLAGS, dir_fd=above)
        except OSError:
            continue  # no directory, or one that nobody may enter
        try:
            yield from _below(descriptor, f"{path.rstrip('/')}/{name}", parts[1:])
        finally:
            os.close(descriptor)


def _names(above: int, part: str) -> list[str]:
    """Return the names of directories that match; none where they cannot be listed."""
    try:
        descriptor = for_listing(os.dup(above))
    except OSError:
        return []
    names = []
    try:
        with os.scandir(descriptor) as entries, contextlib.suppress(OSError):
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(descriptor)
    hidden = part.startswith(".")
    return [name for name in fnmatch.filter(names, part) if hidden or not name.startswith(".")]
