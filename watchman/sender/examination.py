"""The last look at files before their tasks are sent: still there, still the same, still free?"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from watchman.descriptors import Descriptors
from watchman.filesystem import (
    CANNOT_TELL,
    GONE,
    GONE_ERRNOS,
    Look,
    Seen,
    look,
    open_directory,
    relative_to,
)
from watchman.identity import Doubt, doubt, is_same_content
from watchman.model import Delivery
from watchman.text import printable
from watchman.turns import turn

FRESH = 1.0
"""Seconds after an arrival for which the lease test that came before it is not repeated."""
_THE_FILE_IS_GONE = "the file is gone"
_REPLACED = "replaced by a newer upload"


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
    directories: Descriptors[str],
    announced_later: Callable[[Delivery], bool],
) -> Examined:
    """Sort deliveries by a look at each, in :func:`directories_below`.

    A file that could not be looked at (no permission, no descriptor, a share that is away) is
    not called gone: it is in none of the lists, only in ``obstacle``.
    """
    found = Examined([], [], [], "")
    fresh_ns = time.time_ns() - int(FRESH * 1e9)
    obstacle = ""
    directories.renew()
    with turn():
        for delivery in page:
            try:
                if delivery.final != delivery.source or delivery.kind == "directories":
                    verdict = _is_there(delivery)
                else:
                    directory, _, name = delivery.final.rpartition("/")
                    descriptor = directories.get(directory)
                    if delivery.arrived_ns > fresh_ns and _is_same(delivery, name, descriptor):
                        verdict = None
                    else:
                        seen = look(name, descriptor) if descriptor >= 0 else GONE
                        verdict = _judge(delivery, seen, announced_later)
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


def _is_there(delivery: Delivery) -> str | None:
    """The destination is out of the uploaders' reach: being there is enough.

    Raises OSError where nothing can be said because a share may be unmounted: the directory is
    not there either, or it may be the mount point, which is empty.
    """
    if os.path.lexists(delivery.final):
        return None
    directory = os.path.dirname(delivery.final)
    with os.scandir(directory) as entries:
        empty = next(entries, None) is None
    if empty and os.stat(directory).st_dev != delivery.version.device:
        raise OSError(errno.ESTALE, "nothing is there, as if its file system were not mounted")
    try:
        os.lstat(delivery.final)  # once more: it may have been mounted in between
    except FileNotFoundError:
        return _THE_FILE_IS_GONE
    return None


def _is_same(delivery: Delivery, name: str, directory: int) -> bool:
    """Say whether a file is still as it was recorded, without the lease test."""
    if directory < 0:
        return False
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    numbers = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return numbers == delivery.version[1:]


def _judge(
    delivery: Delivery, seen: Look, announced_later: Callable[[Delivery], bool]
) -> str | None:
    """None: as recorded. A reason: it vanished. Empty: it changed, look at it again.

    Raises OSError where it cannot be looked at: what is unknown is neither gone nor changed.
    """
    if seen is CANNOT_TELL:
        reason = "it cannot be opened now: no descriptor or memory is left, or it is leased"
        raise OSError(errno.EAGAIN, reason)
    if seen.version is not None and is_same_content(delivery.version, seen.version):
        if seen.seen is Seen.BUSY:
            return ""
        doubts = doubt(delivery.version, seen.version)
        if doubts is not Doubt.NONE and announced_later(delivery):
            return _REPLACED
        return "" if doubts is Doubt.GRAVE else None
    if announced_later(delivery):
        return _REPLACED
    return _THE_FILE_IS_GONE if seen.version is None else ""


def directories_below(root_of: Callable[[str], str]) -> Descriptors[str]:
    """Return the directories of files, by path, each reached from its watch root by no symlink.

    ``root_of`` gives the watch root that a path is in; the descriptor of what is gone is -1, and
    what cannot be opened for another reason raises OSError.
    """

    def open_one(directory: str) -> int:
        root = root_of(f"{directory}/")
        try:
            return open_directory(root, relative_to(root, directory or "/"))
        except OSError as error:
            if error.errno not in GONE_ERRNOS:
                raise
            return -1

    return Descriptors(open_one)
