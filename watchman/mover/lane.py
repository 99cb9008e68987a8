"""One MOVES entry: its thread, the rows in its hands, and what became of each."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import compress
from operator import not_

from watchman import hanging
from watchman.filesystem import Look
from watchman.model import Delivery, State
from watchman.mover import underway
from watchman.mover.batch import Batch, CopyResult
from watchman.mover.copiers import Copiers
from watchman.mover.copy import Progress
from watchman.mover.finals import finals_of, forget_finals
from watchman.mover.folders import MOST, Folders
from watchman.mover.hold import same
from watchman.mover.ledger import Host, Scribe
from watchman.mover.mounted import mounted
from watchman.mover.outcome import Elsewhere, Ended, Odd, Postponed, Stopped, vanished
from watchman.mover.parking import CHANGED, FIRST_DELAY, Parking, SetAside
from watchman.mover.rename import rename
from watchman.mover.standing import Standing, inspect_afresh
from watchman.mover.transfer import transfer
from watchman.mover.trouble import WHOLE, Troubles, directories_of, key_of
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
        self._finals = finals_of(root)
        self._ready = threading.Condition()
        self._inbox: deque[Delivery] = deque()
        self._results: deque[CopyResult] = deque()
        self._parked = Parking()  # changed by the lane's thread only
        self._in_hand: set[int] = set()
        self._kept: Batch | None = None
        """What the hand has moved, and is noted while it moves the next batch."""
        self._set_aside = SetAside()
        self._reread: int | None = None
        self._claims: dict[int, Delivery] = {}
        """Copies whose traces are not removed yet, by seq."""
        self._over = False
        """Whether the thread has ended, and takes no more results."""
        self._mounted = mounted(root)
        self._nudged = False
        self.subject = f"moving {source} to {root}"
        self._station = hanging.Station([self.subject], [source, root])
        self._copying: set[hanging.Station] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        with self._ready:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="mover", daemon=True)
                thread.start()
                self._thread = thread

    def has_room(self) -> bool:
        """Say whether the lane takes another page of rows; what is parked takes no room."""
        with self._ready:
            return len(self._in_hand) - len(self._parked) < MOST_IN_HAND

    def take_reread(self) -> int | None:
        """Return from which seq on the lane must be given all again; None if it need not."""
        with self._ready:
            first, self._reread = self._reread, None
            return first

    def accept(self, rows: Iterable[Delivery]) -> None:
        """Take rows; those in hand already are not taken twice."""
        with self._ready:
            for row in rows:
                if row.seq not in self._in_hand and row.seq not in self._set_aside:
                    self._in_hand.add(row.seq)
                    self._inbox.append(row)
            self._ready.notify()
        self.start()

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

    def stations(self) -> list[hanging.Station]:
        """Return where the threads work."""
        with self._ready:
            return [self._station, *self._copying]

    def join(self, deadline: float) -> bool:
        """Wait for the threads until the monotonic ``deadline``; False where they hang."""
        threads = [*self.copiers.threads, *([self._thread] if self._thread else [])]
        where = self._station.where
        if hanging.join(threads, where, deadline - time.monotonic()):
            return True
        for thread in threads:
            self._host.ledger.shut_out(thread)
        forget_finals(self.root)
        hanging.leave(threads, where)
        return not hanging.silent(where)

    def waiting(self) -> int:
        """Return the number of rows in hand, and of those set aside."""
        with self._ready:
            return len(self._in_hand) + len(self._set_aside)

    def _run(self) -> None:
        try:
            if not self._await_left():
                return
            with self._station:
                # What is mounted now must be there whenever something is moved.
                self._mounted.look()
            while self._wait():
                with self._station:
                    self._round()
            with self._station:
                self._finish_kept()
        except Exception as error:  # noqa: BLE001 — the service ends the process
            forget_finals(self.root)
            self._host.died(error)
        finally:
            self._end_claims()

    def _end_claims(self) -> None:
        """Let the next mover of this process have what was copied and is not noted."""
        with self._ready:
            self._over = True
            ended, self._claims = list(self._claims.values()), {}
        self._leave(ended)

    def _leave(self, copied: list[Delivery]) -> None:
        """Let the next mover know whose copies are in their places."""
        self._finals.add(copied)
        for row in copied:
            underway.release(row)

    def _await_left(self) -> bool:
        """Wait for what hung in the same place before a reload: it may have a file in its hands."""
        with self._station:
            return hanging.await_left(self._station.where, self._host.stop.is_set)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when told to stop."""
        with self._ready:
            while not self._host.stop.is_set():
                now = time.monotonic()
                self._ask_for_set_aside(now)
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
                until = min(until, self._set_aside.due)
                self._ready.wait(None if until == float("inf") else max(0.0, until - now))
            return False

    def _ask_for_set_aside(self, now: float) -> None:
        """Have the rows read again that were left in the journal, once it is time."""
        first = self._set_aside.take(now)
        if first is not None:
            self._reread = first if self._reread is None else min(first, self._reread)
            self._host.has_room()

    def _round(self) -> None:
        with self._ready:
            results = [self._results.popleft() for _ in range(min(MOST, len(self._results)))]
            stuck = self.troubles.waiting(WHOLE, time.monotonic())
            count = 0 if stuck else min(BATCH, len(self._inbox))
            rows = [self._inbox.popleft() for _ in range(count)]
            self._parked.supersede(rows)
            due = [] if stuck else self._parked.take_due(time.monotonic())
        again = [row for seq in due if (row := self._fresh(seq)) is not None]
        with self._open_folders() as folders:
            batch = Batch(folders)
            for result in results:
                self._take_result(result, batch)
            simple = not (again or self.troubles.hinders() or underway.any_of(rows))
            hand = self._host.hand if simple else None
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
            wanted = len(self._in_hand) - len(self._parked) <= MOST_IN_HAND // 2
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
            if self._one(row, batch) == WHOLE:
                return rows[position:]
        return []

    def _one(self, row: Delivery, batch: Batch) -> str | None:
        """Try one row; return the key of what stands in its way."""
        if self.troubles.active:
            key = directories_of(row)
            trouble = self.troubles.waiting(key, time.monotonic())
            if trouble is not None:
                self._park(row, key, trouble.retry_at)
                return key
        try:
            underway.refuse(row)
            batch.moved.append(rename(row, batch.folders, self._scribe))
        except Elsewhere as elsewhere:
            self.copiers.submit(elsewhere.args[0])
        except Odd:
            return self._odd(row, batch)
        except Ended as end:
            batch.ended.append((row, end.state, end.reason))
        except OSError as error:
            return self._obstructed(row, error, batch)
        return None

    def _obstructed(self, row: Delivery, error: OSError, batch: Batch) -> str:
        key = key_of(row, error, batch.folders)
        trouble = self.troubles.hit(key, error)
        if key != WHOLE:
            self._park(row, key, trouble.retry_at)
        return key

    def _park(self, row: Delivery, key: str, due: float) -> None:
        """Keep a row for a later attempt: in memory, or only in the journal if there are many."""
        if self._parked.room() > 0:
            self._parked.add(row, key, due)
            return
        with self._ready:
            self._in_hand.discard(row.seq)
            self._parked.forget((row.seq,))
            self._set_aside.add(row.seq, time.monotonic())

    def _odd(self, row: Delivery, batch: Batch) -> str | None:
        """Decide about a row whose source is not there, changed or in use."""
        fresh = self._fresh(row.seq)
        if fresh is None:
            return None
        try:
            found = inspect_afresh(
                fresh, batch.folders, inherited=self._scribe.inherited(fresh.seq)
            )
        except OSError as error:
            return self._obstructed(fresh, error, batch)
        superseded = self._parked.is_superseded(fresh.seq)
        if found.standing is Standing.MOVED and underway.is_copied_by_another(fresh):
            # Whose copy that is can be told when the other one is through.
            self._park(fresh, CHANGED, time.monotonic() + FIRST_DELAY)
        elif found.standing is Standing.MOVED and self._is_anothers(fresh, batch):
            batch.ended.append((fresh, State.VANISHED, "it was moved by the delivery before it"))
        elif found.standing is Standing.MOVED:
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
            self._park(fresh, CHANGED, time.monotonic() + FIRST_DELAY)
        else:
            self._changed(fresh, found.look)
        return None

    def _is_anothers(self, row: Delivery, batch: Batch) -> bool:
        """Say whether the file at the final path was moved there by another row."""
        with self._ready:
            not_noted = list(self._claims.values())
        not_noted += batch.moved + (self._kept.moved if self._kept is not None else [])
        return self._finals.is_anothers(row) or any(
            other.final == row.final and other.seq != row.seq for other in not_noted
        )

    def _changed(self, row: Delivery, look: Look) -> None:
        if self._parked.room() <= 0:
            self._park(row, CHANGED, 0.0)
        elif self._parked.add_changed(row, look, time.monotonic()):
            self._host.on_changed([row.source])

    def _copy(self, row: Delivery, progress: Progress) -> None:
        """Do one copy, in a copying thread."""
        error: Exception | None = None
        try:
            if self.troubles.waiting(WHOLE, time.monotonic()):
                raise Postponed
            underway.claim(row)
        except (Postponed, Odd, underway.UnderWayError) as failure:
            self._hand_in(row, failure)
            return
        try:
            with self._copies_at_work(), self._open_folders() as folders:
                row = transfer(row, folders, self._scribe, progress)
        except Stopped:
            underway.release(row)
            return
        except Exception as failure:  # noqa: BLE001 — whatever it is, the lane must hear of it
            underway.release(row)
            error = failure
        self._hand_in(row, error)

    @contextlib.contextmanager
    def _copies_at_work(self) -> Iterator[None]:
        """Have it noticed where a copy hangs."""
        station = hanging.Station([self.subject], [self.source, self.root])
        with self._ready:
            self._copying.add(station)
        try:
            with station:
                yield
        finally:
            with self._ready:
                self._copying.discard(station)

    def _hand_in(self, row: Delivery, error: Exception | None) -> None:
        """Give the lane a result; a success keeps its claim until its traces are removed."""
        with self._ready:
            if error is None and self._over:
                self._leave([row])
            elif error is None:
                self._claims[row.seq] = row
            self._results.append(CopyResult(row, error))
            self._ready.notify()

    def _open_folders(self) -> Folders:
        return Folders(self._host.watch_root_of, self.source, self.root, self._mounted)

    def _take_result(self, result: CopyResult, batch: Batch) -> None:
        row, error = result
        if error is None:
            batch.copied.append(row)
        elif isinstance(error, Ended):
            batch.ended.append((row, error.state, error.reason))
        elif isinstance(error, Postponed):
            stuck = self.troubles.active.get(WHOLE)
            self._park(row, WHOLE, stuck.retry_at if stuck else time.monotonic())
        elif isinstance(error, Odd):
            if self._odd(row, batch) == WHOLE:
                self._park(row, WHOLE, self.troubles.active[WHOLE].retry_at)
        elif isinstance(error, OSError):
            if self._obstructed(row, error, batch) == WHOLE:
                self._park(row, WHOLE, self.troubles.active[WHOLE].retry_at)
        else:
            raise error

    def _finish(self, batch: Batch) -> None:
        """Make the batch durable, then note it; where that fails, nothing of it is noted."""
        try:
            self._make_durable_and_note(batch)
        finally:
            for row in batch.copied:
                with self._ready:
                    self._claims.pop(row.seq, None)
                underway.release(row)

    def _make_durable_and_note(self, batch: Batch) -> None:
        self._scribe.say_batch()
        moved = batch.moved + batch.copied
        try:
            if moved:
                batch.make_durable()
        except OSError as error:
            self._finals.add(moved)  # what had these names before is not there any more
            due = self.troubles.hit(WHOLE, error).retry_at
            for row in (*moved, *(row for row, _, _ in batch.ended)):
                self._scribe.not_synced(row.seq)
                self._parked.add(row, WHOLE, due)  # also beyond the limit: they may be moved
            return
        if moved or batch.ended:
            batch.remove_leftovers()
            self._note(batch, moved)

    def _note(self, batch: Batch, moved: list[Delivery]) -> None:
        done = [row.in_state(State.READY if row.route else State.MOVED) for row in moved]
        away = batch.not_removed
        if away:
            # Before the note: with it, nobody would look for what comes back as it was.
            self._host.ledger.unlearn([row.seq for row in away])
        ended = [(row.seq, state, reason) for row, state, reason in batch.ended]
        self._host.ledger.note(ended, done)
        batch.clean_up_late()
        self._finals.add(done)
        self._drop([row.seq for row in done] + [seq for seq, _, _ in ended])
        for row, _, reason in batch.ended:
            log.warning("Not moved: %s: %s", printable(row.source), reason)
        if batch.ended:
            self._host.on_ended([(row, state) for row, state, _ in batch.ended])
        self._all_is_well(done)
        if done:
            self._host.on_moved(done)
        if away:
            self._host.on_changed([row.source for row in away])  # it may be back already

    def _all_is_well(self, moved: list[Delivery]) -> None:
        """End the troubles that a success disproves, or that no row waits for any more."""
        if not self.troubles.active:
            return
        waited_for = self._parked.keys() | ({WHOLE} if self._in_hand else set())
        over = self.troubles.settle(moved, waited_for)
        if over:
            self._parked.release(over)
            with self._ready:
                self._set_aside.over(time.monotonic())
