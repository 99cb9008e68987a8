"""Looks at files by way of their directories."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from watchman.filesystem import CANNOT_TELL, GONE, GONE_ERRNOS, Look, look
from watchman.model import Watch
from watchman.sources.inotify import CLOSE_WRITE, Hints
from watchman.sources.inotify import GONE as LEFT
from watchman.sources.nodes import Node

_GONE, _UNREACHABLE = -1, -2


def descriptor_of(node: Node) -> int:
    """Open a directory; return its descriptor, or what is negative."""
    try:
        return node.open()
    except OSError as error:
        return _GONE if error.errno in GONE_ERRNOS else _UNREACHABLE


def look_at(name: str, descriptor: int, mask: int) -> Look:
    """Look at a name in what :func:`descriptor_of` returned, after an event with ``mask``."""
    if descriptor >= 0:
        if mask & LEFT:
            return GONE  # whatever has the name by now has an event of its own
        return look(name, descriptor, closed=bool(mask & CLOSE_WRITE))
    return CANNOT_TELL if descriptor == _UNREACHABLE else GONE


def watch_root(watches: Iterable[Watch], path: str) -> str:
    """Return the watch root that ``path`` is in; the path's directory if there is none."""
    roots = [watch.path for watch in watches if path.startswith(watch.prefix)]
    return max(roots, key=len, default=os.path.dirname(path))


def hints_at(paths: Iterable[str], find: Callable[[str], Node | None]) -> Hints:
    """Return hints at files; ``find`` gives the watched directory at a path."""
    hints: Hints = {}
    for path in paths:
        directory, name = os.path.split(path)
        node = find(directory)
        if node is not None:
            hints[node, name] = 0
    return hints
