"""What one round of a destination has done, until it is durable and noted.

The order that must hold: what left the source directories is durable, then TEMP and MARKER of
finished copies are removed, then what came into the destination directories is durable, then all of
it is noted (by the destination), then the rest of TEMP and MARKER is removed.
"""

from __future__ import annotations

import logging
import os

from watchman.model import Delivery, State
from watchman.mover import claims
from watchman.mover.copy_marker import clean_up, resembles
from watchman.mover.lease import matches_status
from watchman.mover.names import temporary_name
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.recovery import remove_leftovers
from watchman.mover.syscalls import status_of
from watchman.text import printable

log = logging.getLogger("watchman.mover")


class MoveBatch:
    """The rows of one round, by what became of them. For the destination's own thread."""

    def __init__(self, directories: OpenDirectories) -> None:
        self.directories = directories
        self.moved: list[Delivery] = []
        """Rows that were renamed, or found to have been."""
        self.copied: list[Delivery] = []
        """Their claims are held until after :meth:`clean_up_late`."""
        self.not_removed: list[Delivery] = []
        """Those of them whose sources may still be there: their directories are away."""
        self.ended: list[tuple[Delivery, State, str]] = []
        """(row, its end, reason)."""
        self.failure: OSError | None = None
        """Why what the second process has moved could not be made durable."""

    def make_durable(self) -> None:
        """Do the first three steps; fill :attr:`not_removed`. Raises OSError."""
        if self.failure is not None:
            raise self.failure
        # The copying threads had directories of their own: open those that are to be synced.
        for row in self.copied:
            self.directories.source(os.path.dirname(row.source))
            self.directories.target(os.path.dirname(row.final), None)
        self.directories.sync_sources()
        self.not_removed = [row for row in self.copied if self._may_be_there(row)]
        for row in self.copied:
            self._clean_up(row, late=False)
        self.directories.sync_targets()

    def _may_be_there(self, row: Delivery) -> bool:
        """Say whether the source of a finished copy may still be there, or come back.

        After a crash the copy was found, and the directory of its source was not there.
        """
        directory, _, name = row.source.rpartition("/")
        try:
            source = self.directories.source(directory)
            there = None if source is None else status_of(name, source)
        except OSError:
            return True
        return source is None or (there is not None and matches_status(row, there))

    def remove_leftovers(self) -> None:
        """Remove what attempts at ended rows have left.

        To be called before the note, since no restart looks for it after that, and when all else is
        durable, since directories may be closed.
        """
        left: list[tuple[Delivery, OSError]] = []
        for row, _, _ in self.ended:
            if self.directories.full:
                self.directories.close()
            try:
                with claims.claimed(row):
                    remove_leftovers(row, self.directories)
            except claims.ClaimedError:
                continue  # they are another attempt's, which will see to them
            except OSError as error:
                left.append((row, error))
        _say_left(left)

    def clean_up_late(self) -> None:
        """Remove those TEMP and MARKER that may go only after the note."""
        left: list[tuple[Delivery, OSError]] = []
        for row in self.copied:
            try:
                self._clean_up(row, late=True)
            except OSError as error:
                left.append((row, error))
        _say_left(left)

    def _clean_up(self, row: Delivery, *, late: bool) -> None:
        """Remove TEMP and MARKER of a finished copy.

        Before the note (``late`` is False) where a restart would recognise the copy without them.
        After it the others as well: of a tree that was touched since it was recorded, and where the
        source may come back before the restart and would be copied once more.
        """
        directory, _, name = row.final.rpartition("/")
        target = self.directories.target(directory, None)
        if target is None:
            return
        there = status_of(name, target)
        early = row not in self.not_removed and (there is None or resembles(row, there))
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
