"""A second process that renames whole batches for the destinations.

A move takes seven system calls, and after each the daemon's threads wait for one interpreter. This
process runs the very :func:`rename` that they run, and only what needs neither journal nor log: a
row that is not as simple as that stays where it is, and the daemon moves it as if there were no
such process. If the process is lost in the middle of a batch, its rows are where a crash would have
left them, and the daemon finds out in the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

from watchman.helper_process import HelperProcess
from watchman.model import Delivery, State, Version, Watch
from watchman.mover.known_mounts import known_mounts
from watchman.mover.lease import is_tree
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.outcomes import CrossDevice, SourceChanged, Terminal
from watchman.mover.rename import rename

FEW = 50
"""Of fewer rows than this the daemon moves each itself: asking takes longer."""

_Row = tuple[int, str, str, str, int, int, int, int, int]
"""A delivery's fields up to its version, and then the version's: plain values to be sent."""


class Renamed(NamedTuple):
    """What came of a batch."""

    moved: list[bool]
    """For each row, whether it is at its final path."""
    error: OSError | None
    """Why the moves could not be made durable."""


class RenameProcess:
    """The daemon's end of it. For one destination at a time; no other waits for it meanwhile."""

    def __init__(self, helper: HelperProcess) -> None:
        self._helper = helper
        self._lock = threading.Lock()
        """Held from :meth:`ask` to :meth:`answer`."""
        self._lost = False

    @classmethod
    def start(cls) -> RenameProcess | None:
        """Fork it, before there are threads; None where there can be none.

        The calling process must ignore SIGIO.
        """
        helper = HelperProcess.start(_rename_all)
        return None if helper is None else cls(helper)

    def ask(self, rows: Sequence[Delivery], directories: OpenDirectories) -> bool:
        """Begin to move a batch within one file system; False where the process cannot be had.

        After True the caller must call :meth:`answer`. Of ``directories`` only the paths are used:
        the process opens directories of its own.
        """
        # Two uploads to one path, and whole directories, need the journal.
        sources = {row.source for row in rows if not is_tree(row)}
        if self._lost or len(rows) < FEW or len(sources) < len(rows):
            return False
        try:
            tops = {path: directories.top_of(path) for path in set(map(_above, sources))}
        except OSError:
            return False  # the caller will meet it, and say it
        # Without waiting: another destination's batch may hang in its file system.
        if not self._lock.acquire(blocking=False):
            return False
        plain = [(*row[:4], *row[4]) for row in rows]
        try:
            self._helper.ask(
                *directories.move, directories.mount_points(), tops, plain, os.getpid()
            )
        except OSError:
            self._lost = True
            self._lock.release()
        return not self._lost

    def answer(self) -> Renamed | None:
        """Wait for what came of the batch; None where the process was lost meanwhile."""
        try:
            moved, failure = self._helper.answer()
        except OSError:
            self._lost = True
            return None
        finally:
            self._lock.release()
        return Renamed(moved, OSError(*failure) if failure else None)

    def end(self) -> None:
        """End the process."""
        self._helper.end()


def _above(path: str) -> str:
    return path[: path.rfind("/") + 1]


class _NeedsJournal(Exception):  # noqa: N818 — an outcome, not an error
    """The journal or the log would be needed: the row is left to the daemon."""


class _NoRecorder:
    """A recorder without journal and log: whatever needs one ends the attempt."""

    def redirect(self, _seq: int, _final: str) -> None:
        raise _NeedsJournal

    def inherited(self, _seq: int) -> bool:
        raise _NeedsJournal

    def superseded(self, _row: Delivery) -> bool:
        raise _NeedsJournal

    def say(self, _row: Delivery) -> None:
        raise _NeedsJournal

    def say_with_batch(self, row: Delivery) -> None:
        """Do nothing: the daemon logs what was moved."""


def _rename_all(
    moves: str,
    root: str,
    points: list[str],
    tops: dict[str, str],
    rows: list[_Row],
    daemon: int,
) -> tuple[list[bool], tuple[int, str, str] | None]:
    """Rename a batch, in the process of its own; return what :class:`Renamed` holds.

    ``moves``, ``root`` are the MOVES entry, ``points`` the mount points that the daemon has seen,
    ``tops`` the directory below which no symlink is followed, by source directory, ``daemon`` the
    daemon's pid.
    """
    moved = [False] * len(rows)
    recorder = _NoRecorder()
    mounts = known_mounts(root)
    # What was unmounted before this process looked for the first time is missed by it as well.
    mounts.expect(points)

    def watch_of(path: str) -> Watch | None:
        return Watch(tops[path]) if path in tops else None

    with OpenDirectories(watch_of, moves, root, mounts) as directories:
        for position, (seq, task_id, source, final, *version) in enumerate(rows):
            # Without the daemon nobody would note what is moved.
            if directories.full or os.getppid() != daemon:
                break
            row = Delivery(seq, task_id, source, final, Version(*version), 0, None, State.MOVING)
            try:
                rename(row, directories, recorder)
            except (SourceChanged, CrossDevice, Terminal, _NeedsJournal, OSError):
                continue
            moved[position] = True
        try:
            directories.sync_sources()
            directories.sync_targets()
        except OSError as error:
            return moved, (
                error.errno or 0,
                error.strerror or "",
                os.fsdecode(error.filename or ""),
            )
    return moved, None
