"""Handing the journal's rows to the lanes, without holding them in memory."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from watchman import hanging
from watchman.errors import JournalError
from watchman.model import Delivery, State
from watchman.mover.hand import Hand
from watchman.mover.lane import BATCH, Lane
from watchman.mover.ledger import Host, Ledger
from watchman.mover.status import MoveStatus, status_of_lane
from watchman.mover.trouble import WHOLE
from watchman.text import printable

log = logging.getLogger("watchman.mover")


class _Serial:
    """The ledger, one call at a time: the lanes are threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()

    def page_moving(self, after: int, limit: int) -> list[Delivery]:
        with self._lock:
            return self._ledger.page_moving(after, limit)

    def redirect(self, seq: int, final: str) -> None:
        with self._lock:
            self._ledger.redirect(seq, final)

    def note(
        self, changes: Sequence[tuple[int, State, str]], moved: Sequence[Delivery] = ()
    ) -> None:
        with self._lock:
            self._ledger.note(changes, moved)

    def announced_later(self, delivery: Delivery) -> bool:
        with self._lock:
            return self._ledger.announced_later(delivery)

    def unlearn(self, seqs: Sequence[int]) -> None:
        with self._lock:
            self._ledger.unlearn(seqs)

    def shut_out(self, thread: threading.Thread) -> None:
        with self._lock:
            self._ledger.shut_out(thread)


def _nothing(_: object) -> None:
    """Do nothing."""


class Mover:
    """Brings the files of deliveries in state MOVING to their final paths.

    One thread reads the journal; each MOVES entry has a lane with a thread of its own, and
    threads for copies (``copies`` per entry) where the destination is on another file system.
    ``on_moved``, ``on_changed`` and ``on_ended`` (rows that failed or vanished, with their state)
    are called from these threads and must not block for long.
    The process must ignore SIGIO (see ``filesystem.look``).
    """

    def __init__(
        self,
        ledger: Ledger,
        roots: Sequence[tuple[str, str]],
        watch_root_of: Callable[[str], str],
        on_moved: Callable[[list[Delivery]], None],
        on_changed: Callable[[list[str]], None],
        *,
        on_ended: Callable[[list[tuple[Delivery, State]]], None] = _nothing,
        copies: int = 4,
        hand: Hand | None = None,
    ) -> None:
        """``roots`` are the MOVES: (source directory, destination root)."""
        self.error: BaseException | None = None
        """What ended a thread; the process cannot go on then."""
        self._ledger = _Serial(ledger)
        self._stop = threading.Event()
        self._ready = threading.Condition()
        self._woken = True
        self._rescan = False
        self._cursor = 0
        self._inherited_until: int | None = None
        self._on_ended = on_ended
        self._refused: set[str] = set()
        """Directories that nothing leads to any more, and that has been said."""
        host = Host(
            self._ledger,
            watch_root_of,
            on_moved,
            on_changed,
            copies,
            self._stop,
            self._died,
            self._is_inherited,
            on_ended,
            self._rouse,
            hand,
        )
        longest_first = sorted(roots, key=lambda entry: len(entry[0]), reverse=True)
        self._lanes = [Lane(source, root, host) for source, root in longest_first]
        self._thread = threading.Thread(target=self._run, name="mover-dispatch", daemon=True)

    def start(self) -> None:
        """Start moving: first what was left behind, then what :meth:`wake` announces."""
        for lane in self._lanes:
            lane.start()
        self._start_dispatch()

    def _start_dispatch(self) -> None:
        """Start what hands out rows, unless there are none and cannot be any."""
        if self._thread.ident is None and (self._lanes or self._ledger.page_moving(0, 1)):
            self._thread.start()

    def wake(self) -> None:
        """Say that rows were recorded, or that a changed one was refreshed. Never blocks."""
        self._rouse()
        for lane in self._lanes:
            lane.nudge()

    def rescan(self) -> None:
        """Say that older rows came back to MOVING (an operator's retry): read all again."""
        with self._ready:
            self._rescan = True
        self._start_dispatch()
        self.wake()

    def stations(self) -> list[hanging.Station]:
        """Return where the threads work."""
        return [station for lane in self._lanes for station in lane.stations()]

    def stop(self, timeout: float) -> list[str]:
        """Finish the file in hand, give up copies, and wait ``timeout`` seconds at most.

        Returns the entries whose file systems hang: their threads were left. What they do when
        they come back is as if it had been done before a crash: the ledger does not hear of it.
        """
        deadline = time.monotonic() + timeout
        self._stop.set()
        self._rouse()
        for lane in self._lanes:
            lane.wake()
        hanging.ask(point for station in self.stations() for point in station.where)
        left = [lane.subject for lane in self._lanes if not lane.join(deadline)]
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return left

    def status(self) -> list[MoveStatus]:
        """Say for each MOVES entry what is being done and what stands in the way."""
        return [status_of_lane(lane) for lane in self._lanes]

    def _rouse(self) -> None:
        with self._ready:
            self._woken = True
            self._ready.notify()

    def _died(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        # Who gives up waiting for the journal's disk was told to stop, and is not heard of twice.
        if not isinstance(error, JournalError):
            log.critical("The mover cannot go on: %s: %s", type(error).__name__, error)
        self._stop.set()
        self._rouse()
        for lane in self._lanes:
            lane.wake()

    def _run(self) -> None:
        try:
            while self._wait():
                self._dispatch()
        except Exception as error:  # noqa: BLE001 — handed to the service, which ends the process
            self._died(error)

    def _wait(self) -> bool:
        with self._ready:
            while not (self._woken or self._stop.is_set()):
                self._ready.wait()
            self._woken = False
            if self._rescan:
                self._rescan = False
                self._cursor = 0
            return not self._stop.is_set()

    def _dispatch(self) -> None:
        """Hand out everything there is, page by page, a page of each lane's arrears between."""
        more = True
        while more and not self._stop.is_set():
            for lane in self._lanes:
                first = lane.take_reread()
                if first is not None:
                    behind = first - 1
                    lane.behind = behind if lane.behind is None else min(behind, lane.behind)
                if lane.behind is None and not lane.has_room():
                    lane.behind = self._cursor
            more = self._may_read_on() and self._next_page()
            for lane in self._lanes:
                if lane.behind is not None and lane.has_room():
                    more = self._catch_up(lane) or more

    def _may_read_on(self) -> bool:
        """Say whether to read further; what no lane can take would be read again as arrears.

        A lane that is stuck is no judge of that, and the first reading goes to its end at once.
        """
        return self._inherited_until is None or any(
            lane.behind is None or WHOLE in lane.troubles.active for lane in self._lanes
        )

    def _is_inherited(self, seq: int) -> bool:
        return self._inherited_until is None or seq <= self._inherited_until

    def _next_page(self) -> bool:
        rows = self._ledger.page_moving(self._cursor, BATCH)
        shares: dict[int, list[Delivery]] = {}
        for row in rows:
            index = self._lane_of(row)
            if index is None:
                self._refuse(row)
            else:
                shares.setdefault(index, []).append(row)
        if rows:
            self._cursor = rows[-1].seq
        for index, share in shares.items():
            lane = self._lanes[index]
            # In order: the rows of one that is behind have their turn with its arrears.
            if lane.behind is None:
                lane.accept(share)
        if len(rows) < BATCH and self._inherited_until is None:
            self._inherited_until = self._cursor  # the end of the first reading
        return len(rows) == BATCH

    def _catch_up(self, lane: Lane) -> bool:
        """Hand one page of arrears to a lane that has room; say whether there may be another."""
        assert lane.behind is not None
        if lane.behind >= self._cursor:
            lane.behind = None
            return True
        page = self._ledger.page_moving(lane.behind, BATCH)
        # Those behind the cursor have not been handed out to anybody yet.
        rows = [row for row in page if row.seq <= self._cursor]
        if not rows:
            lane.behind = None
            return True
        lane.behind = rows[-1].seq
        lane.accept(row for row in rows if self._is_for(row, lane))
        return True

    def _is_for(self, row: Delivery, lane: Lane) -> bool:
        index = self._lane_of(row)
        return index is not None and self._lanes[index] is lane

    def _lane_of(self, row: Delivery) -> int | None:
        """Return the lane by source and root, else by root alone: MOVES may have changed."""
        same_root = None
        for index, lane in enumerate(self._lanes):
            if row.final.startswith(lane.root_prefix):
                if row.source.startswith(lane.source_prefix):
                    return index
                same_root = index
        return same_root

    def _refuse(self, row: Delivery) -> None:
        reason = "no MOVES entry leads to its destination any more; restore it, then retry"
        self._ledger.note([(row.seq, State.FAILED, reason)])
        root = os.path.dirname(row.final)
        if root not in self._refused:
            self._refused.add(root)
            log.error(
                "Cannot move %s to %s (nor others that go there): no MOVES entry leads there any "
                "more; restore it and run 'notify retry', or drop them with 'notify discard'",
                printable(row.source),
                printable(row.final),
            )
        self._on_ended([(row, State.FAILED)])
