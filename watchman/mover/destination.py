"""One MOVES entry: its thread, the rows that are in progress, and what became of each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from itertools import compress
from operator import not_

from watchman import hanging
from watchman.file_access import Look
from watchman.model import Delivery, Move, State
from watchman.mover import claims
from watchman.mover.claims import final_paths, forget_final_paths
from watchman.mover.copy_pool import CopyPool, CopyResult
from watchman.mover.deferred import CHANGED, FIRST_DELAY, Backlog, DeferredRows
from watchman.mover.known_mounts import known_mounts
from watchman.mover.lease import matches
from watchman.mover.move_batch import MoveBatch
from watchman.mover.move_log import MoveLog, MoverContext
from watchman.mover.obstacles import WHOLE, Obstacles, directories_of, key_of
from watchman.mover.open_directories import MOST
from watchman.mover.outcomes import CrossDevice, Postponed, SourceChanged, Terminal, vanished
from watchman.mover.recovery import AttemptState, inspect_afresh
from watchman.mover.rename import rename
from watchman.soft_lock import soft_lock
from watchman.text import printable

log = logging.getLogger("watchman.mover")

BATCH = 2000
"""Rows that share one fsync of each directory and one commit."""
MOST_IN_PROGRESS = 4000
"""Rows in progress from which on no more are read; they stay in the journal."""


class Destination:
    """Moves the rows of one MOVES entry, in a thread of its own, page by page from the journal.

    So a destination that hangs in the kernel holds up this entry only. A round of the thread takes
    what has come back from the copying threads, what is due of the deferred rows, and the page that
    was read; it renames, makes the batch durable and notes it. Where the second process renames,
    its last batch is made durable and noted while it renames the next.

    ``_ready`` guards what other threads change: wake-ups, results of copies, the page and the
    cursor. The rest is for the destination's own thread.
    """

    def __init__(self, move: Move, context: MoverContext) -> None:
        """``context`` is what the destinations of the mover share."""
        self.move = move
        self.source, self.root = source, root = move
        self.obstacles = Obstacles(source, root)
        self._context = context
        self._move_log = MoveLog(context.store, context.inherited_until)
        self._final_paths = final_paths(root)
        self._ready = threading.Condition()
        self.copy_pool = CopyPool(
            move, context, self.obstacles, self._move_log, self._final_paths, self._ready
        )
        self._page: list[Delivery] = []
        """Rows that were read and not tried yet."""
        self._cursor = 0
        """The seq of the last row that was read."""
        self._unread = True
        """Whether there may be rows behind the cursor."""
        self._rescan: float | None = None
        """When all is to be read again, by the monotonic clock; None for not at all."""
        self._rescan_not_before = 0.0
        self._reading = 0.0
        """Seconds that reading has taken since it began at the first row."""
        self._deferred = DeferredRows()
        self._backlog = Backlog()
        self._in_progress: set[int] = set()
        """Seqs of rows that were read and are not noted: the deferred ones too, not the backlog."""
        self._uncommitted: MoveBatch | None = None
        """What the second process has moved; it is noted while that one moves the next batch."""
        self.moved_count = self.moved_only_count = 0
        """How many deliveries have reached their final paths; of those, how many have no task."""
        self._mounts = known_mounts(root)
        self._woken = False
        self.subject = move.subject
        self._station = hanging.Station([self.subject], [source, root])
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        with self._ready:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="mover", daemon=True)
                thread.start()
                self._thread = thread

    def look_again(self) -> None:
        """Say that rows were recorded; files that had changed are tried soon, too."""
        with self._ready:
            self._woken = True
            self._ready.notify()
        self.start()

    def rescan(self, first: int | None = None) -> None:
        """Say that rows have come back to MOVING, or to this entry.

        ``first`` is the seq of the first of them. Where it is None nobody knows: then all are read
        again, as soon as that may be.
        """
        with self._ready:
            if first is None:
                self._rescan = self._rescan_not_before
            else:
                self._go_back(first)
            self._ready.notify()

    def _go_back(self, first: int) -> None:
        """Read again from a seq on; rows that are in progress are passed over."""
        self._cursor = min(self._cursor, first - 1)
        self._unread = True

    def wake(self) -> None:
        """Have all threads see that they have been told to stop."""
        with self._ready:
            self._ready.notify_all()
        self.copy_pool.wake()

    def stations(self) -> list[hanging.Station]:
        """Return where the threads work."""
        return [self._station, *self.copy_pool.stations()]

    def join(self, deadline: float) -> bool:
        """Wait for the threads until the monotonic ``deadline``; False where they hang."""
        threads = [*self.copy_pool.threads, *([self._thread] if self._thread else [])]
        where = self._station.where
        if hanging.join(threads, where, deadline - time.monotonic()):
            return True
        # What a thread does when its file system answers again must be as if it had been done
        # before a crash: the next mover goes by what the journal says now.
        for thread in threads:
            self._context.store.shut_out(thread)
        forget_final_paths(self.root)
        hanging.leave(threads, where)
        return not hanging.silent(where)

    def waiting(self) -> int:
        """Return the number of rows in progress, and of those in the backlog."""
        with self._ready:
            return len(self._in_progress) + len(self._backlog)

    def _run(self) -> None:
        try:
            if not self._await_left():
                return
            with self._station:
                # Before the first move: what is mounted now must be there for every later one.
                self._mounts.look()
            while self._wait():
                with self._station:
                    self._round()
            with self._station:
                self._finish_uncommitted()
        except BaseException as error:  # noqa: BLE001 — the service ends the process
            forget_final_paths(self.root)
            self._context.died(error)
        finally:
            self.copy_pool.end_claims()

    def _await_left(self) -> bool:
        """Wait for threads that were left hanging here before a reload: they may have begun a move.

        Returns whether the mover has not been told to stop meanwhile.
        """
        with self._station:
            return hanging.await_left(self._station.where, self._context.stop.is_set)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when told to stop."""
        with self._ready:
            while not self._context.stop.is_set():
                now = time.monotonic()
                self._go_back_if_due(now)
                # While the whole entry is stuck, only results are taken: rows, deferred ones too,
                # wait for its next attempt.
                stuck = self.obstacles.blocking(WHOLE, now)
                if self._woken:
                    self._woken = False
                    self._unread = True
                    self._deferred.retry_soon(now)
                if self.copy_pool.results:
                    return True
                ready = bool(self._page) or self._may_read()
                if stuck is None and (ready or self._deferred.next_due <= now):
                    return True
                until = self._deferred.next_due
                if stuck is not None:
                    until = stuck.retry_at if ready else max(until, stuck.retry_at)
                until = min(until, self._backlog.due)
                if self._rescan is not None:
                    until = min(until, self._rescan)
                self._ready.wait(None if until == float("inf") else max(0.0, until - now))
            return False

    def _go_back_if_due(self, now: float) -> None:
        """Begin to read again what was left in the journal, once it is time."""
        first = self._backlog.take(now)
        if first is not None:
            self._go_back(first)
        if self._rescan is not None and now >= self._rescan:
            self._rescan, self._reading = None, 0.0
            self._go_back(1)

    def _may_read(self) -> bool:
        """Say whether another page may be read; deferred rows take no room."""
        room = MOST_IN_PROGRESS - len(self._in_progress) + len(self._deferred)
        return self._unread and not self._page and room > 0

    def _read(self) -> None:
        """Read the next page, if there is room; rows in progress are not taken twice."""
        with self._ready:
            if not self._may_read():
                return
            self._unread = False
            after = self._cursor
        begun = time.monotonic()
        rows = self._context.store.page_moving(self.move, after, BATCH)
        now = time.monotonic()
        with self._ready:
            self._reading += now - begun
            # Unless somebody went back meanwhile: then what was read now is read once more.
            if self._cursor == after and rows:
                self._cursor = rows[-1].seq
            self._unread = self._unread or len(rows) == BATCH
            fresh = [row for row in rows if row.seq not in self._in_progress]
            if self._backlog:
                fresh = [row for row in fresh if row.seq not in self._backlog]
            self._in_progress.update([row.seq for row in fresh])
            self._page += fresh
            # However many rows there are, rescans take a tenth of the time at the most.
            self._rescan_not_before = now + 10 * self._reading

    def _round(self) -> None:
        """Take what there is to do, try it, and make it durable and noted; then it is over.

        Rows for which the batch has no directories left stay in the page.
        """
        with self._ready:
            handed_in = self.copy_pool.results
            results = [handed_in.popleft() for _ in range(min(MOST, len(handed_in)))]
            stuck = self.obstacles.blocking(WHOLE, time.monotonic())
        if not stuck:
            self._read()
        with self._ready:
            rows: list[Delivery] = []
            if not stuck:
                rows, self._page = self._page, rows
            self._deferred.supersede(rows)
            due = [] if stuck else self._deferred.take_due(time.monotonic())
        again = [row for seq in due if (row := self._fresh(seq)) is not None]
        with self._context.open_directories(self.move) as directories:
            batch = MoveBatch(directories)
            for result in results:
                self._take_result(result, batch)
            # The second process decides nothing: it gets no row that was tried before, and none
            # that an obstacle or a copy in progress may concern.
            simple = not (again or self.obstacles.any_beyond_files() or claims.any_of(rows))
            process = self._context.rename_process if simple else None
            assigned = process is not None and process.ask(rows, directories)
            # While the process renames: the batch before this one is noted, and the next page read.
            self._finish_uncommitted()
            if assigned:
                self._read()
                rows = self._take_back(rows, batch)
            with soft_lock():
                left = self._work([*again, *rows], batch)
            # The note waits for the next batch only if there is one, and if this has nothing but
            # plain renames: results have claims that others may wait for.
            if assigned and self._page and not (rows or results):
                self._uncommitted = batch
            else:
                self._finish(batch)
        with self._ready:
            self._page = left + self._page

    def _fresh(self, seq: int) -> Delivery | None:
        """Read a row again: it may have been refreshed, discarded or ended meanwhile."""
        row = self._context.store.moving(seq)
        if row is None:
            self._drop((seq,))
        return row

    def _drop(self, seqs: Collection[int]) -> None:
        with self._ready:
            self._in_progress.difference_update(seqs)
            self._deferred.forget(seqs)
            self._move_log.forget(seqs)

    def _finish_uncommitted(self) -> None:
        """Finish the batch before this one, if that was put off."""
        batch, self._uncommitted = self._uncommitted, None
        if batch is not None:
            self._finish(batch)

    def _take_back(self, rows: list[Delivery], batch: MoveBatch) -> list[Delivery]:
        """Wait for the second process; return the rows that it has not moved."""
        assert self._context.rename_process is not None
        renamed = self._context.rename_process.answer()
        if renamed is None:
            return rows
        batch.failure = renamed.error
        batch.moved += compress(rows, renamed.moved)
        self._move_log.say_all_with_batch(batch.moved)
        return list(compress(rows, map(not_, renamed.moved)))

    def _work(self, rows: list[Delivery], batch: MoveBatch) -> list[Delivery]:
        """Move rows until all are done or the batch must end; return those that are left."""
        # Of several rows of one source, what is there now can only be the newest's.
        newest = {row.source: row.seq for row in rows}
        if len(newest) < len(rows):
            for row in rows:
                self._deferred.note_newest(row, newest[row.source])
        for position, row in enumerate(rows):
            if self._context.stop.is_set() or batch.directories.full:
                return rows[position:]
            if self._one(row, batch) == WHOLE:
                return rows[position:]
        return []

    def _one(self, row: Delivery, batch: MoveBatch) -> str | None:
        """Try one row; return the key of what stands in its way."""
        if self.obstacles.active:
            key = directories_of(row)
            obstacle = self.obstacles.blocking(key, time.monotonic())
            if obstacle is not None:
                self._defer(row, key, obstacle.retry_at)
                return key
        try:
            claims.refuse(row)
            batch.moved.append(rename(row, batch.directories, self._move_log))
        except CrossDevice as outcome:
            self.copy_pool.submit(outcome.args[0])
        except SourceChanged:
            return self._source_changed(row, batch)
        except Terminal as end:
            batch.ended.append((row, end.state, end.reason))
        except OSError as error:
            return self._obstructed(row, error, batch)
        return None

    def _obstructed(self, row: Delivery, error: OSError, batch: MoveBatch) -> str:
        key = key_of(row, error, batch.directories)
        obstacle = self.obstacles.add(key, error)
        if key != WHOLE:
            self._defer(row, key, obstacle.retry_at)
        return key

    def _defer(self, row: Delivery, key: str, due: float) -> None:
        """Keep a row for a later attempt: in memory, or only in the journal if there are many."""
        if self._deferred.room() > 0:
            self._deferred.add(row, key, due)
            return
        with self._ready:
            self._in_progress.discard(row.seq)
            self._deferred.forget((row.seq,))
            self._backlog.add(row.seq, time.monotonic())
        self.obstacles.leave(key)

    def _source_changed(self, row: Delivery, batch: MoveBatch) -> str | None:
        """Find out what became of a row whose source is gone, changed or in use.

        Returns the key of what stands in the way of finding out.
        """
        fresh = self._fresh(row.seq)
        if fresh is None:
            return None
        try:
            found = inspect_afresh(
                fresh, batch.directories, inherited=self._move_log.inherited(fresh.seq)
            )
        except OSError as error:
            return self._obstructed(fresh, error, batch)
        superseded = self._deferred.is_superseded(fresh.seq)
        if found.state is AttemptState.MOVED and claims.is_copied_by_another(fresh):
            # Whose copy that is shows when the other one is finished.
            self._defer(fresh, CHANGED, time.monotonic() + FIRST_DELAY)
        elif found.state is AttemptState.MOVED and self._is_anothers(fresh, batch):
            batch.ended.append((fresh, State.VANISHED, "it was moved by the delivery before it"))
        elif found.state is AttemptState.MOVED:
            batch.moved.append(fresh)
        elif found.state in (AttemptState.COPIED, AttemptState.SOURCE_RENAMED):
            self.copy_pool.submit(fresh)
        elif found.state is AttemptState.GONE or (
            superseded and not matches(fresh, found.look.version)
        ):
            end = vanished(found.look, superseded)
            batch.ended.append((fresh, end.state, end.reason))
        elif found.state is AttemptState.AT_SOURCE:
            # Refreshed in the journal, or left alone again since.
            self._defer(fresh, CHANGED, time.monotonic() + FIRST_DELAY)
        else:
            self._changed(fresh, found.look)
        return None

    def _is_anothers(self, row: Delivery, batch: MoveBatch) -> bool:
        """Say whether the file at the final path was moved there by another row."""
        not_noted = self.copy_pool.copied() + batch.moved
        if self._uncommitted is not None:
            not_noted += self._uncommitted.moved
        return self._final_paths.is_anothers(row) or any(
            other.final == row.final and other.seq != row.seq for other in not_noted
        )

    def _changed(self, row: Delivery, look: Look) -> None:
        if self._deferred.room() <= 0:
            self._defer(row, CHANGED, 0.0)
        elif self._deferred.add_changed(row, look, time.monotonic()):
            self._context.listener.changed([row.source])

    def _take_result(self, result: CopyResult, batch: MoveBatch) -> None:
        row, error = result
        if error is None:
            batch.copied.append(row)
        elif isinstance(error, Terminal):
            batch.ended.append((row, error.state, error.reason))
        elif isinstance(error, Postponed):
            stuck = self.obstacles.active.get(WHOLE)
            self._defer(row, WHOLE, stuck.retry_at if stuck else time.monotonic())
        elif isinstance(error, SourceChanged):
            if self._source_changed(row, batch) == WHOLE:
                self._defer(row, WHOLE, self.obstacles.active[WHOLE].retry_at)
        elif isinstance(error, OSError):
            if self._obstructed(row, error, batch) == WHOLE:
                self._defer(row, WHOLE, self.obstacles.active[WHOLE].retry_at)
        else:
            raise error

    def _finish(self, batch: MoveBatch) -> None:
        """Make the batch durable, then note it; where that fails, nothing of it is noted."""
        try:
            self._make_durable_and_note(batch)
        finally:
            # Only now: until here others must not touch TEMP and MARKER.
            for row in batch.copied:
                self.copy_pool.release(row)

    def _make_durable_and_note(self, batch: MoveBatch) -> None:
        # Before the note: after it the log has the task as well, and the move comes first.
        self._move_log.say_batch()
        moved = batch.moved + batch.copied
        try:
            if moved:
                batch.make_durable()
        except OSError as error:
            # Not noted, but there: whatever had these names before is gone.
            self._final_paths.add(moved)
            due = self.obstacles.add(WHOLE, error).retry_at
            for row in (*moved, *(row for row, _, _ in batch.ended)):
                self._move_log.not_synced(row.seq)
                # Also beyond the limit: that they may have been moved is known in memory only.
                self._deferred.add(row, WHOLE, due)
            return
        if moved or batch.ended:
            batch.remove_leftovers()
            self._note(batch, moved)

    def _note(self, batch: MoveBatch, moved: list[Delivery]) -> None:
        away = batch.not_removed
        if away:
            # Before the note: else, after a crash between both, a source that comes back as it
            # was would be taken for known.
            self._context.store.unlearn([row.seq for row in away])
        ended = [(row.seq, state, reason) for row, state, reason in batch.ended]
        self._context.store.note(ended, moved)
        batch.clean_up_late()
        self._final_paths.add(moved)
        self._drop([row.seq for row in moved] + [seq for seq, _, _ in ended])
        for row, _, reason in batch.ended:
            log.warning("Not moved: %s: %s", printable(row.source), reason)
        if batch.ended:
            self._context.listener.ended([(row, state) for row, state, _ in batch.ended])
        self._end_obstacles(moved)
        if moved:
            self.moved_count += len(moved)
            self.moved_only_count += sum(row.route is None for row in moved)
            self._context.listener.moved(moved)
        if away:
            self._context.listener.changed([row.source for row in away])  # they may be back by now

    def _end_obstacles(self, moved: list[Delivery]) -> None:
        """End the obstacles that a success disproves, or that no row waits for any more."""
        if not self.obstacles.active:
            return
        waited_for = self._deferred.keys() | ({WHOLE} if self._in_progress else set())
        over = self.obstacles.end_disproved(moved, waited_for)
        if over:
            self._deferred.release(over)
            with self._ready:
                self._backlog.retry_soon(time.monotonic())
