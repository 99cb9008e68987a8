"""Moving within one file system: one rename, under a name that is free."""

from __future__ import annotations

import errno
import os
import time
from typing import Protocol

from watchman.file_access import PATH_MAX, is_too_long
from watchman.identity import Doubt, doubt
from watchman.model import Delivery, State, Version
from watchman.mover.copy_marker import is_copied, resembles
from watchman.mover.copy_tree import busy
from watchman.mover.lease import Lease, is_tree, look_at, matches, matches_status
from watchman.mover.names import NAME_MAX, free_name, shortened
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.outcomes import REPLACED, CrossDevice, SourceChanged, Terminal
from watchman.mover.syscalls import (
    exists,
    rename_noreplace,
    same_inode,
    status_at_destination,
    status_of,
    unlink_if_same,
)


class MoveRecorder(Protocol):
    """What an attempt needs of the journal and the log: ``MoveLog``, or nothing to be had."""

    def redirect(self, seq: int, final: str) -> None:
        """Record a new final path; durable when it returns."""
        ...

    def inherited(self, seq: int) -> bool:
        """Say whether the file may have been moved already, and not noted."""
        ...

    def superseded(self, row: Delivery) -> bool:
        """Say whether a newer arrival at the row's source is recorded."""
        ...

    def say(self, row: Delivery) -> None:
        """Log the move at once, and once for each final path."""
        ...

    def say_with_batch(self, row: Delivery) -> None:
        """Log the move when the batch is through."""
        ...


def rename(row: Delivery, directories: OpenDirectories, recorder: MoveRecorder) -> Delivery:
    """Move one delivery; return it with the final path it got. Not durable yet.

    Raises SourceChanged where the source is not what was recorded, CrossDevice where the
    destination is on another file system, Terminal where it can never be moved there, OSError for
    everything that stands in the way.
    """
    refuse_too_long(row.final)
    directory, _, name = row.source.rpartition("/")
    source = directories.source(directory)
    if source is None:
        raise SourceChanged
    if is_tree(row):
        look = look_at(row, name, source)
        if not matches(row, look.version) or busy(name, source):
            raise SourceChanged
        return _place(row, name, source, directories, recorder=recorder, lease=None)
    # Held across the rename: who opens the file for writing meanwhile waits until it is verified.
    with Lease(name, source) as lease:
        # Nearly every file is as it was recorded, and that is told in a third of the time.
        if not lease.is_unchanged(row):
            if not lease.is_of(row):
                raise SourceChanged
            refuse_superseded(row, lease.look().version, recorder)
        return _place(row, name, source, directories, recorder=recorder, lease=lease)


def refuse_superseded(row: Delivery, version: Version | None, recorder: MoveRecorder) -> None:
    """Raise Terminal if ``version``, what the source is now, is that of a newer arrival.

    It has the recorded size and mtime and was written again: it goes under the newer task id.
    """
    doubts = Doubt.NONE if version is None else doubt(row.version, version)
    if doubts is not Doubt.NONE and recorder.superseded(row):
        raise Terminal(State.VANISHED, REPLACED)


def _place(
    row: Delivery,
    name: str,
    source: int,
    directories: OpenDirectories,
    *,
    recorder: MoveRecorder,
    lease: Lease | None,
) -> Delivery:
    directory, _, final = row.final.rpartition("/")
    target = directories.target(directory, None)
    if target is None:
        target = directories.target(directory, source)
        assert target is not None
    while True:
        try:
            rename_noreplace(name, source, final, target, tree=lease is None)
        except FileExistsError:
            if _is_ours(row, name, source, final, target):
                return row
            if is_copied(row, final, target):
                raise CrossDevice(row) from None  # an earlier attempt copied it: transfer goes on
            # The journal has the new name before the rename is tried with it.
            row = redirect(row, target, recorder)
            final = os.path.basename(row.final)
        except OSError as error:
            row = _after_error(error, row, target, recorder)
            final = os.path.basename(row.final)
        else:
            _verify(row, name, source, final, target, lease=lease)
            recorder.say_with_batch(row)
            return row


def _is_ours(row: Delivery, name: str, source: int, final: str, target: int) -> bool:
    """Say whether both names are of the recorded inode, and remove the old one if so.

    An earlier attempt was cut in two between link and unlink.
    """
    there = status_at_destination(final, target)
    if there is None or is_tree(row) or not matches_status(row, there):
        return False
    here = status_of(name, source)
    if not same_inode(there, here):
        return False
    unlink_if_same(name, source, final, target)
    return True


def _after_error(error: OSError, row: Delivery, target: int, recorder: MoveRecorder) -> Delivery:
    if error.errno == errno.EXDEV:
        raise CrossDevice(row) from None
    if error.errno == errno.ENOENT:
        raise SourceChanged from None  # the source was there a moment ago
    if error.errno == errno.ENAMETOOLONG:
        return shorten(row, target, recorder)
    raise error


def _verify(
    row: Delivery, name: str, source: int, final: str, target: int, *, lease: Lease | None
) -> None:
    """Undo the rename if what arrived is not what was looked at, or was opened since for writing.

    Then raises SourceChanged. A symlink that was put in the file's place would lead the task's
    worker out of the tree, and a newer upload is a delivery of its own.
    """
    there = status_of(final, target)
    if there is None:
        return  # somebody has fetched it at the destination already
    # Some network file systems give a renamed file another inode number.
    ours = matches_status(row, there) or resembles(row, there)
    if ours and (lease is None or not lease.broken()):
        return
    # The writer still waits for the lease: it goes on when the file has its old name again.
    put_back(final, target, name, source, tree=lease is None)
    raise SourceChanged


def put_back(name: str, directory: int, old: str, source: int, *, tree: bool) -> None:
    """Rename ``name`` in ``directory`` to ``old`` in ``source``, with a suffix if that is taken.

    It may be gone already.
    """
    wanted = old
    while True:
        try:
            rename_noreplace(name, directory, wanted, source, tree=tree)
            return
        except FileExistsError:
            wanted = free_name(
                old, time.time_ns() // 1_000_000, lambda taken: exists(taken, source), tree=tree
            )
        except FileNotFoundError:
            return


def redirect(row: Delivery, target: int, recorder: MoveRecorder) -> Delivery:
    """Return the row with a free name beside the taken one.

    The name is recorded, durably, before the file gets it: else nobody would find the file under
    it after a crash.
    """
    directory = os.path.dirname(row.final)
    # Files of a set go together by their names: those that get a number get the same one.
    number_ns = row.arrived_ns if row.bundle else time.time_ns()
    name = free_name(
        os.path.basename(row.source),
        number_ns // 1_000_000,
        lambda taken: exists(taken, target),
        tree=is_tree(row),
        limit=_name_limit(target),
    )
    final = f"{directory.rstrip('/')}/{name}"
    refuse_too_long(final)
    recorder.redirect(row.seq, final)
    return row._replace(final=final)


def shorten(row: Delivery, target: int, recorder: MoveRecorder) -> Delivery:
    """Redirect to a name that the destination's file system can lease."""
    limit = _name_limit(target)
    if len(os.fsencode(os.path.basename(row.final))) <= limit:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), row.final)
    stem, extension = os.path.splitext(os.path.basename(row.final))
    name = shortened(stem, limit - len(os.fsencode(extension))) + extension
    if exists(name, target):
        return redirect(row, target, recorder)
    final = f"{os.path.dirname(row.final).rstrip('/')}/{name}"
    refuse_too_long(final)
    recorder.redirect(row.seq, final)
    return row._replace(final=final)


def refuse_too_long(final: str) -> None:
    """Raise Terminal where nobody could open what was moved to ``final``."""
    if is_too_long(final):
        raise Terminal(
            State.FAILED,
            f"its path at the destination would have {len(os.fsencode(final))} bytes, and no "
            f"program can open one of more than {PATH_MAX}: shorten the name of a directory above "
            "it, or the destination in MOVES and run 'notify retry'",
        )


def _name_limit(directory: int) -> int:
    """Return the longest name in bytes that the directory's file system takes."""
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return NAME_MAX
    try:
        return os.fpathconf(readable, "PC_NAME_MAX")
    except OSError:
        return NAME_MAX
    finally:
        os.close(readable)
