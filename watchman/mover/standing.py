"""Finding out how far an earlier attempt got: the reading half of transfer's table."""

from __future__ import annotations

import enum
import os
import stat
from typing import NamedTuple

from watchman.filesystem import (
    CANNOT_TELL,
    FILE_FLAGS,
    GONE,
    Look,
    Seen,
    release,
    version_of,
)
from watchman.model import Delivery
from watchman.mover.folders import Folders
from watchman.mover.hold import is_tree, look_at, same
from watchman.mover.marks import alike, is_placed
from watchman.mover.names import temporary_name
from watchman.mover.syscalls import status_at_destination, status_of
from watchman.mover.tree import busy


class Standing(enum.Enum):
    """How far an earlier attempt got."""

    HERE = "here"
    """The source is as recorded, and nothing of it is at the destination."""
    PLACED = "placed"
    """The copy is complete at its final path; the source may still be there."""
    ASIDE = "aside"
    """The source was set aside, but there is no copy (any more): it must be put back."""
    MOVED = "moved"
    """The file is at its final path, and only there."""
    BUSY = "busy"
    """Somebody is writing to the source."""
    CHANGED = "changed"
    """There is another version at the source."""
    GONE = "gone"
    """The recorded version is nowhere."""


class Found(NamedTuple):
    """The answer of :func:`inspect`."""

    standing: Standing
    look: Look = GONE


class Place(NamedTuple):
    """One row's names and the descriptors of their directories."""

    row: Delivery
    name: str
    source: int | None
    final: str
    target: int | None

    @classmethod
    def of(cls, row: Delivery, folders: Folders) -> Place:
        """Open both directories, creating none."""
        directory, _, name = row.source.rpartition("/")
        above, _, final = row.final.rpartition("/")
        return cls(row, name, folders.source(directory), final, folders.target(above, None))


def inspect(place: Place, *, inherited: bool) -> Found:
    """Find out where the recorded version is. Changes nothing.

    Raises OSError where that cannot be told: unknown is neither gone nor changed.
    ``inherited`` says that an earlier run may have moved the file without noting it.
    """
    row, name, source, final, target = place
    look = GONE if source is None else _look_surely(row, name, source)
    here = same(row, look.version)
    if here and source is not None and is_tree(row) and busy(name, source):
        look = look._replace(seen=Seen.BUSY)
    if here and look.seen is Seen.BUSY:
        return Found(Standing.BUSY, look)
    placed = target is not None and is_placed(row, final, target)
    if placed:
        return Found(Standing.PLACED, look)
    if here:
        return Found(Standing.HERE, look)
    if source is not None and status_of(temporary_name(row.task_id), source) is not None:
        return Found(Standing.ASIDE, look)
    if target is not None and _has_arrived(place, target, look, inherited=inherited):
        return Found(Standing.MOVED, look)
    if look.seen is Seen.BUSY:
        return Found(Standing.BUSY, look)  # perhaps nothing is known of it but that it is there
    return Found(Standing.GONE if look.version is None else Standing.CHANGED, look)


def _look_surely(row: Delivery, name: str, source: int) -> Look:
    """Look at the source; raise OSError where what is there cannot be told.

    A file on which another program holds a write lease is one that is in use.
    """
    look = look_at(row, name, source)
    if look.seen is Seen.GONE:
        # Only the answer "no such entry" is one: a server may have lost the directory (ESTALE).
        return CANNOT_TELL if status_of(name, source) is not None else look
    if look.seen is Seen.BUSY and look.version is None:
        try:
            release(os.open(name, FILE_FLAGS, dir_fd=source))
        except (BlockingIOError, FileNotFoundError):
            return look
    return look


def inspect_afresh(row: Delivery, folders: Folders, *, inherited: bool) -> Found:
    """Like :func:`inspect`, with the source's directory opened again: it may be another one now.

    Raises OSError where a file seems gone, but its file system may just not be mounted.
    """
    folders.source_again(os.path.dirname(row.source))
    found = inspect(Place.of(row, folders), inherited=inherited)
    if found.standing is Standing.GONE:
        folders.refuse_unmounted(row.source, row.version.device)
    return found


def _has_arrived(place: Place, target: int, look: Look, *, inherited: bool) -> bool:
    """Say whether what is at the final path can be taken for the recorded version.

    After a rename it is the same inode; where inode numbers do not last, size and mtime must do,
    and the source must be gone: an older file there may have both. After a copy, whose traces are
    gone, size and mtime must do, after a crash only: nothing is removed on the strength of this,
    but two uploads within one tick of the clock are alike.
    """
    row, _, source, final, _ = place
    there = status_at_destination(final, target)
    if there is None or stat.S_ISDIR(there.st_mode) != is_tree(row):
        return False
    device = row.version.device if source is None else os.fstat(source).st_dev
    other_device = os.fstat(target).st_dev != device
    version = version_of(there)
    if same(row, version):
        if not is_tree(row) and not row.version.same_content(version):
            return not other_device and look.version is None
        # An inode number means nothing on another file system; of files we know more than it.
        return not is_tree(row) or not other_device
    return other_device and inherited and alike(row, there)
