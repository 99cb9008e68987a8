"""What the mover needs of the others: the journal, and its host's callbacks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from watchman.log_batch import info_all
from watchman.model import Delivery, State
from watchman.mover.hand import Hand
from watchman.text import printable

log = logging.getLogger("watchman.notify")


class Ledger(Protocol):
    """What the mover needs of the journal. Called from several threads, one at a time."""

    def page_moving(self, after: int, limit: int) -> list[Delivery]:
        """Return the rows in state MOVING with seq > ``after``, by seq, at most ``limit``."""
        ...

    def redirect(self, seq: int, final: str) -> None:
        """Record a new final path; durable when it returns."""
        ...

    def note(
        self, changes: Sequence[tuple[int, State, str]], moved: Sequence[Delivery] = ()
    ) -> None:
        """Record (seq, new state, reason) for all, durable together when it returns.

        ``moved`` are rows, in their new state, whose files have left their sources.
        """
        ...

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer arrival at the delivery's source is recorded."""
        ...

    def unlearn(self, seqs: Sequence[int]) -> None:
        """Let their sources be arrivals should they be there after all; durable when it returns."""
        ...

    def shut_out(self, thread: threading.Thread) -> None:
        """Let a thread that hangs write no more."""
        ...


class Host(NamedTuple):
    """What the lanes of one mover share."""

    ledger: Ledger
    watch_root_of: Callable[[str], str]
    on_moved: Callable[[list[Delivery]], None]
    on_changed: Callable[[list[str]], None]
    copies: int
    stop: threading.Event
    died: Callable[[BaseException], None]
    """Called with what ended a thread."""
    inherited: Callable[[int], bool]
    """Says whether a row was there when the mover started."""
    on_ended: Callable[[list[tuple[Delivery, State]]], None]
    """Called with rows that will not be moved, after that has been noted."""
    has_room: Callable[[], None]
    """Called when a lane has worked off rows."""
    hand: Hand | None = None
    """A second process that renames, where there is one."""


def _way(row: Delivery) -> str:
    return f"{printable(row.source)} to {printable(row.final)}"


class Scribe:
    """Writes redirects in the ledger, and each move in the log, once."""

    def __init__(self, host: Host) -> None:
        self._ledger = host.ledger
        self._of_earlier_run = host.inherited
        self._unsynced: set[int] = set()
        self._said: dict[int, str] = {}
        self._lines: list[str] = []

    def redirect(self, seq: int, final: str) -> None:
        """Record a new final path; durable when it returns."""
        self._ledger.redirect(seq, final)

    def inherited(self, seq: int) -> bool:
        """Say whether the file may have been moved already, and not noted."""
        return seq in self._unsynced or self._of_earlier_run(seq)

    def superseded(self, row: Delivery) -> bool:
        """Say whether a newer arrival at the row's source is recorded."""
        return self._ledger.announced_later(row)

    def not_synced(self, seq: int) -> None:
        """Remember a file that was moved, but could not be made durable."""
        self._unsynced.add(seq)

    def say(self, row: Delivery) -> None:
        """Write the line that operators rely on; a retry is not another move."""
        if self._said.get(row.seq) != row.final:
            self._said[row.seq] = row.final
            log.info("Moving %s", _way(row))

    def say_with_batch(self, row: Delivery) -> None:
        """Say it with the rest of the batch; for the lane's own thread."""
        if self._said.get(row.seq) != row.final:
            self._said[row.seq] = row.final
            self._lines.append(_way(row))

    def say_all_with_batch(self, rows: Sequence[Delivery]) -> None:
        """The same for rows that were moved in one go."""
        if self._said:
            rows = [row for row in rows if self._said.get(row.seq) != row.final]
        self._lines += map(_way, rows)

    def say_batch(self) -> None:
        """Write the lines of a batch, before anybody else speaks of its files."""
        info_all(log, "Moving %s", self._lines)
        self._lines.clear()

    def forget(self, seqs: Collection[int]) -> None:
        """Forget rows that are done with."""
        self._unsynced.difference_update(seqs)
        if self._said:
            for seq in seqs:
                self._said.pop(seq, None)
