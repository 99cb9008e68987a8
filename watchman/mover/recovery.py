"""Finding out how far an earlier attempt at a delivery got, and removing what it has left.

This is the half of the table in :mod:`watchman.mover.transfer` that only reads, and the end of rows
that get no other attempt.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Collection
from typing import NamedTuple

from watchman.file_access import (
    FILE_FLAGS,
    GONE,
    Look,
    Seen,
    open_directory,
    relative_to,
    release,
    version_of,
)
from watchman.model import Delivery
from watchman.mounts import leads_to
from watchman.mover.copy_marker import clean_up, is_copied, resembles
from watchman.mover.copy_tree import busy, remove_tree
from watchman.mover.lease import is_tree, look_at, matches
from watchman.mover.names import marker_name, temporary_name
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.rename import put_back
from watchman.mover.syscalls import NOT_THERE, status_at_destination, status_of


class AttemptState(enum.Enum):
    """How far an earlier attempt got."""

    AT_SOURCE = "at source"
    """The source is as recorded, and nothing of it is at the destination."""
    COPIED = "copied"
    """The copy is complete at its final path; the source may still be there."""
    SOURCE_RENAMED = "source renamed"
    """The source has our temporary name, but there is no copy (any more): it must be put back."""
    MOVED = "moved"
    """The file is at its final path, and only there."""
    BUSY = "busy"
    """Somebody is writing to the source."""
    CHANGED = "changed"
    """There is another version at the source."""
    GONE = "gone"
    """The recorded version is nowhere."""


class Inspection(NamedTuple):
    """The answer of :func:`inspect`."""

    state: AttemptState
    look: Look = GONE
    """What is at the source."""


class Endpoints(NamedTuple):
    """The names of a row's source and final path, and the descriptors of their directories."""

    row: Delivery
    name: str
    source: int | None
    """None where the directory is not there; so is ``target``."""
    final: str
    target: int | None

    @classmethod
    def of(cls, row: Delivery, directories: OpenDirectories) -> Endpoints:
        """Open both directories; make none. They stay ``directories``' own."""
        directory, _, name = row.source.rpartition("/")
        above, _, final = row.final.rpartition("/")
        return cls(row, name, directories.source(directory), final, directories.target(above, None))


def inspect(ends: Endpoints, *, inherited: bool) -> Inspection:
    """Find out where the recorded version is. Changes nothing.

    Raises OSError where that cannot be told: unknown is neither gone nor changed.
    ``inherited`` says that an earlier run may have moved the file without noting it.
    """
    row, name, source, final, target = ends
    # The order of these tests is that of the table. The copy is looked for before the source is
    # believed to be just there: then it has only to be removed.
    look = GONE if source is None else _look_surely(row, name, source)
    here = matches(row, look.version)
    if here and source is not None and is_tree(row) and busy(name, source):
        look = look._replace(seen=Seen.BUSY)
    if here and look.seen is Seen.BUSY:
        return Inspection(AttemptState.BUSY, look)
    copied = target is not None and is_copied(row, final, target)
    if copied:
        return Inspection(AttemptState.COPIED, look)
    if here:
        return Inspection(AttemptState.AT_SOURCE, look)
    if source is not None and status_of(temporary_name(row.task_id), source) is not None:
        return Inspection(AttemptState.SOURCE_RENAMED, look)
    if target is not None and _has_arrived(ends, target, look, inherited=inherited):
        return Inspection(AttemptState.MOVED, look)
    if look.seen is Seen.BUSY:
        return Inspection(AttemptState.BUSY, look)  # which version it is may be unknown
    return Inspection(AttemptState.GONE if look.version is None else AttemptState.CHANGED, look)


def _look_surely(row: Delivery, name: str, source: int) -> Look:
    """Look at the source; raise OSError where what is there cannot be told.

    A file on which another program holds a write lease is busy.
    """
    look = look_at(row, name, source)
    if look.seen is Seen.GONE:
        # Gone is only what the answer "no such entry" was given for: other errors, as that of a
        # server that has lost the directory (ESTALE), are raised here.
        return Look(Seen.BUSY) if status_of(name, source) is not None else look
    if look.seen is Seen.BUSY and look.version is None:
        try:
            release(os.open(name, FILE_FLAGS, dir_fd=source))
        except (BlockingIOError, FileNotFoundError):
            return look
    return look


def inspect_afresh(row: Delivery, directories: OpenDirectories, *, inherited: bool) -> Inspection:
    """Do :func:`inspect` with the source's directory opened again: it may be another one now.

    Raises OSError where a file seems gone, but its file system may just not be mounted.
    """
    directories.source_again(os.path.dirname(row.source))
    found = inspect(Endpoints.of(row, directories), inherited=inherited)
    if found.state is AttemptState.GONE:
        directories.refuse_unmounted(row.source, row.version.device)
    return found


def _has_arrived(ends: Endpoints, target: int, look: Look, *, inherited: bool) -> bool:
    """Say whether what is at the final path can be taken for the recorded version.

    After a rename it is the same inode. Where inode numbers do not last, size and mtime must do,
    and the source must be gone: an older file at the final path may have both. After a copy whose
    TEMP and MARKER are gone, size and mtime must do as well, but only for rows of an earlier run
    (``inherited``): two uploads within one tick of the clock have the same. Nothing is removed on
    the strength of this.
    """
    row, _, source, final, _ = ends
    there = status_at_destination(final, target)
    if there is None or stat.S_ISDIR(there.st_mode) != is_tree(row):
        return False
    device = row.version.device if source is None else os.fstat(source).st_dev
    other_device = os.fstat(target).st_dev != device
    version = version_of(there)
    if matches(row, version):
        if not is_tree(row) and not row.version.same_content(version):
            return not other_device and look.version is None
        # An inode number means nothing on another file system; of files we know more than it.
        return not is_tree(row) or not other_device
    return other_device and inherited and resembles(row, there)


def remove_leftovers(row: Delivery, directories: OpenDirectories) -> None:
    """Remove what attempts at a row that has ended have left. Raises OSError.

    The caller has claimed the row. An unfinished copy goes, and a source that has our temporary
    name is put back. Where the copy is finished both stay for a retry, and so does what tells that
    the copy is ours.
    """
    _remove(Endpoints.of(row, directories), final=False)


def discard_leftovers(row: Delivery, tops: Collection[str]) -> None:
    """Remove what attempts at a row that an operator gives up have left; no retry will need it.

    ``tops`` are the directories that the configuration names: below them no symlink is followed.
    Nothing may be under way for the row. Raises OSError.
    """
    directory, _, name = row.source.rpartition("/")
    above, _, last = row.final.rpartition("/")
    source, target = _open(directory, tops), None
    try:
        target = _open(above, tops)
        _remove(Endpoints(row, name, source, last, target), final=True)
    finally:
        for descriptor in (source, target):
            if descriptor is not None:
                os.close(descriptor)


def _open(path: str, tops: Collection[str]) -> int | None:
    above = [top for top in tops if leads_to(top, path)]
    top = max(above, key=len, default="/")
    try:
        return open_directory(top, relative_to(top, path))
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise


def _remove(ends: Endpoints, *, final: bool) -> None:
    row, name, source, last, target = ends
    copied = target is not None and is_copied(row, last, target)
    if source is not None and not copied:
        renamed = temporary_name(row.task_id)
        if status_of(renamed, source) is not None:
            put_back(renamed, source, name, source, tree=is_tree(row))
    if source is not None and is_tree(row):
        # DELETING: a tree gets this name only when its copy was found equal to it.
        remove_tree(marker_name(row.task_id), source)
    if target is not None and (final or not copied):
        clean_up(row, target)
