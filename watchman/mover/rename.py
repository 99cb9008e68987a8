"""Moving within one file system: one rename, and the redirections around it."""

from __future__ import annotations

import errno
import os
import time
from typing import Protocol

from watchman.filesystem import PATH_MAX, is_too_long
from watchman.identity import Doubt, doubt
from watchman.model import Delivery, State, Version
from watchman.mover.folders import Folders
from watchman.mover.hold import Hold, is_same, is_tree, look_at, same
from watchman.mover.marks import alike, is_placed
from watchman.mover.names import NAME_MAX, free_name, shortened
from watchman.mover.outcome import REPLACED, Elsewhere, Ended, Odd
from watchman.mover.syscalls import (
    exists,
    rename_noreplace,
    same_inode,
    status_at_destination,
    status_of,
    unlink_if_same,
)
from watchman.mover.tree import busy


class Clerk(Protocol):
    """Writes down what is about to be done: names in the journal, moves in the log."""

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


def rename(row: Delivery, folders: Folders, clerk: Clerk) -> Delivery:
    """Move one delivery; return it with the final path it got.

    Raises Odd where the source is not what was recorded, Elsewhere where the destination is on
    another file system, Ended where it can never be moved there, OSError for everything that
    stands in the way.
    """
    refuse_too_long(row.final)
    directory, _, name = row.source.rpartition("/")
    source = folders.source(directory)
    if source is None:
        raise Odd
    if is_tree(row):
        look = look_at(row, name, source)
        if not same(row, look.version) or busy(name, source):
            raise Odd
        return _place(row, name, source, folders, clerk=clerk, hold=None)
    with Hold(name, source) as hold:
        if not hold.is_beyond_doubt(row):
            if not hold.is_of(row):
                raise Odd
            refuse_superseded(row, hold.look().version, clerk)
        return _place(row, name, source, folders, clerk=clerk, hold=hold)


def refuse_superseded(row: Delivery, version: Version | None, clerk: Clerk) -> None:
    """Raise Ended if the source was written again since, with the same size and mtime.

    What is there is the newer arrival's, and goes under that one's task id.
    """
    doubts = Doubt.NONE if version is None else doubt(row.version, version)
    if doubts is not Doubt.NONE and clerk.superseded(row):
        raise Ended(State.VANISHED, REPLACED)


def _place(
    row: Delivery,
    name: str,
    source: int,
    folders: Folders,
    *,
    clerk: Clerk,
    hold: Hold | None,
) -> Delivery:
    directory, _, final = row.final.rpartition("/")
    target = folders.target(directory, None)
    if target is None:
        target = folders.target(directory, source)
        assert target is not None
    while True:
        try:
            rename_noreplace(name, source, final, target, tree=hold is None)
        except FileExistsError:
            if _is_ours(row, name, source, final, target):
                return row
            if is_placed(row, final, target):
                raise Elsewhere(row) from None
            row = redirect(row, target, clerk)
            final = os.path.basename(row.final)
        except OSError as error:
            row = _after_error(error, row, target, clerk)
            final = os.path.basename(row.final)
        else:
            _verify(row, name, source, final, target, hold=hold)
            clerk.say_with_batch(row)
            return row


def _is_ours(row: Delivery, name: str, source: int, final: str, target: int) -> bool:
    """Finish an earlier link + unlink that a crash cut in two."""
    there = status_at_destination(final, target)
    if there is None or is_tree(row) or not is_same(row, there):
        return False
    here = status_of(name, source)
    if not same_inode(there, here):
        return False
    unlink_if_same(name, source, final, target)
    return True


def _after_error(error: OSError, row: Delivery, target: int, clerk: Clerk) -> Delivery:
    if error.errno == errno.EXDEV:
        raise Elsewhere(row) from None
    if error.errno == errno.ENOENT:
        raise Odd from None  # the source was there a moment ago
    if error.errno == errno.ENAMETOOLONG:
        return shorten(row, target, clerk)
    raise error


def _verify(
    row: Delivery, name: str, source: int, final: str, target: int, *, hold: Hold | None
) -> None:
    """Undo the rename if it caught a file that was swapped or opened since the look.

    What arrived must be the inode that was looked at: a symlink put in its place would lead the
    task's worker out of the tree, a newer upload is a delivery of its own.
    """
    there = status_of(final, target)
    if there is None:
        return  # taken away at the destination already; that is its reader's business
    # Some network file systems give a renamed file another inode number: then it must be alike.
    ours = is_same(row, there) or alike(row, there)
    if ours and (hold is None or not hold.wanted()):
        return
    put_back(final, target, name, source, tree=hold is None)
    raise Odd


def put_back(name: str, directory: int, old: str, source: int, *, tree: bool) -> None:
    """Rename to the old name in the source directory, to one with a suffix if it is taken."""
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


def redirect(row: Delivery, target: int, clerk: Clerk) -> Delivery:
    """Choose a free name beside the taken one and record it before it is used."""
    directory = os.path.dirname(row.final)
    name = free_name(
        os.path.basename(row.source),
        time.time_ns() // 1_000_000,
        lambda taken: exists(taken, target),
        tree=is_tree(row),
        limit=_name_limit(target),
    )
    final = f"{directory.rstrip('/')}/{name}"
    refuse_too_long(final)
    clerk.redirect(row.seq, final)
    return row._replace(final=final)


def shorten(row: Delivery, target: int, clerk: Clerk) -> Delivery:
    """Redirect to a name that the destination's file system can hold."""
    limit = _name_limit(target)
    if len(os.fsencode(os.path.basename(row.final))) <= limit:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), row.final)
    stem, extension = os.path.splitext(os.path.basename(row.final))
    name = shortened(stem, limit - len(os.fsencode(extension))) + extension
    if exists(name, target):
        return redirect(row, target, clerk)
    final = f"{os.path.dirname(row.final).rstrip('/')}/{name}"
    refuse_too_long(final)
    clerk.redirect(row.seq, final)
    return row._replace(final=final)


def refuse_too_long(final: str) -> None:
    """Raise Ended where nobody could open what was moved to ``final``."""
    if is_too_long(final):
        raise Ended(
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
