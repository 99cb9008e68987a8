"""What one round of a lane has done, until it is durable and noted."""

from __future__ import annotations

import os
from typing import NamedTuple

from watchman.model import Delivery, State
from watchman.mover.folders import Folders
from watchman.mover.marks import alike, clean_up
from watchman.mover.syscalls import status_of


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
        self.clean_up(late=False)
        self.folders.sync_targets()

    def clean_up(self, *, late: bool) -> None:
        """Remove the traces of finished copies.

        Before the note (``late`` is False) those of copies that a restart would recognise without
        them; after it the others: of a tree that was touched since it was recorded.
        """
        for row in self.copied:
            directory, _, name = row.final.rpartition("/")
            target = self.folders.target(directory, None)
            if target is None:
                continue
            there = status_of(name, target)
            if late or there is None or alike(row, there):
                clean_up(row, target)
