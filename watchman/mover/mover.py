"""The mover: a destination for each MOVES entry, and the rows that are of none."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from watchman import hanging
from watchman.errors import JournalError
from watchman.model import Delivery, Move, State
from watchman.mover.destination_status import DestinationStatus
from watchman.text import printable

if TYPE_CHECKING:  # what moves is loaded where something is moved
    from watchman.mover.destination import Destination
    from watchman.mover.move_log import DeliveryStore, MoveListener
    from watchman.mover.rename_process import RenameProcess

log = logging.getLogger("watchman.mover")

STRAYS = 500
"""Rows of other MOVES entries that are read and assigned at a time."""


class Mover:
    """Brings the files of deliveries in state MOVING to their final paths.

    Each MOVES entry has a thread of its own, and threads for copies where the destination is on
    another file system. The process must ignore SIGIO (see ``file_access.look``).
    """

    def __init__(
        self,
        store: DeliveryStore,
        moves: Sequence[tuple[str, str]],
        listener: MoveListener,
        *,
        copies: int = 4,
        rename_process: RenameProcess | None = None,
    ) -> None:
        """``moves`` are the MOVES: (source directory, destination root).

        ``copies`` is how many an entry may make at a time.
        """
        self.error: BaseException | None = None
        """What ended a thread; the process cannot go on then."""
        self._store = store
        self._listener = listener
        self._stop = threading.Event()
        self._destinations: dict[Move, Destination] = {}
        if moves:
            self._make_destinations(moves, copies, rename_process)
        self._assigning: threading.Thread | None = None

    def _make_destinations(
        self,
        moves: Sequence[tuple[str, str]],
        copies: int,
        rename_process: RenameProcess | None,
    ) -> None:
        from watchman.mover.destination import Destination
        from watchman.mover.move_log import MoverContext

        context = MoverContext(
            store=self._store,
            listener=self._listener,
            copies=copies,
            stop=self._stop,
            died=self._died,
            inherited_until=self._store.last_seq(),
            rename_process=rename_process,
        )
        # The longest source first: it wins.
        for move in sorted((Move(*move) for move in moves), key=lambda move: -len(move.source)):
            self._destinations[move] = Destination(move, context)

    @property
    def moves(self) -> Collection[Move]:
        """The MOVES entries."""
        return self._destinations.keys()

    def start(self) -> None:
        """Start moving: first what was left behind, then what :meth:`wake` announces."""
        for destination in self._destinations.values():
            destination.start()
        self._assign_strays()

    def wake(self, move: Move) -> None:
        """Say that rows of a MOVES entry were recorded. Never blocks."""
        self._destinations[move].look_again()

    def rescan(self) -> None:
        """Say that older rows may have come back to MOVING: by an operator's retry."""
        for destination in self._destinations.values():
            destination.rescan()
        self._assign_strays()

    def stations(self) -> list[hanging.Station]:
        """Return where the threads work."""
        return [one for there in self._destinations.values() for one in there.stations()]

    def stop(self, timeout: float) -> list[str]:
        """Finish the file in hand, give up copies, and wait ``timeout`` seconds at most.

        Returns the entries whose file systems hang: their threads were left. What they do when
        they come back is as if it had been done before a crash: the journal does not hear of it.
        """
        deadline = time.monotonic() + timeout
        self._stop.set()
        self._wake_all()
        hanging.ask(point for station in self.stations() for point in station.where)
        destinations = self._destinations.values()
        left = [there.subject for there in destinations if not there.join(deadline)]
        if self._assigning is not None:
            self._assigning.join(max(0.0, deadline - time.monotonic()))
        return left

    def status(self) -> list[DestinationStatus]:
        """Say for each MOVES entry what is being done and what stands in the way."""
        return [_status_of(destination) for destination in self._destinations.values()]

    def _wake_all(self) -> None:
        for destination in self._destinations.values():
            destination.wake()

    def _died(self, error: BaseException) -> None:
        """End all threads: called by the one that cannot go on."""
        if self.error is None:
            self.error = error
        # Who gives up waiting for the journal's disk was told to stop, and is not heard of twice.
        if not isinstance(error, JournalError):
            log.critical("The mover cannot go on: %s: %s", type(error).__name__, error)
        self._stop.set()
        self._wake_all()

    # Rows that were recorded for other MOVES than there are now

    def _assign_strays(self) -> None:
        """Start what assigns rows of other MOVES entries, where there are any."""
        if self._assigning is not None and self._assigning.is_alive():
            return
        if self._store.page_strays(self.moves, 1):
            thread = threading.Thread(target=self._run, name="mover-strays", daemon=True)
            self._assigning = thread
            thread.start()

    def _run(self) -> None:
        refused: set[str] = set()
        try:
            while not self._stop.is_set():
                rows = self._store.page_strays(self.moves, STRAYS)
                if not rows:
                    return
                self._assign(rows, refused)
        except BaseException as error:  # noqa: BLE001 — handed to the service, which ends the process
            self._died(error)

    def _assign(self, rows: Sequence[Delivery], refused: set[str]) -> None:
        """Have each row be of the entry that leads to its destination; refuse the others.

        ``refused`` are the directories that nothing leads to, and that has been said.
        """
        shares: dict[Move | None, list[Delivery]] = {}
        for row in rows:
            shares.setdefault(self._entry_for(row), []).append(row)
        self._refuse(shares.pop(None, []), refused)
        for move, share in shares.items():
            assert move is not None
            self._store.assign([row.seq for row in share], move)
            self._destinations[move].rescan(share[0].seq)

    def _entry_for(self, row: Delivery) -> Move | None:
        """Return the entry by source and root, else by root alone."""
        same_root = None
        for move in self._destinations:
            if row.final.startswith(move.root.rstrip("/") + "/"):
                if row.source.startswith(move.source.rstrip("/") + "/"):
                    return move
                same_root = move
        return same_root

    def _refuse(self, rows: Sequence[Delivery], refused: set[str]) -> None:
        if not rows:
            return
        reason = (
            "no MOVES entry leads to its destination any more, nor does QUARANTINE; restore it, "
            "then retry"
        )
        self._store.note([(row.seq, State.FAILED, reason) for row in rows])
        for row in rows:
            root = os.path.dirname(row.final)
            if root not in refused:
                refused.add(root)
                log.error(
                    "Cannot move %s to %s (nor others that go there): no MOVES entry leads there "
                    "any more; restore it, or QUARANTINE, and run 'notify retry', or drop them "
                    "with 'notify discard'",
                    printable(row.source),
                    printable(row.final),
                )
        self._listener.ended([(row, State.FAILED) for row in rows])


def _status_of(destination: Destination) -> DestinationStatus:
    """Say what is being done for one entry, and what stands in its way."""
    waiting = destination.waiting()
    whole, others = destination.obstacles.shown(waiting)
    return DestinationStatus(
        *(destination.source, destination.root, waiting),
        *(whole.begun.ns if whole else None, whole.told if whole else "", others),
        destination.copy_pool.running(),
        *(destination.moved_count, destination.moved_only_count),
    )
