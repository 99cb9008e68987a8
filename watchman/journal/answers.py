"""What the journal and its archive say together, the newest first.

The order that must hold: the journal is read first, in a transaction that stays, and the archive is
listed after that. Whatever left the journal before is in a segment by then. What is in both is
shown once, as the journal has it.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from watchman.journal import archive, soundness
from watchman.journal.question import Place, Question, behind
from watchman.journal.reading import Reading
from watchman.journal.record import Record
from watchman.journal.sealed import Condition, Segment
from watchman.journal.tallies import DISCARDED
from watchman.model import State, Version

SELECT = """SELECT seq, task_id, source, final, device, inode, size, mtime_ns, changed_ns,
    arrived_ns, deliveries.broker, routes.task, kind, state, noted_ns, reason
    FROM deliveries LEFT JOIN routes ON routes.id = deliveries.route """


class Answer(NamedTuple):
    """What was found."""

    records: list[Record]
    unreadable: list[str]
    """A line for each part of the archive that may hold more and cannot be read."""


def ask(reading: Reading, question: Question, limit: int) -> Answer:
    """Return the deliveries that are meant, the newest first, ``limit`` at the most."""
    records: list[Record] = []
    unreadable: list[str] = []
    if question.can_be_met and limit > 0:
        connection = reading.connection
        connection.execute("BEGIN")
        try:
            merged = _Merged(reading, question, unreadable.append)
            with contextlib.closing(merged.records()) as found:
                for record in found:
                    records.append(record)
                    if len(records) >= limit:
                        break
        finally:
            if connection.in_transaction:  # SQLite may have given it up, and says so by an error
                connection.execute("ROLLBACK")
    return Answer(records, unreadable)


_Head = tuple[int, int, Record, Iterator[Record]]
"""The next record of one source: negative seq, the source's own number, record, what follows."""


class _Merged:
    """The journal and the segments as one. A segment is opened when its turn comes."""

    def __init__(
        self, reading: Reading, question: Question, cannot_read: Callable[[str], None]
    ) -> None:
        self._reading = reading
        self._question = question
        self._cannot_read = cannot_read
        self._heads: list[_Head] = []

    def records(self) -> Generator[Record, None, None]:
        """Return all that are meant, the newest first, none twice."""
        self._push(0, _in_journal(self._reading.connection, self._question))
        left = self._segments()
        shown, opened = None, 0
        while left or self._heads:
            while left and (not self._heads or left[-1].last >= -self._heads[0][0]):
                opened += 1
                self._push(opened, self._in_segment(left.pop()))
            if not self._heads:
                continue
            _, number, found, source = heapq.heappop(self._heads)
            if found.seq != shown and not (number and self._in_journal(found.seq)):
                shown = found.seq
                yield found
            self._push(number, source)

    def _push(self, number: int, source: Iterator[Record]) -> None:
        found = next(source, None)
        if found is not None:
            heapq.heappush(self._heads, (-found.seq, number, found, source))

    def _segments(self) -> list[archive.File]:
        """Return the segments, the next one last."""
        try:
            return archive.files(self._reading.state_dir)[::-1]
        except OSError as error:
            self._cannot_read(
                f"the history in {archive.directory_of(self._reading.state_dir)} cannot be read: "
                f"{error.strerror}; try it as the user that watchman runs as"
            )
            return []

    def _in_segment(self, file: archive.File) -> Iterator[Record]:
        try:
            with contextlib.closing(Segment(file.path)) as segment:
                yield from segment.find(self._question)
        except FileNotFoundError:
            pass  # it has just become too old
        except (sqlite3.Error, OSError) as error:
            self._cannot_read(archive.unreadable(file, error))

    def _in_journal(self, seq: int) -> bool:
        query = "SELECT 1 FROM deliveries WHERE seq = ?"
        return self._reading.connection.execute(query, (seq,)).fetchone() is not None


def _in_journal(connection: sqlite3.Connection, question: Question) -> Iterator[Record]:
    where = Condition.all(_conditions(question))
    query = f"{SELECT} WHERE {where.text} ORDER BY seq DESC"
    for row in connection.execute(query, where.parameters):
        if not question.has_patterns or _is_meant(question, row):
            yield record(row)


def _is_meant(question: Question, row: tuple[Any, ...]) -> bool:
    with soundness.understanding("a delivery"):
        return question.means_path(row[2], row[3])


def _conditions(question: Question) -> list[Condition]:
    """Return what SQL can tell: a call of Python for each row would take seconds."""
    found = []
    if question.state is not None:
        found.append(Condition("state = ?", int(question.state)))
    if question.discarded is not None:
        given_up = "(state = ? AND coalesce(reason, '') GLOB ?)"
        text = given_up if question.discarded else f"NOT {given_up}"
        found.append(Condition(text, int(State.VANISHED), f"{DISCARDED}*"))
    if question.has_time:
        times = Condition("arrived_ns BETWEEN ? AND ?", question.since_ns, question.until_ns)
        found.append(times)
    for column, value in (
        ("deliveries.broker", question.broker),
        ("routes.task", question.task),
        ("task_id", question.task_id),
    ):
        if value is not None:
            found.append(Condition(f"{column} = ?", value))
    if question.places:
        found.append(Condition.any([one for place in question.places for one in _at(place)]))
    return found


def _at(place: Place) -> Iterator[Condition]:
    for column in ("source", "final"):
        yield Condition(f"{column} = ?", place.path)
        yield _begins(column, place.below)
        if place.pattern:
            parts = [_begins(column, place.prefix)] if place.prefix else []
            if place.run:
                parts.append(Condition(f"instr({column}, ?)", place.run))
            yield Condition.all(parts)


def _begins(column: str, prefix: bytes) -> Condition:
    end = behind(prefix)
    if end is None:
        return Condition(f"{column} >= ?", prefix)
    return Condition(f"({column} >= ? AND {column} < ?)", prefix, end)


def record(row: tuple[Any, ...]) -> Record:
    """Return what a row of :data:`SELECT` says. Raises sqlite3.DatabaseError for none."""
    with soundness.understanding("a delivery"):
        seq, task_id, source, final, device, inode, size, mtime_ns, changed_ns, *rest = row
        arrived_ns, broker, task, kind, state, noted_ns, reason = rest
        path = os.fsdecode(source)
        return Record(
            seq,
            task_id,
            path,
            path if final is None else os.fsdecode(final),
            Version(device, inode, size, mtime_ns, changed_ns),
            arrived_ns,
            broker,
            task,
            kind,
            State(state),
            noted_ns,
            reason or "",
        )
