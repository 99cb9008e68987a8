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
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from watchman.journal import archive, digest_search, soundness
from watchman.journal.journal_reader import JournalReader
from watchman.journal.question import (
    LARGEST,
    SMALLEST,
    WITHOUT_REASON,
    AskedPath,
    Question,
    behind,
)
from watchman.journal.record import Record
from watchman.journal.sealed import Condition, Segment
from watchman.model import DISCARDED, State, Version

COLUMNS = """seq, task_id, source, final, device, inode, size, mtime_ns, changed_ns,
    arrived_ns, deliveries.broker, routes.task, kind, state, noted_ns, reason"""
"""What :func:`record` takes."""
PAGE = 2000
"""Deliveries read at once where all are wanted."""
_WITHOUT_REASON = sorted(map(int, WITHOUT_REASON))
_SELECT = f"""SELECT {COLUMNS}
    FROM deliveries {{}} LEFT JOIN routes ON routes.id = deliveries.route"""  # noqa: S608 — our own words


class Matches(NamedTuple):
    """What was found."""

    records: list[Record]
    unreadable: list[str]
    """A line for each part of the archive that may hold more and cannot be read."""
    left_out: int = 0
    """How many more there are, at least."""
    counted: bool = True
    """Whether ``left_out`` is all of them."""


def ask(journal: JournalReader, question: Question, limit: int, count: float = 0.0) -> Matches:
    """Return the deliveries that are meant, the newest first, ``limit`` at the most.

    For ``count`` seconds those beyond the limit are counted.
    """
    records: list[Record] = []
    left_out, counted = 0, True
    if not question.can_be_met or limit <= 0:
        return Matches(records, [])
    clock = _Clock()
    merged = _Merged(journal, question, clock)
    with _transaction(journal.connection), contextlib.closing(merged.records()) as found:
        for record in found:
            if len(records) < limit:
                records.append(record)
            else:
                left_out += 1
            if len(records) >= limit and clock.begin(count):
                break
        counted = not clock.is_over
    return Matches(records, merged.unreadable, left_out, counted)


def each(
    journal: JournalReader, question: Question, unreadable: dict[str, None]
) -> Iterator[Record]:
    """Yield all deliveries that are meant, the newest first, read a page at a time.

    Nothing stays open meanwhile: somebody may look at each for hours. What cannot be read is put
    into ``unreadable``, a line each.
    """
    while True:
        page = ask(journal, question, PAGE)
        unreadable.update(dict.fromkeys(page.unreadable))
        yield from page.records
        if len(page.records) < PAGE:
            return
        question = replace(question, up_to=page.records[-1].seq - 1)


def begins_ns(journal: JournalReader) -> int | None:
    """Return when the first delivery arrived that is remembered; None if there is none."""
    query = "SELECT arrived_ns FROM deliveries ORDER BY seq LIMIT 1"
    row = journal.connection.execute(query).fetchone()
    times = [] if row is None else [int(row[0])]
    with contextlib.suppress(OSError, sqlite3.Error):  # `history` says it
        for file in archive.files(journal.state_dir)[-1:]:
            with contextlib.closing(Segment(file.path)) as segment:
                times += [kind.first_arrived_ns for kind in segment.kinds]
    return min(times, default=None)


class _Clock:
    """Ends a count that has taken its time, also where nothing is found to be counted."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self.is_over = False

    def begin(self, seconds: float) -> bool:
        """Let the time run, unless it does already; whether it is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + seconds
        return self.look()

    def look(self) -> bool:
        """Whether the time is over."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.is_over = True
        return self.is_over


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # SQLite may have given it up, and says so by an error
            connection.execute("ROLLBACK")


_Head = tuple[int, int, Record, Iterator[Record]]
"""The next record of one source: negative seq, the source's own number, record, what follows."""


class _Merged:
    """The journal and the segments as one. A segment is opened when its turn comes."""

    def __init__(self, journal: JournalReader, question: Question, clock: _Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._question = question
        self._heads: list[_Head] = []
        self.unreadable: list[str] = []
        """A line for each part of the archive that cannot be read."""

    def records(self) -> Generator[Record, None, None]:
        """Return all that are meant, the newest first, none twice."""
        self._push(0, _in_journal(self._journal.connection, self._question))
        left = self._segments()
        shown, opened = None, 0
        while (left or self._heads) and not self._clock.look():
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

    def _segments(self) -> list[archive.SegmentFile]:
        """Return the segments, the next one last."""
        try:
            files = archive.files(self._journal.state_dir)[::-1]
            return [file for file in files if self._question.may_be_among(file.first, file.last)]
        except OSError as error:
            self.unreadable.append(
                f"the history in {archive.directory_of(self._journal.state_dir)} cannot be read: "
                f"{error.strerror}; try it as the user that watchman runs as"
            )
            return []

    def _in_segment(self, file: archive.SegmentFile) -> Iterator[Record]:
        limit = self._journal.limit
        try:
            with contextlib.closing(Segment(file.path, limit)) as segment:
                yield from segment.find(self._question, self._clock.look)
        except FileNotFoundError:
            pass  # it has just become too old
        except (sqlite3.Error, OSError) as error:
            if limit.is_over:
                raise
            self.unreadable.append(archive.unreadable(file, error))

    def _in_journal(self, seq: int) -> bool:
        query = "SELECT 1 FROM deliveries WHERE seq = ?"
        return self._journal.connection.execute(query, (seq,)).fetchone() is not None


def _in_journal(connection: sqlite3.Connection, question: Question) -> Iterator[Record]:
    where, index = conditions(question), ""
    if question.reason is not None or question.state is State.VANISHED:
        index = "INDEXED BY deliveries_reason"
        where.append(Condition("(state = 5 OR reason IS NOT NULL)"))
    for first, last in digest_search.ranges(connection, question):
        some = [] if first == SMALLEST and last == LARGEST else [_among(first, last)]
        each = Condition.all([*some, *where])
        query = f"{_SELECT.format(index)} WHERE {each.text} ORDER BY seq DESC"
        for row in connection.execute(query, each.parameters):
            if is_meant(question, row):
                yield record(row)


def _among(first: int, last: int) -> Condition:
    return Condition("seq BETWEEN ? AND ?", first, last)


def is_meant(question: Question, row: tuple[Any, ...]) -> bool:
    """Whether a row of :data:`COLUMNS`, of which :func:`conditions` hold, is meant."""
    with soundness.understanding("a delivery"):
        return not question.has_patterns or question.means_path(row[2], row[3])


def conditions(question: Question) -> list[Condition]:
    """Return what SQL can tell: a call of Python for each row would take seconds."""
    found = []
    if question.state is not None:
        # The number stands in the text: SQLite must see that an index is about it.
        found.append(Condition(f"state = {int(question.state)}"))
    if question.discarded is not None:
        given_up = "(state = ? AND coalesce(reason, '') GLOB ?)"
        text = given_up if question.discarded else f"NOT {given_up}"
        found.append(Condition(text, int(State.VANISHED), f"{DISCARDED}*"))
    if question.has_time:
        times = Condition("arrived_ns BETWEEN ? AND ?", question.since_ns, question.until_ns)
        found.append(times)
    if question.task is not None:
        # Not by the join: that would look the route up for each row.
        routes = "deliveries.route IN (SELECT id FROM routes WHERE task = ?)"
        found.append(Condition(routes, question.task))
    for column, value in (("deliveries.broker", question.broker), ("task_id", question.task_id)):
        if value is not None:
            found.append(Condition(f"{column} = ?", value))
    if question.reason is not None:
        found.append(Condition("instr(lower(reason), ?)", question.reason_part))
        found.append(Condition(f"+state NOT IN ({','.join(map(str, _WITHOUT_REASON))})"))
    if question.seqs is not None:
        found.append(Condition(f"seq IN ({','.join(map(str, sorted(question.seqs)))})"))
    if question.up_to != LARGEST:
        found.append(Condition("seq <= ?", question.up_to))
    if question.asked_directory:
        found.append(Condition.any(list(_at(question.asked_directory))))
    if question.asked_paths:
        found.append(Condition.any([one for asked in question.asked_paths for one in _at(asked)]))
    return found


def _at(asked: AskedPath) -> Iterator[Condition]:
    for column in ("source", "final"):
        yield Condition(f"{column} = ?", asked.path)
        yield _begins(column, asked.below)
        if asked.pattern:
            parts = [_begins(column, asked.prefix)] if asked.prefix else []
            parts += [Condition(f"instr({column}, ?)", run) for run in asked.runs]
            yield Condition.all(parts)


def _begins(column: str, prefix: bytes) -> Condition:
    end = behind(prefix)
    if end is None:
        return Condition(f"{column} >= ?", prefix)
    return Condition(f"({column} >= ? AND {column} < ?)", prefix, end)


def record(row: tuple[Any, ...]) -> Record:
    """Return what a row of :data:`COLUMNS` says. Raises sqlite3.DatabaseError for none."""
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
