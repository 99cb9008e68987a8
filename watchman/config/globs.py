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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from watchman import hanging, mounts, timelimit
from watchman.config.overlap import covers, meet
from watchman.file_access import PATH_FLAGS, for_listing, open_directory, relative_to
from watchman.model import Config, Watch

_Key = tuple[str, str, str]


def _key(watch: Watch) -> _Key:
    """Return what tells watches apart: a processor may share its directory."""
    return watch.path, watch.pattern, watch.processor_name


class Expansion(NamedTuple):
    """What matches."""

    watches: tuple[Watch, ...]
    """Those given before, and one for each directory that matches."""
    wrong: Mapping[str, OSError]
    """By pattern: that nothing matches it, or why that cannot be told."""


def expand(
    watches: Sequence[Watch], globs: Sequence[Watch], left_out: Collection[_Key] = ()
) -> Expansion:
    """Look for the directories that match now, but for those that are ``left_out``.

    What matched before is kept: a directory that is gone is missed, and may come back.
    """
    found = list(watches)
    there = set(map(_key, watches)).union(left_out)
    wrong: dict[str, OSError] = {}
    for one in globs:
        try:
            paths = _matching(one.path)
        except OSError as error:
            wrong[one.path] = error
            continue
        matching = [replace(one, path=path) for path in paths]
        found += [watch for watch in matching if _key(watch) not in there]
        if not paths and not any(watch.pattern == one.path for watch in found):
            wrong[one.path] = FileNotFoundError(errno.ENOENT, "no directory matches")
    return Expansion(tuple(found), wrong)


def expand_again(config: Config, left_out: set[_Key]) -> tuple[Config, Mapping[str, OSError]]:
    """Return the configuration with what matches by now, and what is wrong, by pattern.

    ``left_out`` is what need not be looked at again; it gets what is left out this time.
    """
    found, wrong = expand(config.watches, config.globs, left_out)
    new = found[len(config.watches) :]
    if not new:
        return config, wrong
    fresh = without_conflicts(replace(config, watches=found), new)
    left_out.update(set(map(_key, new)).difference(map(_key, fresh.watches)))
    return fresh, wrong


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
    if any(covers(watch, root, real) for _, root in config.moves):
        return "what is moved would arrive there again"
    return ""


def _matching(pattern: str) -> list[str]:
    """Return the directories that match. Raises OSError (ETIMEDOUT) where one cannot look."""
    top = Watch(pattern, pattern=pattern).top
    parts = relative_to(top, pattern).split("/")

    def look() -> list[str]:
        try:
            descriptor = open_directory(top, "")
        except OSError:
            return []
        try:
            return sorted(_below(descriptor, top, list(filter(None, parts))))
        finally:
            os.close(descriptor)

    return timelimit.within(top, look, where=hanging.points(top))


def _below(above: int, path: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the directories in ``above``, which is at ``path``, that match the parts of a pattern.

    Not by ``glob.glob``, which follows the symlinks that an uploader has made.
    """
    if not parts:
        yield path
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
