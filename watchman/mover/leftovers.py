"""Removing what attempts at a delivery have left beside its source and its destination.

Whoever calls this has made sure that nothing is under way for the task id.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection

from watchman.filesystem import open_directory, relative_to
from watchman.model import Delivery
from watchman.mover.folders import Folders
from watchman.mover.hold import is_tree
from watchman.mover.marks import clean_up, is_placed
from watchman.mover.names import mark_name, temporary_name
from watchman.mover.rename import put_back
from watchman.mover.standing import Place
from watchman.mover.syscalls import status_of
from watchman.mover.tree import remove_tree

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def remove_leftovers(row: Delivery, folders: Folders) -> None:
    """Remove the traces of a row that has ended. Raises OSError.

    An unfinished copy goes. A source that was set aside is put back, unless it is in its place at
    the destination: then the copy, and what says that it is ours, stay for a retry.
    """
    _remove(Place.of(row, folders), final=False)


def discard_leftovers(row: Delivery, tops: Collection[str]) -> None:
    """The same for a row that an operator has given up: no retry will need anything of it.

    Below ``tops``, the directories that the configuration names, no symlink is followed. Raises
    OSError.
    """
    directory, _, name = row.source.rpartition("/")
    above, _, last = row.final.rpartition("/")
    source, target = _open(directory, tops), None
    try:
        target = _open(above, tops)
        _remove(Place(row, name, source, last, target), final=True)
    finally:
        for descriptor in (source, target):
            if descriptor is not None:
                os.close(descriptor)


def _open(path: str, tops: Collection[str]) -> int | None:
    above = [top for top in tops if f"{path}/".startswith(top.rstrip("/") + "/")]
    top = max(above, key=len, default="/")
    try:
        return open_directory(top, relative_to(top, path))
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _remove(place: Place, *, final: bool) -> None:
    row, name, source, last, target = place
    placed = target is not None and is_placed(row, last, target)
    if source is not None and not placed:
        aside = temporary_name(row.task_id)
        if status_of(aside, source) is not None:
            put_back(aside, source, name, source, tree=is_tree(row))
    if source is not None and is_tree(row):
        remove_tree(mark_name(row.task_id), source)  # it had been placed before it got this name
    if target is not None and (final or not placed):
        clean_up(row, target)
