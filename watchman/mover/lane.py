"""One MOVES entry: its thread, the rows in its hands, and what became of each."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from itertools import compress
from operator import not_

from watchman.filesystem import Look
from watchman.model import Delivery, State
from watchman.mover.batch import Batch, CopyResult
from watchman.mover.copiers import Copiers
from watchman.mover.copy import Progress
from watchman.mover.folders import MOST, Folders
from watchman.mover.hold import same
from watchman.mover.ledger import Host, Scribe
from watchman.mover.outcome import Elsewhere, Ended, Odd, Postponed, Stopped, vanished
from watchman.mover.parking import CHANGED, FIRST_DELAY, Parking
from watchman.mover.rename import rename
from watchman.mover.standing import Standing, inspect_afresh
from watchman.mover.transfer import transfer
from watchman.mover.trouble import (
    WHOLE,
    Troubles,
    concerns_all,
    directories_of,
    key_of,
)
from watchman.text import printable
from watchman.turns import turn

log = logging.getLogger("watchman.mover")

BATCH = 1000
"""Rows that share one fsync of each directory and one commit."""
MOST_IN_HAND = 2000
"""Rows in memory from which on a lane takes no more page of them; they stay in the journal."""


class Lane:
    """Moves the rows of one MOVES entry, in a thread of its own.

    A destination that hangs in the kernel therefore holds up this entry only.
    """

    def __init__(self, source: str, root: str, host: Host) -> None:
        self.source = source
        self.root = root
        self.source_prefix = source.rstrip("/") + "/"
        self.root_prefix = root.rstrip("/") + "/"
        self.behind: int | None = None
        """The last seq handed in before the lane was full; None while it has been given all.
        Belongs to the dispatching thread."""
        self.troubles = Troubles(source, root)
        self.copiers = Copiers(host.copies, host.stop, self._copy)
        self._host = host
        self._scribe = Scribe(host)
        self._ready = threading.Condition()
        self._inbox: deque[Delivery] = deque()
        self._results: deque[CopyResult] = deque()
        self._parked = Parking()  # changed by the lane's thread only
        self._in_hand: set[int] = set()
        self._kept: Batch | None = None
        """What the hand has moved, and is noted while it moves the next batch."""
        self._nudged = False
        self._thread: threading.Thread | None = None

    def has_room(self) -> bool:
        """Say whether the lane takes another page of rows."""
        with self._ready:
            working = len(self._in_hand) - len(self._parked)
            return working < MOST_IN_HAND and self._parked.room() > 0

    def accept(self, rows: Iterable[Delivery]) -> None:
        """Take rows; those in hand already are not taken twice."""
        with self._ready:
            for row in rows:
                if row.seq not in self._in_hand:
                    self._in_hand.add(row.seq)
                    self._inbox.append(row)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="mover", daemon=True)
                thread.start()
                self._thread = thread
            self._ready.notify()

    def nudge(self) -> None:
        """Look again soon at the files that were being written or had changed."""
        with self._ready:
            self._nudged = True
            self._ready.notify()

    def wake(self) -> None:
        """Make the threads see that they have been told to stop."""
        with self._ready:
            self._ready.notify_all()
        self.copiers.wake()

    def join(self, deadline: float) -> None:
        """Wait for the threads until the monotonic ``deadline``."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self.copiers.join(deadline)

    def waiting(self) -> int:
        """Return the number of rows in hand."""
        with self._ready:
            return len(self._in_hand)

    def _run(self) -> None:
        try:
            while self._wait():
                self._round()
            self._finish_kept()
        except Exception as error:  # noqa: BLE001 — the service ends the process
            self._host.died(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when told to stop."""
        with self._ready:
            while not self._host.stop.is_set():
                now = time.monotonic()
                stuck = self.troubles.waiting(WHOLE, now)
                if self._nudged:
                    self._nudged = False
                    self._parked.nudge(now)
                if self._results:
                    return True
                if stuck is None and (self._inbox or self._parked.next_due <= now):
                    return True
                until = self._parked.next_due
                if stuck is not None:
                    until = stuck.retry_at if self._inbox else max(until, stuck.retry_at)
                self._ready.wait(None if until == float("inf") else max(0.0, until - now))
            return False

    def _round(self) -> None:
        with self._ready:
            results = [self._results.popleft() for _ in range(min(MOST, len(self._results)))]
            stuck = self.troubles.waiting(WHOLE, time.monotonic())
            count = 0 if stuck else min(BATCH, len(self._inbox))
            rows = [self._inbox.popleft() for _ in range(count)]
            self._parked.supersede(rows)
            due = [] if stuck else self._parked.take_due(time.monotonic())
        again = [row for seq in due if (row := self._fresh(seq)) is not None]
        with Folders(self._host.watch_root_of, self.source, self.root) as folders:
            batch = Batch(folders)
            for result in results:
                self._take_result(result, batch)
            hand = self._host.hand if not (again or self.troubles.active) else None
            lent = hand is not None and hand.ask(rows, folders)
            self._finish_kept()
            if lent:
                rows = self._take_back(rows, batch)
            with turn():
                left = self._work([*again, *rows], batch)
            if lent and self._inbox and not (rows or results):
                self._kept = batch
            else:
                self._finish(batch)
        with self._ready:
            self._inbox.extendleft(reversed(left))
        self._tell_room()

    def _tell_room(self) -> None:
        if self.behind is None:
            return
        with self._ready:
            working = len(self._in_hand) - len(self._parked)
            wanted = working <= MOST_IN_HAND // 2 and self._parked.room() > 0
        if wanted:
            self._host.has_room()

    def _fresh(self, seq: int) -> Delivery | None:
        """Read a row again: it may have been refreshed, discarded or ended meanwhile."""
        rows = self._host.ledger.page_moving(seq - 1, 1)
        if rows and rows[0].seq == seq:
            return rows[0]
        self._drop((seq,))
        return None

    def _drop(self, seqs: Collection[int]) -> None:
        with self._ready:
            self._in_hand.difference_update(seqs)
            self._parked.forget(seqs)
            self._scribe.forget(seqs)

    def _finish_kept(self) -> None:
        """Finish the batch before this one, now that the hand has another."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._finish(kept)

    def _take_back(self, rows: list[Delivery], batch: Batch) -> list[Delivery]:
        """Wait for the hand; return the rows that it has not moved."""
        assert self._host.hand is not None
        renamed = self._host.hand.answer()
        if renamed is None:
            return rows
        batch.failure = renamed.error
        batch.moved += compress(rows, renamed.moved)
        self._scribe.say_all_with_batch(batch.moved)
        return list(compress(rows, map(not_, renamed.moved)))

    def _work(self, rows: list[Delivery], batch: Batch) -> list[Delivery]:
        """Move rows until all are done or the batch must end; return those that are left."""
        newest = {row.source: row.seq for row in rows}
        if len(newest) < len(rows):
            for row in rows:
                self._parked.note_newest(row, newest[row.source])
        for position, row in enumerate(rows):
            if self._host.stop.is_set() or batch.folders.full:
                return rows[position:]
            error = self._one(row, batch)
            if error is not None and concerns_all(error):
                self.troubles.hit(WHOLE, error)
                return rows[position:]
        return []

    def _one(self, row: Delivery, batch: Batch) -> OSError | None:
        """Try one row; return the OSError that stands in its way."""
        if self.troubles.active:
            key = directories_of(row)
            trouble = self.troubles.waiting(key, time.monotonic())
            if trouble is not None:
                self._parked.add(row, key, trouble.retry_at)
                return None
        try:
            batch.moved.append(rename(row, batch.folders, self._scribe))
        except Elsewhere as elsewhere:
            self.copiers.submit(elsewhere.args[0])
        except Odd:
            return self._odd(row, batch)
        except Ended as end:
            batch.ended.append((row, end.state, end.reason))
        except OSError as error:
            return self._obstructed(row, error)
        return None

    def _obstructed(self, row: Delivery, error: OSError) -> OSError:
        key = key_of(row, error)
        if key != WHOLE:
            self._parked.add(row, key, self.troubles.hit(key, error).retry_at)
        return error

    def _odd(self, row: Delivery, batch: Batch) -> OSError | None:
        """Decide about a row whose source is not there, changed or in use."""
        fresh = self._fresh(row.seq)
        if fresh is None:
            return None
        try:
            found = inspect_afresh(
                fresh, batch.folders, inherited=self._scribe.inherited(fresh.seq)
            )
        except OSError as error:
            return self._obstructed(fresh, error)
        superseded = self._parked.is_superseded(fresh.seq)
        if found.standing is Standing.MOVED:
            batch.moved.append(fresh)
        elif found.standing in (Standing.PLACED, Standing.ASIDE):
            self.copiers.submit(fresh)
        elif found.standing is Standing.GONE or (
            superseded and not same(fresh, found.look.version)
        ):
            end = vanished(found.look, superseded)
            batch.ended.append((fresh, end.state, end.reason))
        elif found.standing is Standing.HERE:
            # Refreshed in the journal, or left alone again since.
            self._parked.add(fresh, CHANGED, time.monotonic() + FIRST_DELAY)
        else:
            self._changed(fresh, found.look)
        return None

    def _changed(self, row: Delivery, look: Look) -> None:
        if self._parked.add_changed(row, look, time.monotonic()):
            self._host.on_changed([row.source])

    def _copy(self, row: Delivery, progress: Progress) -> None:
        """Do one copy, in a copying thread."""
        error: Exception | None = None
        try:
            if self.troubles.waiting(WHOLE, time.monotonic()):
                raise Postponed
            with Folders(self._host.watch_root_of, self.source, self.root) as folders:
                row = transfer(row, folders, self._scribe, progress)
        except Stopped:
            return
        except Exception as failure:  # noqa: BLE001 — whatever it is, the lane must hear of it
            error = failure
        with self._ready:
            self._results.append(CopyResult(row, error))
            self._ready.notify()

    def _take_result(self, result: CopyResult, batch: Batch) -> None:
        row, error = result
        if error is None:
            batch.copied.append(row)
        elif isinstance(error, Ended):
            batch.ended.append((row, error.state, error.reason))
        elif isinstance(error, Postponed):
            stuck = self.troubles.active.get(WHOLE)
            self._parked.add(row, WHOLE, stuck.retry_at if stuck else time.monotonic())
        elif isinstance(error, Odd):
            problem = self._odd(row, batch)
            if problem is not None and concerns_all(problem):
                self._parked.add(row, WHOLE, self.troubles.hit(WHOLE, problem).retry_at)
        elif isinstance(error, OSError):
            key = key_of(row, error)
            self._parked.add(row, key, self.troubles.hit(key, error).retry_at)
        else:
            raise error

    def _finish(self, batch: Batch) -> None:
        """Make the batch durable, then note it; where that fails, nothing of it is noted."""
        self._scribe.say_batch()
        moved = batch.moved + batch.copied
        try:
            if moved:
                batch.make_durable()
        except OSError as error:
            due = self.troubles.hit(WHOLE, error).retry_at
            for row in (*moved, *(row for row, _, _ in batch.ended)):
                self._scribe.not_synced(row.seq)
                self._parked.add(row, WHOLE, due)
            return
        if moved or batch.ended:
            self._note(batch, moved)

    def _note(self, batch: Batch, moved: list[Delivery]) -> None:
        done = [row.in_state(State.READY if row.route else State.MOVED) for row in moved]
        changes = [(row.seq, row.state, "") for row in done]
        changes += [(row.seq, state, reason) for row, state, reason in batch.ended]
        self._host.ledger.note(changes)
        batch.clean_up(late=True)
        self._drop([seq for seq, _, _ in changes])
        for row, _, reason in batch.ended:
            log.warning("Not moved: %s: %s", printable(row.source), reason)
        if batch.ended:
            self._host.on_ended([(row, state) for row, state, _ in batch.ended])
        self._all_is_well(done)
        if done:
            self._host.on_moved(done)

    def _all_is_well(self, moved: list[Delivery]) -> None:
        """End the troubles that a success disproves, or that no row waits for any more."""
        if not self.troubles.active:
            return
        waited_for = self._parked.keys() | ({WHOLE} if self._in_hand else set())
        for key in self.troubles.settle(moved, waited_for):
            self._parked.release(key)
