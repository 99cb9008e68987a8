"""The names that the mover gives: suffixes for taken names, and those of its own files.

A file of the mover's own is recognised by :data:`OWN`: nothing of that name is an arrival, and
nothing else is ever removed from a destination.
"""

from __future__ import annotations

import os
from collections.abc import Callable

OWN = ".watchman-*.tmp"
"""fnmatch pattern of every name the mover makes for itself, in sources and destinations."""

NAME_MAX = 255
"""Bytes in a file name on nearly every file system (limits.h)."""

_LONGEST_EXTENSION = 32


def temporary_name(task_id: str) -> str:
    """Return the name of the unfinished copy (TEMP), and of a source that is to be removed."""
    return f".watchman-{task_id}.tmp"


def marker_name(task_id: str) -> str:
    """Return the name of the file that says which inode at the destination is our copy (MARKER).

    Beside a source it is the name of a tree that is being removed.
    """
    return f".watchman-{task_id}.mark.tmp"


def suffixed(name: str, milliseconds: int, *, tree: bool = False, limit: int = NAME_MAX) -> str:
    """Return ``name`` with ``@milliseconds`` before its extension, at most ``limit`` bytes long.

    ``events.csv`` becomes ``events@1596705456400.csv``; a directory, or a name without an
    extension, gets it at its end. Where it would be too long, the stem is shortened.
    """
    stem, extension = (name, "") if tree else os.path.splitext(name)
    if len(os.fsencode(extension)) > _LONGEST_EXTENSION:
        stem, extension = name, ""
    tail = f"@{milliseconds}{extension}"
    room = limit - len(os.fsencode(tail))
    return shortened(stem, room) + tail


def shortened(text: str, size: int) -> str:
    """Return ``text`` cut to ``size`` bytes, not in the middle of a UTF-8 character."""
    raw = os.fsencode(text)
    if len(raw) <= size:
        return text
    end = max(size, 0)
    # A byte 10xxxxxx continues a character, which has at most three of them.
    for back in range(min(4, end + 1)):
        if raw[end - back] & 0xC0 != 0x80:
            return os.fsdecode(raw[: end - back])
    return os.fsdecode(raw[:end])


def free_name(
    name: str,
    milliseconds: int,
    taken: Callable[[str], bool],
    *,
    tree: bool = False,
    limit: int = NAME_MAX,
) -> str:
    """Return the first suffixed name from ``milliseconds`` on that is not taken."""
    while True:
        candidate = suffixed(name, milliseconds, tree=tree, limit=limit)
        if not taken(candidate):
            return candidate
        milliseconds += 1
