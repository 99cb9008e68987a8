"""Removing a source whose copy is in its place: the last step of a transfer (see its table)."""

from __future__ import annotations

import os
from collections.abc import Callable

from watchman.filesystem import Look, Seen, version_of
from watchman.model import Delivery, Version
from watchman.mover.copy import Progress
from watchman.mover.hold import Hold, is_tree, look_at, same
from watchman.mover.names import mark_name, temporary_name
from watchman.mover.outcome import Odd
from watchman.mover.rename import put_back
from watchman.mover.standing import Place
from watchman.mover.syscalls import rename_noreplace, status_of
from watchman.mover.tree import busy, remove_tree, same_file, same_tree


def remove_source(
    place: Place, source: int, progress: Progress, proof: os.stat_result | None
) -> None:
    """Remove a file if it still is what was copied; else it is left alone.

    ``proof`` says what it was when it was found equal to the copy; without it, or where it has
    been changed since, both are compared once more. It is renamed first: what is removed under a
    name of our own cannot be an upload that took the old name in the meantime. Raises Odd while
    somebody has it open for writing, or where this cannot be told.
    """
    row, name = place.row, place.name
    aside = temporary_name(row.task_id)
    if status_of(aside, source) is not None:  # a crash between setting aside and removing
        if _equals_copy(place, source, progress.check):
            os.unlink(aside, dir_fd=source)
            return
        put_back(aside, source, name, source, tree=False)
    with Hold(name, source) as hold:
        found = hold.look()
        if found.seen is Seen.BUSY and (found.version is None or same(row, found.version)):
            raise Odd
        if not _may_be_ours(row, found.version):
            return
        rename_noreplace(name, source, aside, source)
        if not _still_ours(place, source, hold):
            return
        # From here on nobody can open it by its name; who did so before shows in the lease.
        try:
            copied = _is_as_copied(found, proof) or _equals_copy(place, source, progress.check)
        except BaseException:
            put_back(aside, source, name, source, tree=False)
            raise
        if copied:
            os.unlink(aside, dir_fd=source)
        else:
            put_back(aside, source, name, source, tree=False)


def _may_be_ours(row: Delivery, version: Version | None) -> bool:
    """Say whether it may be what was copied, with other times perhaps: its content tells.

    Clients set the time after the upload (MFMT). No write follows that, so no other delivery: a
    source that was left alone for it would stay for ever.
    """
    if version is None or is_tree(row):
        return same(row, version)
    touched = (version.inode, version.size) == (row.version.inode, row.version.size)
    return touched or same(row, version)


def _is_as_copied(found: Look, proof: os.stat_result | None) -> bool:
    """Say whether nothing has been done to the file since it was compared.

    The ctime tells what size and mtime can hide: nobody can set it.
    """
    return proof is not None and found.version == version_of(proof)


def _equals_copy(place: Place, source: int, check: Callable[[], None]) -> bool:
    """Say whether the file that is set aside has the content of the one in its place."""
    row, _, _, final, target = place
    aside = temporary_name(row.task_id)
    there = status_of(aside, source)
    if there is None or target is None or not _may_be_ours(row, version_of(there)):
        return False
    return same_file(aside, source, final, target, check)


def _still_ours(place: Place, source: int, hold: Hold | None) -> bool:
    """Undo the renaming of the source if it caught something else, or somebody wants to write."""
    row, name = place.row, place.name
    aside = temporary_name(row.task_id)
    there = status_of(aside, source)
    ours = there is not None and _may_be_ours(row, version_of(there))
    if ours and (hold is None or not hold.wanted()):
        return True
    put_back(aside, source, name, source, tree=is_tree(row))
    if ours:
        raise Odd  # a writer waits for the lease: let it go on first
    return False


def remove_source_tree(place: Place, source: int, progress: Progress) -> None:
    """The same for a directory: set aside, compared with its copy, and only then removed."""
    row, name, _, final, target = place
    aside = temporary_name(row.task_id)
    left = status_of(aside, source)
    if left is not None and not same(row, version_of(left)):
        put_back(aside, source, name, source, tree=True)
        left = None
    if left is None:
        if not same(row, look_at(row, name, source).version):
            return
        rename_noreplace(name, source, aside, source, tree=True)
        if not _still_ours(place, source, None):
            return
    try:
        if busy(aside, source):
            raise Odd  # what is written through an open descriptor would go with the tree
        equal = target is not None and same_tree(
            aside, source, final, target, progress.check, read=True
        )
    except BaseException:
        put_back(aside, source, name, source, tree=True)
        raise
    if not equal:
        put_back(aside, source, name, source, tree=True)
        return
    doomed = mark_name(row.task_id)
    rename_noreplace(aside, source, doomed, source, tree=True)
    remove_tree(doomed, source, progress.check)
