"""Renames whole batches in a second process: a helping hand for the lanes.

A move takes seven system calls, and after each the daemon's threads wait for one interpreter. The
hand does just what :func:`rename` does, and only what needs neither journal nor log: a row that is
not as simple as that it leaves where it is, and the lane takes it as if there were no hand. If the
hand is lost in the middle of a batch, its rows are where they would be after a crash, and the lane
finds out in the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

from watchman.companion import Companion
from watchman.model import Delivery, State, Version
from watchman.mover.folders import Folders
from watchman.mover.hold import is_tree
from watchman.mover.mounted import mounted
from watchman.mover.outcome import Elsewhere, Ended, Odd
from watchman.mover.rename import rename

FEW = 50
"""Rows that a lane rather moves itself: to ask takes longer."""

_Row = tuple[int, str, str, str, tuple[int, ...]]
"""The fields of a delivery up to its version."""


class Renamed(NamedTuple):
    """What came of a batch."""

    moved: list[bool]
    """For each row, whether it is at its final path."""
    error: OSError | None
    """Why the moves could not be made durable."""


class Hand:
    """The daemon's end: used by one lane at a time, and no lane waits for another."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion
        self._lock = threading.Lock()
        self._lost = False

    @classmethod
    def start(cls) -> Hand | None:
        """Fork it; None where there can be none. The process must ignore SIGIO."""
        companion = Companion.start(_rename_all)
        return None if companion is None else cls(companion)

    def ask(self, rows: Sequence[Delivery], folders: Folders) -> bool:
        """Have files moved within one file system; False where the hand cannot be had.

        ``folders`` tells the way only: the hand opens directories of its own. Who was told True
        must call :meth:`answer`.
        """
        # Of two uploads to one path, and of whole directories, the lane knows more.
        sources = {row.source for row in rows if not is_tree(row)}
        if self._lost or len(rows) < FEW or len(sources) < len(rows):
            return False
        try:
            tops = {path: folders.top_of(path) for path in set(map(_above, sources))}
        except OSError:
            return False  # the lane will meet it, and say it
        if not self._lock.acquire(blocking=False):
            return False
        plain = [(*row[:4], tuple(row.version)) for row in rows]
        try:
            self._companion.ask(*folders.way, folders.mount_points(), tops, plain, os.getpid())
        except OSError:
            self._lost = True
            self._lock.release()
        return not self._lost

    def answer(self) -> Renamed | None:
        """Wait for what came of it; None where the hand was lost meanwhile."""
        try:
            moved, failure = self._companion.answer()
        except OSError:
            self._lost = True
            return None
        finally:
            self._lock.release()
        return Renamed(moved, OSError(*failure) if failure else None)

    def end(self) -> None:
        """End the process."""
        self._companion.end()


def _above(path: str) -> str:
    return path[: path.rfind("/") + 1]


class _Asked(Exception):  # noqa: N818 — an outcome, not an error
    """The journal would have to be written first."""


class _Mute:
    """A clerk without journal and log."""

    def redirect(self, _seq: int, _final: str) -> None:
        raise _Asked

    def inherited(self, _seq: int) -> bool:
        raise _Asked

    def superseded(self, _row: Delivery) -> bool:
        raise _Asked

    def say(self, _row: Delivery) -> None:
        raise _Asked

    def say_with_batch(self, row: Delivery) -> None:
        """The lane says it."""


def _rename_all(
    moves: str,
    root: str,
    points: list[str],
    tops: dict[str, str],
    rows: list[_Row],
    daemon: int,
) -> tuple[list[bool], tuple[int, str, str] | None]:
    """Do it, in the hand's own process."""
    moved = [False] * len(rows)
    clerk = _Mute()
    mounts = mounted(root)
    mounts.expect(points)
    with Folders(tops.__getitem__, moves, root, mounts) as folders:
        for position, (seq, task_id, source, final, version) in enumerate(rows):
            if folders.full or os.getppid() != daemon:
                break
            row = Delivery(seq, task_id, source, final, Version(*version), 0, None, State.MOVING)
            try:
                rename(row, folders, clerk)
            except (Odd, Elsewhere, Ended, _Asked, OSError):
                continue
            moved[position] = True
        try:
            folders.sync_sources()
            folders.sync_targets()
        except OSError as error:
            return moved, (
                error.errno or 0,
                error.strerror or "",
                os.fsdecode(error.filename or ""),
            )
    return moved, None
