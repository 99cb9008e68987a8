"""Looks at files by way of their directories."""

from __future__ import annotations

from watchman.filesystem import CANNOT_TELL, GONE, GONE_ERRNOS, Look, look
from watchman.sources.inotify import CLOSE_WRITE
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
        return look(name, descriptor, closed=bool(mask & CLOSE_WRITE))
    return CANNOT_TELL if descriptor == _UNREACHABLE else GONE
