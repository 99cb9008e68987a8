"""What one round of a lane has done, until it is durable and noted."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

from watchman.model import Delivery, State
from watchman.mover import underway
from watchman.mover.folders import Folders
from watchman.mover.hold import is_same
from watchman.mover.leftovers import remove_leftovers
from watchman.mover.marks import alike, clean_up
from watchman.mover.names import temporary_name
from watchman.mover.syscalls import status_of
from watchman.text import printable

log = logging.getLogger("watchman.mover")


class CopyResult(NamedTuple):
    """What came of one copy: the moved row, or what was raised."""

    row: Delivery
    error: Exception | None


class Batch:
    """What one round has done and not yet made durable."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.moved: list[Delivery] = []
        self.copied: list[Delivery] = []
        """Their claims are held until :meth:`clean_up_late`."""
        self.not_removed: list[Delivery] = []
        """Those of them whose sources may still be there: their directories are away."""
        self.ended: list[tuple[Delivery, State, str]] = []
        self.failure: OSError | None = None
        """Why what the hand has moved could not be made durable."""

    def make_durable(self) -> None:
        """Keep the order of transfer's table: sources, traces of copies, destinations."""
        if self.failure is not None:
            raise self.failure
        for row in self.copied:
            self.folders.source(os.path.dirname(row.source))
            self.folders.target(os.path.dirname(row.final), None)
        self.folders.sync_sources()
        self.not_removed = [row for row in self.copied if self._may_be_there(row)]
        for row in self.copied:
            self._clean_up(row, late=False)
        self.folders.sync_targets()

    def _may_be_there(self, row: Delivery) -> bool:
        """Say whether a source that could not be removed may come back with its directory.

        A copy was found in its place after a crash, and the directory of its source was not there.
        """
        directory, _, name = row.source.rpartition("/")
        try:
            source = self.folders.source(directory)
            there = None if source is None else status_of(name, source)
        except OSError:
            return True
        return source is None or (there is not None and is_same(row, there))

    def remove_leftovers(self) -> None:
        """Remove what attempts at ended rows have left.

        Before the note: after it no restart would look for them. Once all else is durable, since
        directories may be let go of.
        """
        left: list[tuple[Delivery, OSError]] = []
        for row, _, _ in self.ended:
            if self.folders.full:
                self.folders.close()
            try:
                with underway.claimed(row):
                    remove_leftovers(row, self.folders)
            except underway.UnderWayError:
                continue  # they are another attempt's, which will see to them
            except OSError as error:
                left.append((row, error))
        _say_left(left)

    def clean_up_late(self) -> None:
        """Remove the traces of copies that may go only after the note."""
        left: list[tuple[Delivery, OSError]] = []
        for row in self.copied:
            try:
                self._clean_up(row, late=True)
            except OSError as error:
                left.append((row, error))
        _say_left(left)

    def _clean_up(self, row: Delivery, *, late: bool) -> None:
        """Remove the traces of a finished copy.

        Before the note (``late`` is False) those of copies that a restart would recognise without
        them; after it the others: of a tree that was touched since it was recorded, and where the
        source may come back before the restart, to be copied once more.
        """
        directory, _, name = row.final.rpartition("/")
        target = self.folders.target(directory, None)
        if target is None:
            return
        there = status_of(name, target)
        early = row not in self.not_removed and (there is None or alike(row, there))
        if late or early:
            clean_up(row, target)


def _say_left(left: list[tuple[Delivery, OSError]]) -> None:
    if not left:
        return
    row, error = left[0]
    log.warning(
        "Cannot see whether %s is left beside %s or %s: %s%s; remove it if so",
        temporary_name(row.task_id),
        printable(row.source),
        printable(row.final),
        error.strerror,
        f" (nor for {len(left) - 1} more)" if len(left) > 1 else "",
    )
