"""Moving to another file system: copy beside the destination, place, remove the source.

These are the states that a crash can leave, in the order in which they come to be, and what the
next run does. TEMP and MARKER are ``.watchman-<task id>.tmp`` and ``….mark.tmp`` in the
destination's directory. SOURCE_RENAMED and DELETING are the same names in the source's directory,
DELETING for trees only.

==========================================================  ========================================
what is there                                               next
==========================================================  ========================================
source                                                      copy
source, half TEMP                                           remove TEMP, copy again
source, whole TEMP                                          the same: wholeness cannot be seen
source, TEMP and final one inode (link)                     copied: rename the source, compare
source, MARKER names TEMP's inode                           remove both, copy again
source, MARKER names final's inode                          copied: rename the source, compare
SOURCE_RENAMED, copied (by TEMP or MARKER), equal to final  remove SOURCE_RENAMED
SOURCE_RENAMED, copied, not equal (either was rewritten)    put SOURCE_RENAMED back under the
                                                            source's name: it is another delivery
source in use, copied                                       wait: the copy stays, and so do TEMP and
                                                            MARKER, which tell that it is ours
DELETING (a copied tree, compared with its copy)            remove DELETING
SOURCE_RENAMED, not copied (the copy was taken away)        put SOURCE_RENAMED back under the
                                                            source's name
SOURCE_RENAMED and a new source of another version          the same, the new one is another
                                                            delivery
copied, source gone                                         remove TEMP and MARKER, note
copied, the source's directory away                         note, its source not known: should it
                                                            come back it is another arrival; then
                                                            remove both
final of the recorded size and mtime, source gone           note
nothing of all this                                         vanished: remove TEMP and MARKER
==========================================================  ========================================

The order that must hold:

1. TEMP is durable, and read back and equal to the source, before final exists. Final is a link of
   the open descriptor, so that nothing but the inode that was compared can get that name; without
   links, TEMP must still be that inode when it is renamed.
2. Final is durable before the source is renamed to SOURCE_RENAMED.
3. SOURCE_RENAMED is, by its ctime or by another comparison, what was copied before it is unlinked.
4. That is durable before TEMP and MARKER are removed, and those are removed before the note. A tree
   whose mtime is not the recorded one keeps its MARKER until after the note: nothing else would
   tell that the copy is ours.

None of this is safe for two at a time: the caller holds the claim of the task id (``claims``) from
the first look until TEMP and MARKER are removed. A copy that hangs in the kernel keeps it, also
across a reload, and whoever comes next waits.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator

from watchman.file_access import Look, Seen, version_of
from watchman.model import Delivery, Version
from watchman.mover.copy import Copied, CopyProgress, copied, require_room
from watchman.mover.copy_marker import clean_up, is_copied, write_marker
from watchman.mover.copy_tree import (
    busy,
    copy_tree,
    opened,
    remove_tree,
    room_for,
    same_file,
    same_tree,
)
from watchman.mover.lease import Lease, is_tree, look_at, matches
from watchman.mover.names import marker_name, temporary_name
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.outcomes import SourceChanged
from watchman.mover.recovery import AttemptState, Endpoints, inspect
from watchman.mover.rename import (
    MoveRecorder,
    put_back,
    redirect,
    refuse_superseded,
    refuse_too_long,
    shorten,
)
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


def transfer(
    row: Delivery, directories: OpenDirectories, recorder: MoveRecorder, progress: CopyProgress
) -> Delivery:
    """Go on from wherever an earlier attempt got; return the row with its final path.

    The caller holds the claim of the row (``claims``), and keeps it until TEMP and MARKER are
    removed. On return the copy is durable and the source is gone. That this is durable too, and
    the removal of TEMP and MARKER, is left to the caller, who does it for many at once. Raises
    SourceChanged where the source is in use, not what was recorded, or gone to its final path
    already; Terminal, Cancelled, OSError.
    """
    ends = Endpoints.of(row, directories)
    if is_tree(row) and ends.source is not None:
        remove_tree(marker_name(row.task_id), ends.source, progress.check)
    found = inspect(ends, inherited=recorder.inherited(row.seq))
    if found.state is AttemptState.SOURCE_RENAMED and ends.source is not None:
        put_back(
            temporary_name(row.task_id), ends.source, ends.name, ends.source, tree=is_tree(row)
        )
        found = inspect(ends, inherited=recorder.inherited(row.seq))
    proof: os.stat_result | None = None
    if found.state is AttemptState.AT_SOURCE:
        row, proof = _copy_and_place(ends, directories, recorder, progress)
        ends = Endpoints.of(row, directories)
    elif found.state is AttemptState.MOVED:
        # Perhaps by another delivery of the same source: the caller knows.
        raise SourceChanged
    elif found.state is not AttemptState.COPIED:
        _clean_up_unfinished(row, ends.target)
        raise SourceChanged
    if ends.source is not None:
        if is_tree(row):
            remove_source_tree(ends, ends.source, progress)
        else:
            remove_source(ends, ends.source, progress, proof)
    return row


def _clean_up_unfinished(row: Delivery, target: int | None) -> None:
    """Remove TEMP and MARKER, unless they tell that the entry at the final path is our copy.

    Without them the next attempt, when the source is no longer in use, would make another copy.
    """
    if target is not None and not is_copied(row, os.path.basename(row.final), target):
        clean_up(row, target)


def _copy_and_place(
    ends: Endpoints, directories: OpenDirectories, recorder: MoveRecorder, progress: CopyProgress
) -> tuple[Delivery, os.stat_result]:
    """Copy the source; return the row with its final path once the copy is there, durably.

    The stat result is of the source when the copy was found equal to it.
    """
    row, name, source, final, target = ends
    if source is None:
        raise SourceChanged
    refuse_too_long(row.final)
    if not is_tree(row):
        refuse_superseded(row, look_at(row, name, source).version, recorder)
    if target is None:
        target = directories.target(os.path.dirname(row.final), source)
    if target is None:
        raise SourceChanged
    clean_up(row, target)
    if exists(final, target):
        row = redirect(row, target, recorder)
    # Not where there is no room: a full destination may have millions wait for it.
    progress.begin = functools.partial(recorder.say, row)
    try:
        with _whole_copy(row, name, source, target, progress) as copy:
            row = _put_in_place(row, target, recorder, copy.descriptor)
    except BaseException:
        # The source is untouched, and half a copy must not fill the disk.
        with contextlib.suppress(OSError):
            _clean_up_unfinished(row, target)
        raise
    recorder.say(row)  # if it got another name than was said
    sync_directory(target)
    return row, copy.source


@contextlib.contextmanager
def _whole_copy(
    row: Delivery, name: str, source: int, target: int, progress: CopyProgress
) -> Iterator[Copied]:
    """Make a durable copy, TEMP, that equals the recorded source, and keep it open.

    Raises SourceChanged where the source is not the recorded one, or was written to meanwhile.
    """
    temporary = temporary_name(row.task_id)
    progress.final = row.final
    if not is_tree(row):
        progress.total = row.version.size
        with copied(name, source, temporary, target, progress) as copy:
            if not matches(row, version_of(copy.source)):
                raise SourceChanged
            yield copy
        return
    progress.total, needed = room_for(name, source)
    require_room(needed, target, row.final)
    progress.begin()
    copy_tree(name, source, temporary, target, progress)
    look = look_at(row, name, source)
    if not matches(row, look.version) or busy(name, source):
        raise SourceChanged
    with opened(temporary, target) as descriptor:
        if not same_tree(name, source, temporary, target, progress.check, read=False):
            raise SourceChanged
        yield Copied(descriptor, os.fstat(descriptor))


def _put_in_place(row: Delivery, target: int, recorder: MoveRecorder, descriptor: int) -> Delivery:
    """Give the complete copy, open as ``descriptor``, its final name; never replace anything.

    Whatever became of the name TEMP: what gets the final name is the inode that was written,
    flushed and compared.
    """
    copy = os.fstat(descriptor)
    marked = is_tree(row)
    if marked:
        # Durable before the copy has its final name: after a crash nothing else would tell.
        write_marker(row, target, copy)
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
            row = redirect(row, target, recorder)
        except FileNotFoundError:
            if not os.fstat(descriptor).st_nlink:
                raise SourceChanged from None  # somebody has removed our copy: make another
            raise
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                row = shorten(row, target, recorder)
            elif not marked and error.errno in NO_LINKS:
                write_marker(row, target, copy)
                marked = True
            else:
                raise


def _rename_copy(row: Delivery, copy: os.stat_result, final: str, target: int) -> None:
    """Rename TEMP to ``final`` where there are no links; it must still be the inode ``copy``."""
    temporary = temporary_name(row.task_id)
    if not same_inode(copy, status_of(temporary, target)):
        raise SourceChanged
    rename_noreplace(temporary, target, final, target, tree=is_tree(row))


# The last step: removing the source


def remove_source(
    ends: Endpoints, source: int, progress: CopyProgress, proof: os.stat_result | None
) -> None:
    """Remove a file if it still is what was copied; else leave it alone.

    ``proof`` is the stat result of when it was found equal to the copy. Without it, or where the
    file has been changed since, both are compared once more. Raises SourceChanged while somebody
    has it open for writing, or where this cannot be told.
    """
    row, name = ends.row, ends.name
    renamed = temporary_name(row.task_id)
    if status_of(renamed, source) is not None:  # a crash between renaming and removing
        if _equals_copy(ends, source, progress.check):
            os.unlink(renamed, dir_fd=source)
            return
        put_back(renamed, source, name, source, tree=False)
    with Lease(name, source) as lease:
        found = lease.look()
        if found.seen is Seen.BUSY and (found.version is None or matches(row, found.version)):
            raise SourceChanged
        if not _may_be_ours(row, found.version):
            return
        # What is removed under a name of our own cannot be an upload that took the old name since.
        rename_noreplace(name, source, renamed, source)
        if not _still_ours(ends, source, lease):
            return
        # From here on nobody opens it by the uploader's name; who did so before broke the lease.
        try:
            equal = _is_as_copied(found, proof) or _equals_copy(ends, source, progress.check)
        except BaseException:
            put_back(renamed, source, name, source, tree=False)
            raise
        if equal:
            os.unlink(renamed, dir_fd=source)
        else:
            put_back(renamed, source, name, source, tree=False)


def _may_be_ours(row: Delivery, version: Version | None) -> bool:
    """Say whether ``version``, what is at the source, may be what was copied, with other times.

    Its content will tell. Clients set the time after the upload (MFMT): no write comes with that,
    so no other delivery, and a source that was left alone for it would stay for ever.
    """
    if version is None or is_tree(row):
        return matches(row, version)
    touched = (version.inode, version.size) == (row.version.inode, row.version.size)
    return touched or matches(row, version)


def _is_as_copied(found: Look, proof: os.stat_result | None) -> bool:
    """Say whether nothing has been done to the file since it was compared.

    The ctime tells what size and mtime can hide: nobody can set it.
    """
    return proof is not None and found.version == version_of(proof)


def _equals_copy(ends: Endpoints, source: int, check: Callable[[], None]) -> bool:
    """Say whether SOURCE_RENAMED, a file, has the content of its copy."""
    row, _, _, final, target = ends
    renamed = temporary_name(row.task_id)
    there = status_of(renamed, source)
    if there is None or target is None or not _may_be_ours(row, version_of(there)):
        return False
    return same_file(renamed, source, final, target, check)


def _still_ours(ends: Endpoints, source: int, lease: Lease | None) -> bool:
    """Put SOURCE_RENAMED back if it is something else, or somebody wants to write to it.

    Return whether it stays renamed. Raises SourceChanged where a writer waits for the lease: it
    must go on first.
    """
    row, name = ends.row, ends.name
    renamed = temporary_name(row.task_id)
    there = status_of(renamed, source)
    ours = there is not None and _may_be_ours(row, version_of(there))
    if ours and (lease is None or not lease.broken()):
        return True
    put_back(renamed, source, name, source, tree=is_tree(row))
    if ours:
        raise SourceChanged
    return False


def remove_source_tree(ends: Endpoints, source: int, progress: CopyProgress) -> None:
    """Remove a tree if it equals its copy; else leave it alone: :func:`remove_source`.

    Raises SourceChanged while somebody has a file in it open for writing.
    """
    row, name, _, final, target = ends
    renamed = temporary_name(row.task_id)
    left = status_of(renamed, source)
    if left is not None and not matches(row, version_of(left)):
        put_back(renamed, source, name, source, tree=True)
        left = None
    if left is None:
        if not matches(row, look_at(row, name, source).version):
            return
        rename_noreplace(name, source, renamed, source, tree=True)
        if not _still_ours(ends, source, None):
            return
    try:
        if busy(renamed, source):
            # What is written through a descriptor that is open by now would go with the tree.
            raise SourceChanged
        equal = target is not None and same_tree(
            renamed, source, final, target, progress.check, read=True
        )
    except BaseException:
        put_back(renamed, source, name, source, tree=True)
        raise
    if not equal:
        put_back(renamed, source, name, source, tree=True)
        return
    # By this name the next run knows that it was compared: half a tree equals nothing.
    deleting = marker_name(row.task_id)
    rename_noreplace(renamed, source, deleting, source, tree=True)
    remove_tree(deleting, source, progress.check)
