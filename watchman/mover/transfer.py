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
source, TEMP and final one inode (link)                placed: set the source aside, compare
source, MARK names TEMP's inode                        remove both, copy again
source, MARK names final's inode                       placed: set the source aside, compare
ASIDE, placed (by TEMP or MARK), equal to final        remove ASIDE
ASIDE, placed, not equal (rewritten, or final altered) put ASIDE back: it is another delivery
source in use, placed                                  wait: what is placed stays, and so do
                                                       TEMP and MARK, which tell that it is ours
DOOMED (a placed tree, compared with its copy)         remove DOOMED
ASIDE, not placed (the copy was taken away)            put ASIDE back under the source's name
ASIDE and a new source of another version              the same, the new one is another delivery
placed, source gone                                    remove TEMP and MARK, note
placed, the source's directory away                    note, its source not known: should it come
                                                       back it is another arrival; then remove both
final of the recorded size and mtime, source gone      note
nothing of all this                                    vanished: remove TEMP and MARK
=====================================================  =========================================

The order that must hold: TEMP is durable, and read back and equal to the source, before final
exists; final is durable before the source is renamed to ASIDE; ASIDE is, by its ctime or by another
comparison, what was copied before it is unlinked; that is durable before TEMP and MARK are removed,
those before the note (a tree whose mtime is not the recorded one keeps its MARK until after it:
nothing else would tell). Final is a link of the open descriptor, so that nothing but the inode that
was compared can get that name; without links, TEMP must still be that inode when it is renamed.

None of this is safe for two at a time: the caller holds the claim of the task id (``underway``)
from the first look until the traces are removed. A copy that hangs in the kernel keeps it, also
across a reload, and whoever comes next waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from watchman.filesystem import version_of
from watchman.model import Delivery
from watchman.mover.copy import Copied, Progress, copied, require_room
from watchman.mover.folders import Folders
from watchman.mover.hold import is_tree, look_at, same
from watchman.mover.marks import clean_up, is_placed, write_mark
from watchman.mover.names import mark_name, temporary_name
from watchman.mover.outcome import Odd
from watchman.mover.removal import remove_source, remove_source_tree
from watchman.mover.rename import (
    Clerk,
    put_back,
    redirect,
    refuse_superseded,
    refuse_too_long,
    shorten,
)
from watchman.mover.standing import Place, Standing, inspect
from watchman.mover.syscalls import (
    NO_LINKS,
    exists,
    link_descriptor,
    rename_noreplace,
    same_inode,
    status_at_destination,
    status_of,
    sync_directory,
)
from watchman.mover.tree import busy, copy_tree, opened, remove_tree, room_for, same_tree


def transfer(row: Delivery, folders: Folders, clerk: Clerk, progress: Progress) -> Delivery:
    """Go on from wherever an earlier attempt got; return the row with its final path.

    The caller holds the claim of the row's task id (``underway``), and keeps it until the traces
    are removed. On return the copy is durable and the source is gone; that this is durable, too,
    and the removal of the traces is left to the caller, who does it for many at once. Raises Odd
    where the source is in use, not what was recorded, or gone to its final path already; Ended,
    Stopped, OSError.
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
    proof: os.stat_result | None = None
    if found.standing is Standing.HERE:
        row, proof = _copy_and_place(place, folders, clerk, progress)
        place = Place.of(row, folders)
    elif found.standing is Standing.MOVED:
        raise Odd  # perhaps by another delivery of the same source: the lane knows
    elif found.standing is not Standing.PLACED:
        _clean_up_unplaced(row, place.target)
        raise Odd
    if place.source is not None:
        if is_tree(row):
            remove_source_tree(place, place.source, progress)
        else:
            remove_source(place, place.source, progress, proof)
    return row


def _clean_up_unplaced(row: Delivery, target: int | None) -> None:
    """Remove an unfinished copy. One in its place stays, with what says that it is ours.

    Else the next attempt, when the source is no longer in use, would make another copy.
    """
    if target is not None and not is_placed(row, os.path.basename(row.final), target):
        clean_up(row, target)


def _copy_and_place(
    place: Place, folders: Folders, clerk: Clerk, progress: Progress
) -> tuple[Delivery, os.stat_result]:
    """Return the row and what the source was when the copy was found equal to it."""
    row, name, source, final, target = place
    if source is None:
        raise Odd
    refuse_too_long(row.final)
    if not is_tree(row):
        refuse_superseded(row, look_at(row, name, source).version, clerk)
    if target is None:
        target = folders.target(os.path.dirname(row.final), source)
    if target is None:
        raise Odd
    clean_up(row, target)
    if exists(final, target):
        row = redirect(row, target, clerk)
    clerk.say(row)
    try:
        with _whole_copy(row, name, source, target, progress) as copy:
            row = _put_in_place(row, target, clerk, copy.descriptor)
    except BaseException:
        # Whatever happened, the source is untouched; half a copy must not fill the disk.
        with contextlib.suppress(OSError):
            _clean_up_unplaced(row, target)
        raise
    sync_directory(target)
    return row, copy.source


@contextlib.contextmanager
def _whole_copy(
    row: Delivery, name: str, source: int, target: int, progress: Progress
) -> Iterator[Copied]:
    """Make a durable copy that equals the recorded source, and keep it open. Raises Odd."""
    temporary = temporary_name(row.task_id)
    progress.final = row.final
    if not is_tree(row):
        progress.total = row.version.size
        with copied(name, source, temporary, target, progress) as copy:
            if not same(row, version_of(copy.source)):
                raise Odd
            yield copy
        return
    progress.total, needed = room_for(name, source)
    require_room(needed, target, row.final)
    copy_tree(name, source, temporary, target, progress)
    look = look_at(row, name, source)
    if not same(row, look.version) or busy(name, source):
        raise Odd
    with opened(temporary, target) as descriptor:
        if not same_tree(name, source, temporary, target, progress.check, read=False):
            raise Odd
        yield Copied(descriptor, os.fstat(descriptor))


def _put_in_place(row: Delivery, target: int, clerk: Clerk, descriptor: int) -> Delivery:
    """Give the complete copy its final name; never replace anything.

    It goes by the descriptor: whatever became of the temporary name, what gets the final one is
    the inode that was written, flushed and compared.
    """
    copy = os.fstat(descriptor)
    marked = is_tree(row)
    if marked:
        write_mark(row, target, copy)
    while True:
        final = os.path.basename(row.final)
        try:
            if marked:
                _rename_copy(row, copy, final, target)
            else:
                link_descriptor(descriptor, final, target)
            return row
        except FileExistsError:
            # NFS may answer so to the repetition of a request that it has fulfilled.
            if same_inode(copy, status_at_destination(final, target)):
                return row
            row = redirect(row, target, clerk)
        except FileNotFoundError:
            if not os.fstat(descriptor).st_nlink:
                raise Odd from None  # somebody has removed our copy: there must be another
            raise
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                row = shorten(row, target, clerk)
            elif not marked and error.errno in NO_LINKS:
                write_mark(row, target, copy)
                marked = True
            else:
                raise


def _rename_copy(row: Delivery, copy: os.stat_result, final: str, target: int) -> None:
    """Place by name where there are no links; the name must still be that of our inode."""
    temporary = temporary_name(row.task_id)
    if not same_inode(copy, status_of(temporary, target)):
        raise Odd
    rename_noreplace(temporary, target, final, target, tree=is_tree(row))
