"""Deliveries that failed: which there are, and what operators do about them.

Millions may have failed: they are read a page at a time, without a transaction that stays open
while somebody looks at what is printed, and what a command has changed is kept in a table on disk.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from watchman.journal import acts, answers, bundles, states, tallies
from watchman.journal.acts import Act
from watchman.journal.journal_reader import JournalReader
from watchman.journal.operator_writes import RecordTable, writing
from watchman.journal.question import LARGEST, SMALLEST, Question
from watchman.journal.record import Record
from watchman.journal.sealed import Condition
from watchman.journal.tallies import TallyKey
from watchman.model import DISCARDED, State

__all__ = ["OperatorChanges", "Record", "Selection", "discard", "failed", "retry"]


PAGE = 250
"""Failed deliveries read at once, and changed in one transaction at the most: some ms, since the
daemon waits for it."""
_FAILED = int(State.FAILED)
_UNDER_WAY = "it is under way as another delivery"
_SEQS, _PATHS = 500, 20
"""What is asked for in one query: SQLite takes 999 parameters in old versions."""

# The index by its name: SQLite would rather go by the seq, through all that has not failed.
_PAGED = f"""SELECT {answers.COLUMNS} FROM deliveries INDEXED BY deliveries_failed
    LEFT JOIN routes ON routes.id = deliveries.route
    WHERE state = {_FAILED} AND seq > ? AND {{}} ORDER BY seq LIMIT ?"""  # noqa: S608 — our own words
_COUNTED = f"""SELECT count(*) FROM deliveries INDEXED BY deliveries_failed
    LEFT JOIN routes ON routes.id = deliveries.route WHERE state = {_FAILED} AND {{}}"""  # noqa: S608 — our own words
_GROUPED = f"""SELECT deliveries.broker, routes.task, reason, count(*), {{ages}}
    FROM deliveries INDEXED BY deliveries_failed LEFT JOIN routes ON routes.id = deliveries.route
    WHERE state = {_FAILED} AND {{where}} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3"""  # noqa: S608 — the same
# A set stays together. What was in a batch joins another one: each task has an id of its own.
_SET = """UPDATE OR IGNORE deliveries SET state = ?, noted_ns = ?, reason = ?,
    held = CASE WHEN bundle IN (SELECT id FROM bundles WHERE kind = 'set') THEN -1
        ELSE max(held, 0) END,
    bundle = CASE WHEN bundle IN (SELECT id FROM bundles WHERE kind = 'set') THEN bundle ELSE 0 END
    WHERE seq = ? AND state = ?"""
_REST_OF_SETS = f"""SELECT {answers.COLUMNS} FROM deliveries INDEXED BY deliveries_bundle
    LEFT JOIN routes ON routes.id = deliveries.route
    WHERE bundle > 0 AND bundle IN (
        SELECT bundle FROM deliveries JOIN bundles ON bundles.id = bundle AND bundles.kind = 'set'
        WHERE seq IN ({{marks}})) AND +state = {_FAILED} AND seq NOT IN ({{marks}})
    ORDER BY seq"""  # noqa: S608 — our own words
GROUPS = 50
"""Groups of failed deliveries that are told apart."""
_ALL = Question()
# One walk through the index, for all of them together: a row is looked at only for these ids. A
# task id alone has no index, and the inode number that goes before it may have changed.
_BEING_MOVED = f"""DELETE FROM temp.left_behind WHERE task_id IN (
    SELECT task_id FROM main.deliveries INDEXED BY deliveries_under_way
    WHERE state IN (1, 2) AND +state = {int(State.MOVING)}
    AND task_id IN (SELECT task_id FROM temp.left_behind))"""  # noqa: S608 — a number


def failed(journal: JournalReader, question: Question = _ALL) -> Iterator[Record]:
    """Yield the deliveries that failed, in the order of their arrival; read as they are taken.

    Those that are meant by a question without paths.
    """
    if question.can_be_met:
        for page in _pages(journal.connection, Selection(all=True, narrowed=question)):
            yield from page


def selected(journal: JournalReader, selection: Selection) -> Iterator[Record]:
    """Yield the failed deliveries that are selected, each once."""
    seen: set[int] = set()
    for page in _pages(journal.connection, selection):
        fresh = [record for record in page if record.seq not in seen]
        if not selection.all:  # then nothing comes twice, and there may be millions
            seen.update(record.seq for record in fresh)
        yield from fresh


def count_failed(journal: JournalReader, question: Question = _ALL) -> int:
    """Return how many failed deliveries are meant by a question without paths."""
    if not question.can_be_met:
        return 0
    conditions = answers.conditions(question)
    if not conditions:
        query = f"SELECT coalesce(sum(count), 0) FROM tallies WHERE state = {_FAILED}"  # noqa: S608 — a number
        return int(journal.connection.execute(query).fetchone()[0])
    where = Condition.all(conditions)
    row = journal.connection.execute(_COUNTED.format(where.text), where.parameters).fetchone()
    return int(row[0])


class FailedGroup(NamedTuple):
    """Failed deliveries to one broker with one task, for one reason."""

    broker: str | None
    task: str | None
    reason: str
    ages: tuple[int, ...]
    """How many arrived at or after each of the times that were given, each counted once; the last
    ones before all of them."""


def failed_groups(
    journal: JournalReader, question: Question, times_ns: Sequence[int]
) -> list[FailedGroup]:
    """Count the failed deliveries that are meant, the largest group first.

    ``times_ns`` are the limits of their ages, the latest first. Where there are more than
    :data:`GROUPS` reasons, the last group is that of all others.
    """
    if not question.can_be_met:
        return []
    ages, later = [], LARGEST
    for earliest in (*times_ns, SMALLEST):
        ages.append(f"sum(arrived_ns BETWEEN {earliest} AND {later})")
        later = earliest - 1
    where = Condition.all(answers.conditions(question))
    query = _GROUPED.format(ages=", ".join(ages), where=where.text)
    found: list[FailedGroup] = []
    others = [0] * len(ages)
    for broker, task, reason, _, *numbers in journal.connection.execute(query, where.parameters):
        if len(found) < GROUPS:
            found.append(FailedGroup(broker, task, reason or "", tuple(numbers)))
        else:
            others = [sum(pair) for pair in zip(others, numbers, strict=True)]
    if any(others):
        found.append(FailedGroup(None, None, "other reasons", tuple(others)))
    return found


class Selection(NamedTuple):
    """Which failed deliveries an operator means."""

    seqs: frozenset[int] = frozenset()
    paths: tuple[str, ...] = ()
    """As in :func:`history`."""
    all: bool = False
    narrowed: Question = _ALL
    """What must hold of them besides; without paths."""

    def parts(self) -> Iterator[tuple[Condition, Question]]:
        """Yield what holds for them in SQL, and what has to be asked of each then."""
        if not self.narrowed.can_be_met:
            return
        besides = answers.conditions(self.narrowed)
        if self.all:
            yield Condition.all(besides), _ALL
            return
        for seqs in _cut(sorted(self.seqs), _SEQS):
            some = Condition(f"seq IN ({','.join('?' * len(seqs))})", *seqs)
            yield Condition.all([some, *besides]), _ALL
        for paths in _cut(self.paths, _PATHS):
            question = Question(tuple(paths))
            yield Condition.all([*answers.conditions(question), *besides]), question


def _cut(values: Sequence[Any], length: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), length):
        yield values[start : start + length]


def _pages(connection: sqlite3.Connection, selection: Selection) -> Iterator[list[Record]]:
    """Yield the failed deliveries that are meant; what two parts mean and leave comes twice."""
    for where, question in selection.parts():
        query, after = _PAGED.format(where.text), 0
        while rows := connection.execute(query, (after, *where.parameters, PAGE)).fetchall():
            after = rows[-1][0]
            yield [answers.record(row) for row in rows if answers.is_meant(question, row)]


class OperatorChanges:
    """What came of a command for failed deliveries. Can be asked until its context ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.changed = RecordTable(connection, "changed")
        """Those that were changed, in their new state."""
        self.unsendable = RecordTable(connection, "unsendable")
        """Those that stay as they are since nobody could send them, with the reason."""
        self._left_behind = RecordTable(connection, "left_behind")

    def left_behind(self) -> Iterable[Record]:
        """Return those changed ones that were to be moved, unless the same is being moved again."""
        connection = self._connection
        connection.execute(
            "INSERT OR IGNORE INTO temp.left_behind "
            "SELECT * FROM temp.changed WHERE final IS NOT NULL AND final IS NOT source"
        )
        connection.execute(_BEING_MOVED)
        return self._left_behind


@contextlib.contextmanager
def retry(
    state_dir: str,
    selection: Selection,
    is_moved: Callable[[Record], bool],
    brokers: Collection[str] | None = None,
    by: str = "",
) -> Iterator[OperatorChanges]:
    """Put failed deliveries back on their way.

    ``is_moved`` says whether a delivery's file is already at its final path: FAILED does not
    tell at which step it failed. What is for none of ``brokers``, where they are known, is
    unsendable. A running daemon finds the others when it is told, or with its next heartbeat.
    ``by`` is who does it, for the history. Raises JournalError.
    """

    def back(record: Record) -> tuple[State, str]:
        if brokers is not None and record.broker is not None and record.broker not in brokers:
            return State.FAILED, f"there is no broker {record.broker!r} in BROKERS; define it again"
        why = bundles.why_unsendable(connection, record.seq)
        if why:
            return State.FAILED, f"{why}; upload the set again"
        if record.final != record.source and not is_moved(record):
            return State.MOVING, ""
        return (State.MOVED if record.task is None else State.READY), ""

    with writing(state_dir) as connection:
        yield _change(connection, selection, back, by)


@contextlib.contextmanager
def discard(state_dir: str, selection: Selection, by: str) -> Iterator[OperatorChanges]:
    """Give failed deliveries up for ``by``; the files stay where they are. Raises JournalError."""
    with writing(state_dir) as connection:
        yield _change(connection, selection, lambda _: (State.VANISHED, f"{DISCARDED}{by}"))


def _change(
    connection: sqlite3.Connection,
    selection: Selection,
    decide: Callable[[Record], tuple[State, str]],
    retried_by: str = "",
) -> OperatorChanges:
    """Change failed deliveries, a bounded number in a transaction: the daemon may be writing."""
    changes = OperatorChanges(connection)
    for chosen in _pages(connection, selection):
        page = chosen + _rest_of_sets(connection, chosen)
        # Decided before the transaction: it may mean looking at a slow disk.
        decided = [(record, decide(record)) for record in page]
        changes.unsendable.add(
            one._replace(reason=why) for one, (state, why) in decided if state is State.FAILED
        )
        new_states = [(one, *new) for one, new in decided if new[0] is not State.FAILED]
        if new_states:
            begun = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            changed = _apply(connection, new_states)
            changes.changed.add(changed)
            if retried_by:
                now = time.time_ns()
                acts.note(connection, (Act(o.seq, now, acts.RETRIED, retried_by) for o in changed))
            connection.execute("COMMIT")
            if len(chosen) == PAGE:
                # Half of the time is the daemon's: SQLite's lock knows no turns.
                time.sleep(time.monotonic() - begun)
    return changes


def _rest_of_sets(connection: sqlite3.Connection, page: Sequence[Record]) -> list[Record]:
    """Return what failed together with deliveries: nobody acts on a part of a set."""
    if not page or connection.execute("SELECT 1 FROM bundles LIMIT 1").fetchone() is None:
        return []
    seqs = [record.seq for record in page]
    query = _REST_OF_SETS.format(marks=",".join("?" * len(seqs)))
    return [answers.record(row) for row in connection.execute(query, [*seqs, *seqs])]


def _apply(
    connection: sqlite3.Connection, new_states: Sequence[tuple[Record, State, str]]
) -> list[Record]:
    """Give failed deliveries their new states, within a transaction; return what they are now."""
    now = time.time_ns()
    changed: list[Record] = []
    # Before any of them leaves its batch.
    concerned = bundles.of_rows(connection, [record.seq for record, _, _ in new_states])
    for record, state, reason in new_states:
        wanted = record._replace(state=state, noted_ns=now, reason=reason)
        other = wanted._replace(state=State.VANISHED, reason=_UNDER_WAY)
        # The same arrival may have been found again since it failed: once is enough.
        changed += itertools.islice((one for one in (wanted, other) if _set(connection, one)), 1)
    _recount(connection, changed)
    if any(one.state is not State.VANISHED for one in changed):
        bundles.take_as_they_are(connection, concerned)
    vanished = [(one.seq, one.reason) for one in changed if one.state is State.VANISHED]
    states.settle_bundles(connection, concerned, vanished, now)
    return changed


def _set(connection: sqlite3.Connection, record: Record) -> bool:
    """Give a failed delivery its new state; False if it is not failed, or under way otherwise."""
    cursor = connection.execute(
        _SET,
        (int(record.state), record.noted_ns, record.reason or None, record.seq, _FAILED),
    )
    return cursor.rowcount > 0


def _recount(connection: sqlite3.Connection, changed: Sequence[Record]) -> None:
    """Count deliveries that had failed in their new states."""
    for broker, number in Counter(record.broker or "" for record in changed).items():
        tallies.take(connection, TallyKey(broker, _FAILED), number)
    keys = [
        TallyKey(record.broker or "", int(record.state), record.reason.startswith(DISCARDED))
        for record in changed
    ]
    oldest: dict[TallyKey, int] = {}
    for key, record in zip(keys, changed, strict=True):
        oldest[key] = min(record.arrived_ns, oldest.get(key, record.arrived_ns))
    for key, number in Counter(keys).items():
        tallies.add(connection, key, number, oldest[key], changed[0].noted_ns)
