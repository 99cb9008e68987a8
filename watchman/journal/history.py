"""What became of files, and what operators do about deliveries that failed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from watchman.errors import JournalError
from watchman.journal import answers, schema, tallies
from watchman.journal.question import Place, Question
from watchman.journal.reading import Reading, reading, unusable
from watchman.journal.record import Record
from watchman.journal.tallies import DISCARDED, Key
from watchman.model import State

__all__ = ["Record", "Selection", "discard", "failed", "history", "moving", "retry"]


_FAILED = int(State.FAILED)
_MOVING = int(State.MOVING)
_AT_A_TIME = 500
_UNDER_WAY = "it is under way as another delivery"


def history(reading: Reading, paths: Sequence[str], limit: int) -> list[Record]:
    """Return what became of files, the newest first, ``limit`` at the most.

    Each of ``paths`` is absolute and names a file before or after its move, a directory with
    all below it, or an fnmatch pattern. Without any: everything.
    """
    return answers.ask(reading, Question(tuple(paths)), limit).records


def failed(reading: Reading, limit: int = -1) -> list[Record]:
    """Return the deliveries that failed, in the order of their arrival; -1 for all."""
    return _failed(reading.connection, limit)


def moving(reading: Reading, task_ids: Collection[str]) -> set[str]:
    """Return those of the task ids that have a delivery which is being moved."""
    wanted = set(task_ids)
    rows = reading.connection.execute(
        f"SELECT task_id FROM deliveries WHERE state = {_MOVING}"  # noqa: S608 — a number
    )
    return {task_id for (task_id,) in rows if task_id in wanted}


def _failed(connection: sqlite3.Connection, limit: int = -1) -> list[Record]:
    query = f"{answers.SELECT} WHERE state = {_FAILED} ORDER BY seq LIMIT ?"
    return list(map(answers.record, connection.execute(query, (limit,))))


class Selection(NamedTuple):
    """Which failed deliveries an operator means."""

    seqs: frozenset[int] = frozenset()
    paths: tuple[str, ...] = ()
    """As in :func:`history`."""
    all: bool = False

    def picks(self, record: Record) -> bool:
        """Whether it means this one."""
        if self.all or record.seq in self.seqs:
            return True
        names = {os.fsencode(record.source), os.fsencode(record.final)}
        return any(Place(path).means(name) for path in self.paths for name in names)


def retry(state_dir: str, selection: Selection, is_moved: Callable[[Record], bool]) -> list[Record]:
    """Put failed deliveries back on their way; return them in their new state.

    ``is_moved`` says whether a delivery's file is already at its final path: FAILED does not
    tell at which step it failed. A running daemon finds them with its next heartbeat. Raises
    JournalError.
    """

    def back(record: Record) -> tuple[State, str]:
        if record.final != record.source and not is_moved(record):
            return State.MOVING, ""
        return (State.MOVED if record.task is None else State.READY), ""

    return _change(state_dir, selection, back)


def discard(state_dir: str, selection: Selection, by: str) -> list[Record]:
    """Give failed deliveries up for ``by``; return them in their new state.

    The files stay where they are. Raises JournalError.
    """
    return _change(state_dir, selection, lambda _: (State.VANISHED, f"{DISCARDED}{by}"))


def _change(
    state_dir: str, selection: Selection, decide: Callable[[Record], tuple[State, str]]
) -> list[Record]:
    """Change failed deliveries, a bounded number in a transaction: the daemon may be writing."""
    changed: list[Record] = []
    with _writing(state_dir) as connection:
        # Decided before the transactions: it may mean looking at a slow disk.
        decided = [
            (record, *decide(record)) for record in _failed(connection) if selection.picks(record)
        ]
        for start in range(0, len(decided), _AT_A_TIME):
            now = time.time_ns()
            connection.execute("BEGIN IMMEDIATE")
            for record, state, reason in decided[start : start + _AT_A_TIME]:
                wanted = record._replace(state=state, noted_ns=now, reason=reason)
                other = wanted._replace(state=State.VANISHED, reason=_UNDER_WAY)
                # The same arrival may have been found again since it failed: once is enough.
                now_is = next((one for one in (wanted, other) if _set(connection, one)), None)
                if now_is is not None:
                    changed.append(now_is)
                    _recount(connection, now_is)
            connection.execute("COMMIT")
    return changed


def _set(connection: sqlite3.Connection, record: Record) -> bool:
    """Give a failed delivery its new state; False if it is not failed, or under way otherwise."""
    cursor = connection.execute(
        "UPDATE OR IGNORE deliveries SET state = ?, noted_ns = ?, reason = ? "
        "WHERE seq = ? AND state = ?",
        (int(record.state), record.noted_ns, record.reason or None, record.seq, _FAILED),
    )
    return cursor.rowcount > 0


def _recount(connection: sqlite3.Connection, record: Record) -> None:
    """Count a delivery that had failed in its new state."""
    broker, state = record.broker or "", int(record.state)
    tallies.take(connection, Key(broker, _FAILED), 1)
    key = Key(broker, state, record.reason.startswith(DISCARDED))
    tallies.add(connection, key, 1, record.arrived_ns, record.noted_ns)


@contextlib.contextmanager
def _writing(state_dir: str) -> Iterator[sqlite3.Connection]:
    path = os.path.join(state_dir, "journal.db")
    try:
        # Says what is wrong with it, and does not make one where there is none.
        with reading(state_dir):
            pass
        if not os.path.exists(path):
            raise JournalError(f"there is no journal at {path} yet: nothing has been recorded")
        connection = schema.connect(path)
        try:
            yield connection
        finally:
            connection.close()  # rolls back what was not committed
    except sqlite3.Error as error:
        raise unusable(path, error, "written") from error
