"""The last look at files before their tasks are sent: still there, still the same, still free?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple

from watchman.filesystem import (
    GONE,
    GONE_ERRNOS,
    Look,
    Seen,
    is_same_content,
    look,
    open_directory,
    relative_to,
)
from watchman.model import Delivery
from watchman.text import printable
from watchman.turns import turn

FRESH = 1.0
"""Seconds after an arrival for which the lease test that came before it is not repeated."""
_OPEN = 128
"""Directories open at a time."""
_THE_FILE_IS_GONE = "the file is gone"


class Examined(NamedTuple):
    """A page of deliveries, sorted."""

    good: list[Delivery]
    """As recorded."""
    vanished: list[tuple[Delivery, str]]
    """Removed or replaced, and how we know."""
    changed: list[Delivery]
    """Being written, or not what was recorded: to be looked at again."""
    obstacle: str
    """Why others could not be looked at and have to wait; empty if all could."""


def examine(
    page: Iterable[Delivery],
    root_of: Callable[[str], str],
    announced_later: Callable[[Delivery], bool],
) -> Examined:
    """Sort deliveries. ``root_of`` gives the watch root that a path is in.

    A file that could not be looked at (no permission, no descriptor, a share that is away) is
    not called gone: it is in none of the lists, only in ``obstacle``.
    """
    found = Examined([], [], [], "")
    fresh_ns = time.time_ns() - int(FRESH * 1e9)
    obstacle = ""
    with turn(), _Directories(root_of) as directories:
        for delivery in page:
            try:
                if delivery.final != delivery.source or delivery.kind == "directories":
                    verdict = _is_there(delivery.final)
                elif delivery.arrived_ns > fresh_ns and directories.has(delivery):
                    verdict = None
                else:
                    verdict = _judge(delivery, directories.look(delivery.final), announced_later)
            except OSError as error:
                obstacle = obstacle or f"{printable(delivery.final)}: {error.strerror}"
                continue
            if verdict is None:
                found.good.append(delivery)
            elif verdict:
                found.vanished.append((delivery, verdict))
            else:
                found.changed.append(delivery)
    return found._replace(obstacle=obstacle)


def _is_there(path: str) -> str | None:
    """The destination is out of the uploaders' reach: being there is enough.

    Raises OSError where nothing can be said: without its directory a share may be unmounted.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        os.lstat(os.path.dirname(path))
        return _THE_FILE_IS_GONE
    return None


def _judge(
    delivery: Delivery, seen: Look, announced_later: Callable[[Delivery], bool]
) -> str | None:
    """None: as recorded. A reason: it vanished. Empty: it changed, look at it again."""
    if seen.version is not None and seen.version.same_content(delivery.version):
        return "" if seen.seen is Seen.BUSY else None
    if announced_later(delivery):
        return "replaced by a newer upload"
    return _THE_FILE_IS_GONE if seen.version is None else ""


class _Directories:
    """Directories that are open while a page is examined; never reached through a symlink."""

    def __init__(self, root_of: Callable[[str], str]) -> None:
        self._root_of = root_of
        self._open: dict[str, int] = {}

    def __enter__(self) -> _Directories:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: object, _trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for descriptor in self._open.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()

    def has(self, delivery: Delivery) -> bool:
        """Say whether the file is as it was recorded, without the lease test.

        Raises OSError where its directory cannot be opened, unless it is gone.
        """
        descriptor, name = self._find(delivery.final)
        if descriptor < 0:
            return False
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return is_same_content(status, delivery.version)

    def look(self, path: str) -> Look:
        """Look at a file. Raises OSError where its directory cannot be opened, unless it is gone."""
        descriptor, name = self._find(path)
        return look(name, descriptor) if descriptor >= 0 else GONE

    def _find(self, path: str) -> tuple[int, str]:
        """Return the descriptor of a file's directory, -1 if it is gone, and the file's name."""
        directory, _, name = path.rpartition("/")
        descriptor = self._open.get(directory)
        if descriptor is None:
            descriptor = self._open[directory] = self._get(directory or "/", path)
        return descriptor, name

    def _get(self, directory: str, path: str) -> int:
        if len(self._open) >= _OPEN:
            self._close()
        root = self._root_of(path)
        try:
            return open_directory(root, relative_to(root, directory))
        except OSError as error:
            if error.errno not in GONE_ERRNOS:
                raise
            return -1
