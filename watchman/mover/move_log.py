"""What the mover needs of the journal and of its host, and the log of its moves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from watchman.log_batch import info_all
from watchman.model import Delivery, Move, State, Watch
from watchman.mover.known_mounts import known_mounts
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.rename_process import RenameProcess
from watchman.text import printable

log = logging.getLogger("watchman.notify")


class DeliveryStore(Protocol):
    """What the mover needs of the journal. Called from several threads."""

    def page_moving(self, move: Move, after: int, limit: int) -> list[Delivery]:
        """Return a MOVES entry's rows in state MOVING with seq > ``after``, by seq."""
        ...

    def moving(self, seq: int) -> Delivery | None:
        """Return a row as it is by now, if it is in state MOVING."""
        ...

    def page_strays(self, moves: Iterable[Move], limit: int) -> list[Delivery]:
        """Return rows in state MOVING of other MOVES entries than these, or of none."""
        ...

    def assign(self, seqs: Sequence[int], move: Move) -> None:
        """Have rows be of a MOVES entry from now on."""
        ...

    def last_seq(self) -> int:
        """Return the seq of the last delivery that was recorded."""
        ...

    def redirect(self, seq: int, final: str) -> None:
        """Record a new final path; durable when it returns."""
        ...

    def note(
        self, changes: Sequence[tuple[int, State, str]], moved: Sequence[Delivery] = ()
    ) -> None:
        """Record (seq, new state, reason) for all, durable together when it returns.

        ``moved`` are rows whose files are at their final paths.
        """
        ...

    def announced_later(self, delivery: Delivery) -> bool:
        """Say whether a newer arrival at the delivery's source is recorded."""
        ...

    def unlearn(self, seqs: Sequence[int]) -> None:
        """Forget what is known at the rows' sources; durable when it returns.

        A file that is found there later is another arrival, even if it is as it was recorded.
        """
        ...

    def shut_out(self, thread: threading.Thread) -> None:
        """Let a thread that hangs write no more."""
        ...


class MoveListener(Protocol):
    """Told what becomes of deliveries, after it was noted, by the mover's threads.

    They also ask it about watches. Its methods must not block for long: the files behind wait for
    them.
    """

    def watch_of(self, path: str) -> Watch | None:
        """Return the watch that a source is in; None where there is none (any more)."""
        ...

    def moved(self, rows: list[Delivery]) -> None:
        """Hear of rows whose files are at their final paths."""
        ...

    def ended(self, rows: list[tuple[Delivery, State]]) -> None:
        """Hear of rows that will not be moved: FAILED or VANISHED."""
        ...

    def changed(self, paths: list[str]) -> None:
        """Hear of sources that are not what was recorded: they may be new arrivals."""
        ...


class MoverContext(NamedTuple):
    """What the destinations of one mover share."""

    store: DeliveryStore
    listener: MoveListener
    copies: int
    """Copies that each MOVES entry may make at a time."""
    stop: threading.Event
    """Set when all threads are to end."""
    died: Callable[[BaseException], None]
    """Called with what ended a thread: the whole mover stops then."""
    inherited_until: int
    """The last seq that was recorded when the mover started.

    An earlier run may have moved the files of rows up to here without noting it.
    """
    rename_process: RenameProcess | None
    """None where there is none."""

    def open_directories(self, move: Move) -> OpenDirectories:
        """Return the directories of a batch or of a copy, before any is open."""
        known = known_mounts(move.root)
        return OpenDirectories(self.listener.watch_of, *move, known)


def _paths(row: Delivery) -> str:
    return f"{printable(row.source)} to {printable(row.final)}"


class MoveLog:
    """Records redirects in the journal, and writes each move to the log once.

    The copying threads call :meth:`say` and what looks into the journal; what concerns batches is
    for the destination's own thread.
    """

    def __init__(self, store: DeliveryStore, inherited_until: int) -> None:
        """Rows up to the seq ``inherited_until`` are of an earlier run."""
        self._store = store
        self._inherited_until = inherited_until
        self._unsynced: set[int] = set()
        """Seqs of rows that were moved, and not noted since that could not be made durable."""
        self._logged: dict[int, str] = {}
        """The final path that was logged for a row, by seq: a retry is not another move."""
        self._lines: list[str] = []

    def redirect(self, seq: int, final: str) -> None:
        """Record a new final path; durable when it returns."""
        self._store.redirect(seq, final)

    def inherited(self, seq: int) -> bool:
        """Say whether the file may have been moved already, and not noted."""
        return seq in self._unsynced or seq <= self._inherited_until

    def superseded(self, row: Delivery) -> bool:
        """Say whether a newer arrival at the row's source is recorded."""
        return self._store.announced_later(row)

    def not_synced(self, seq: int) -> None:
        """Remember a file that was moved, but could not be made durable."""
        self._unsynced.add(seq)

    def say(self, row: Delivery) -> None:
        """Log the move at once; once for each final path. For any thread."""
        if self._logged.get(row.seq) != row.final:
            self._logged[row.seq] = row.final
            log.info("Moving %s", _paths(row))

    def say_with_batch(self, row: Delivery) -> None:
        """Log the move with :meth:`say_batch`."""
        if self._logged.get(row.seq) != row.final:
            self._logged[row.seq] = row.final
            self._lines.append(_paths(row))

    def say_all_with_batch(self, rows: Sequence[Delivery]) -> None:
        """Log rows with :meth:`say_batch` that were moved in one go."""
        if self._logged:
            rows = [row for row in rows if self._logged.get(row.seq) != row.final]
        self._lines += map(_paths, rows)

    def say_batch(self) -> None:
        """Write the lines of a batch; to be called before its rows are noted.

        After that the senders log the same files.
        """
        info_all(log, "Moving %s", self._lines)
        self._lines.clear()

    def forget(self, seqs: Collection[int]) -> None:
        """Forget rows that are done with."""
        self._unsynced.difference_update(seqs)
        if self._logged:
            for seq in seqs:
                self._logged.pop(seq, None)
