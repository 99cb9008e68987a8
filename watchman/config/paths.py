"""MOVES, the lists of patterns, and the places where watchman keeps its own files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from watchman import mounts
from watchman.config.overlap import covers
from watchman.config.problems import NOT_A_PAIR, Problems, as_path, pairs, show
from watchman.config.values import pattern_error
from watchman.model import Watch

MOVES_EXAMPLE = "MOVES = {'/srv/ftp': '/mnt/storage/incoming'}"


def moves(
    value: Any, base: str, watched: Sequence[Watch], problems: Problems
) -> tuple[tuple[str, str], ...]:
    """Return (source directory, destination root), the longest source first."""
    entries = pairs(value)
    if entries is None:
        problems.add("MOVES", f"{show(value)} is no dict", f"write {MOVES_EXAMPLE}")
        return ()
    found: dict[str, str] = {}
    for given, target in entries:
        label = f"MOVES[{show(given)}]"
        source, root = as_path(given, base), as_path(target, base)
        if target is NOT_A_PAIR or source is None or root is None:
            wrong = "is no pair of directories" if source is None else "the destination is no path"
            problems.add(label, wrong, f"write {MOVES_EXAMPLE}")
            continue
        if source in found:
            problems.add(label, f"{source} has two destinations", "remove one of the two")
            continue
        found[source] = root
        _check_source(source, label, watched, problems)
        _check_root(source, root, label, watched, problems)
    return tuple(sorted(found.items(), key=lambda move: (-len(move[0]), move[0])))


def _check_source(source: str, label: str, watched: Sequence[Watch], problems: Problems) -> None:
    inside = source.rstrip("/") + "/"
    for watch in watched:
        if inside.startswith(watch.prefix) or watch.prefix.startswith(inside):
            return
    if watched:
        problems.warn(
            label, "neither lies in a watched directory nor contains one", "nothing is moved"
        )


def _check_root(
    source: str, root: str, label: str, watched: Sequence[Watch], problems: Problems
) -> None:
    if mounts.real_path(root) == mounts.real_path(source):
        problems.add(label, "source and destination are the same", "remove it, or correct one")
        return
    for watch in watched:
        if not watch.pattern and covers(watch, root):
            problems.add(
                label,
                f"the destination {root} lies in the watched directory {watch.path}, "
                "where what is moved would arrive again",
                "choose one outside of it",
            )
            break


def texts(value: Any, setting: str, example: str, problems: Problems) -> tuple[str, ...]:
    """Return a list of strings."""
    if isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(item, str) and item and not pattern_error(item) for item in value
    ):
        return tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)
    problems.add(setting, f"{show(value)} is no list of patterns", f"write {setting} = {example}")
    return ()


def own_place(
    value: Any, setting: str, base: str, watched: Sequence[Watch], problems: Problems
) -> str:
    """Return the path of a directory or file that watchman writes; it must not be watched."""
    path = as_path(value, base)
    if path is None:
        problems.add(setting, f"{show(value)} is no path", f"write {setting} = '/the/path'")
        return ""
    directory = (
        path if setting.endswith("_DIR") or setting == "QUARANTINE" else os.path.dirname(path)
    )
    for watch in watched:
        if not watch.pattern and covers(watch, directory):
            problems.add(
                setting,
                f"{path} lies in the watched directory {watch.path}",
                "choose a place outside of it",
            )
            break
    return path
