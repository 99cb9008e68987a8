"""Moving to another file system: copy beside the destination, place, remove the source.

The states that a crash can leave, in the order they come to be, and what the next run does. TEMP,
MARK are ``.watchman-<task id>.tmp``, ``….mark.tmp`` in the destination's directory; ASIDE and
DOOMED have the same names in the source's directory (DOOMED only for trees).

=====================================================  =========================================
what is there                                          next
=====================================================  =========================================
source                                                 copy
source, half TEMP                                      remove TEMP, copy again
source, whole TEMP                                     the same: wholeness cannot be seen
source, TEMP and final one inode (link)                placed: remove the source
source, MARK names TEMP's inode                        remove both, copy again
source, MARK names final's inode                       placed: remove the source
ASIDE, placed (by TEMP or MARK)                        remove ASIDE
DOOMED (a placed tree, compared with its copy)         remove DOOMED
ASIDE, not placed (the copy was taken away)            put ASIDE back under the source's name
ASIDE and a new source of another version              the same, the new one is another delivery
placed, source gone                                    remove TEMP and MARK, note
final of the recorded size and mtime, source gone      note
nothing of all this                                    vanished
=====================================================  =========================================

The order that must hold: TEMP is durable before final exists, final is durable before the source
is renamed to ASIDE, that is durable before TEMP and MARK are removed, those before the note (a tree
whose mtime is not the recorded one keeps its MARK until after it: nothing else would tell).
"""

from __future__ import annotations

import errno
import os

from watchman.filesystem import Seen, version_of
from watchman.model import Delivery
from watchman.mover.copy import Progress, copy_file, require_room
from watchman.mover.folders import Folders, mode_like
from watchman.mover.hold import Hold, is_tree, look_at, same
from watchman.mover.marks import clean_up, is_placed, write_mark
from watchman.mover.names import mark_name, temporary_name
from watchman.mover.outcome import Odd
from watchman.mover.rename import Clerk, put_back, redirect, shorten
from watchman.mover.standing import Place, Standing, inspect
from watchman.mover.syscalls import NO_LINKS, exists, rename_noreplace, status_of, sync_directory
from watchman.mover.tree import busy, copy_tree, remove_tree, same_tree, size_of


def transfer(row: Delivery, folders: Folders, clerk: Clerk, progress: Progress) -> Delivery:
    """Go on from wherever an earlier attempt got; return the row with its final path.

    On return the copy is durable and the source is gone; that this is durable, too, and the
    removal of the traces is left to the caller, who does it for many at once. Raises Odd where
    the source is in use or not what was recorded, Ended, Stopped, OSError.
    """
    place = Place.of(row, folders)
    if is_tree(row) and place.source is not None:
        remove_tree(mark_name(row.task_id), place.source, progress.check)
    found = inspect(place, inherited=clerk.inherited(row.seq))
    if found.standing is Standing.ASIDE and place.source is not None:
        put_back(
            temporary_name(row.task_id), place.source, place.name, place.source, tree=is_tree(row)
        )
        found = inspect(place, inherited=clerk.inherited(row.seq))
    if found.standing is Standing.HERE:
        row = _copy_and_place(place, folders, clerk, progress)
        place = Place.of(row, folders)
    elif found.standing is not Standing.PLACED:
        if found.standing is not Standing.MOVED and place.target is not None:
            clean_up(row, place.target)
        if found.standing is Standing.MOVED:
            return row
        raise Odd
    if place.source is not None:
        _remove_source(place, place.source, progress)
    return row


def _copy_and_place(place: Place, folders: Folders, clerk: Clerk, progress: Progress) -> Delivery:
    row, name, source, final, target = place
    if source is None:
        raise Odd
    if target is None:
        target = folders.target(os.path.dirname(row.final), mode_like(source))
    if target is None:
        raise Odd
    clean_up(row, target)
    if exists(final, target):
        row = redirect(row, target, clerk)
    clerk.say(row)
    try:
        _copy(row, name, source, target, progress)
        row = _put_in_place(row, target, clerk)
    except BaseException:
        # Whatever happened, the source is untouched; half a copy must not fill the disk.
        if not is_placed(row, os.path.basename(row.final), target):
            clean_up(row, target)
        raise
    sync_directory(target)
    return row


def _copy(row: Delivery, name: str, source: int, target: int, progress: Progress) -> None:
    temporary = temporary_name(row.task_id)
    progress.final = row.final
    progress.total = size_of(name, source) if is_tree(row) else row.version.size
    require_room(progress.total, target, row.final)
    if is_tree(row):
        copy_tree(name, source, temporary, target, progress)
        look = look_at(row, name, source)
        if not same(row, look.version) or busy(name, source):
            raise Odd
        if not same_tree(name, source, temporary, target):
            raise Odd
    elif not same(row, version_of(copy_file(name, source, temporary, target, progress))):
        raise Odd


def _put_in_place(row: Delivery, target: int, clerk: Clerk) -> Delivery:
    """Give the complete copy its final name; never replace anything."""
    marked = is_tree(row)
    if marked:
        write_mark(row, target)
    temporary = temporary_name(row.task_id)
    while True:
        final = os.path.basename(row.final)
        try:
            if marked:
                rename_noreplace(temporary, target, final, target, tree=is_tree(row))
            else:
                os.link(
                    temporary, final, src_dir_fd=target, dst_dir_fd=target, follow_symlinks=False
                )
            return row
        except FileExistsError:
            row = redirect(row, target, clerk)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                row = shorten(row, target, clerk)
            elif not marked and error.errno in NO_LINKS:
                write_mark(row, target)
                marked = True
            else:
                raise


def _remove_source(place: Place, source: int, progress: Progress) -> None:
    """Remove the source if it is still the version that was copied; else it is left alone.

    It is renamed first: what is removed under a name of our own cannot be an upload that took
    the old name in the meantime. Raises Odd while somebody has it open for writing.
    """
    row, name = place.row, place.name
    aside = temporary_name(row.task_id)
    if not _take_aside(place, source, aside):
        return
    if is_tree(row):
        if place.target is not None and same_tree(aside, source, place.final, place.target):
            doomed = mark_name(row.task_id)
            rename_noreplace(aside, source, doomed, source, tree=True)
            remove_tree(doomed, source, progress.check)
        else:
            put_back(aside, source, name, source, tree=True)
    else:
        os.unlink(aside, dir_fd=source)


def _take_aside(place: Place, source: int, aside: str) -> bool:
    row, name = place.row, place.name
    left = status_of(aside, source)
    if left is not None:  # a crash between setting aside and removing
        if same(row, version_of(left)):
            return True
        put_back(aside, source, name, source, tree=is_tree(row))
    if is_tree(row):
        if not same(row, look_at(row, name, source).version):
            return False
        rename_noreplace(name, source, aside, source, tree=True)
        return _still_ours(place, source, aside, None)
    with Hold(name, source) as hold:
        found = hold.look()
        if not same(row, found.version):
            return False
        if found.seen is Seen.BUSY:
            raise Odd
        rename_noreplace(name, source, aside, source)
        return _still_ours(place, source, aside, hold)


def _still_ours(place: Place, source: int, aside: str, hold: Hold | None) -> bool:
    row, name = place.row, place.name
    there = status_of(aside, source)
    ours = there is not None and same(row, version_of(there))
    if ours and (hold is None or not hold.wanted()):
        return True
    put_back(aside, source, name, source, tree=is_tree(row))
    if ours:
        raise Odd  # a writer waits for the lease: let it go on first
    return False
