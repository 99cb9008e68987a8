"""Looks at files by way of their directories, each of which is opened once."""

from __future__ import annotations

import os

from watchman.filesystem import CANNOT_TELL, GONE, GONE_ERRNOS, Look, look
from watchman.sources.inotify import CLOSE_WRITE
from watchman.sources.nodes import Node

_GONE, _UNREACHABLE = -1, -2


class Directories:
    """Directories that are open while a slice of hints is handled."""

    LIMIT = 200
    """So many at a time."""

    def __init__(self) -> None:
        self._open: dict[Node, tuple[int, str]] = {}

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor, _path in self._open.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()

    def get(self, node: Node) -> tuple[int, str]:
        """Return (descriptor, or what is negative; path with a slash behind it)."""
        found = self._open.get(node)
        if found is None:
            if len(self._open) >= self.LIMIT:
                self.__exit__()
            try:
                descriptor = node.open()
            except OSError as error:
                descriptor = _GONE if error.errno in GONE_ERRNOS else _UNREACHABLE
            found = self._open[node] = (descriptor, node.path.rstrip("/") + "/")
        return found


def look_at(name: str, descriptor: int, mask: int) -> Look:
    """Look at a name in what :meth:`Directories.get` returned, after an event with ``mask``."""
    if descriptor >= 0:
        return look(name, descriptor, closed=bool(mask & CLOSE_WRITE))
    return CANNOT_TELL if descriptor == _UNREACHABLE else GONE
