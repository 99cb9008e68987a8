"""A deliberate second task for what was sent: a delivery of its own, READY from the beginning.

A running daemon finds it with its next heartbeat, as what ``retry`` has put back; one that starts
later finds it then. Who did it is in the table ``acts``. It arrives when it is made: times, counts
and the lease test hold for it as for any other. The archive knows only broker, task and uploader of
the first one, so from there the arguments are those of the pattern now, else of the last such
route, and no checksum is told.

A file that was never moved lies where uploaders write. It gets its second task only while the
journal knows it as it is, and is known as the second delivery from then on: what becomes of it is
noted there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from watchman.journal import acts, answers, archive, arguments, bundles, tallies, uploads
from watchman.journal.acts import Act
from watchman.journal.journal_reader import open_reader
from watchman.journal.operator_writes import RecordTable, writing
from watchman.journal.question import Question
from watchman.journal.record import Record
from watchman.journal.sealed import Segment
from watchman.model import BundleKind, Route, State, Upload, Version

PAGE = 250
"""Deliveries made in one transaction: some ms, since the daemon waits for it."""

_RESULTS = """CREATE TEMP TABLE results (first INTEGER PRIMARY KEY, second INTEGER, task_id TEXT,
    reason TEXT)"""
_INSERT = """INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns,
    changed_ns, arrived_ns, broker, route, kind, state, noted_ns, told)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?, (SELECT told FROM deliveries WHERE seq = ?))
    ON CONFLICT (inode, task_id) WHERE state IN (1, 2) DO NOTHING"""
_OF_DELIVERY = "SELECT route FROM deliveries WHERE seq = ? AND route IS NOT NULL"
_SAME_TASK = """SELECT * FROM temp.chosen WHERE task_id = ?
    AND NOT EXISTS (SELECT 1 FROM temp.results WHERE first = seq) ORDER BY seq"""
_OTHERS = f"""SELECT {answers.COLUMNS} FROM main.deliveries INDEXED BY deliveries_bundle
    LEFT JOIN routes ON routes.id = deliveries.route
    WHERE bundle > 0 AND +state = {int(State.SENT)}
    AND seq NOT IN (SELECT seq FROM temp.chosen) AND """  # noqa: S608 — our own words
# By the number where the journal has it: most of what is chosen is in no bundle.
_BY_NUMBER = """bundle IN (SELECT d.bundle FROM temp.chosen AS chosen
    JOIN main.deliveries AS d ON d.seq = chosen.seq WHERE d.bundle > 0)"""
_IS_CHOSEN = "SELECT 1 FROM temp.chosen WHERE seq = ?"
_BY_ID = "task_id IN (SELECT task_id FROM temp.chosen)"
_IDS_OF_ARCHIVED = """SELECT DISTINCT task_id FROM temp.chosen
    WHERE seq NOT IN (SELECT seq FROM main.deliveries)
    OR seq IN (SELECT seq FROM main.deliveries WHERE bundle > 0)"""
_ARGUMENTS = """SELECT routes.broker, task, arguments FROM deliveries
    JOIN routes ON routes.id = deliveries.route WHERE seq = ?"""
_ROUTE = "SELECT broker, task, arguments FROM routes WHERE id = ?"
_OF_ARGUMENTS = "SELECT id FROM routes WHERE broker = ? AND task = ? AND arguments = ?"
_OF_TASK = "SELECT max(id) FROM routes WHERE broker = ? AND task = ?"
_KNOWN_AS = """UPDATE known SET seq = ? WHERE name = ? AND inode = ? AND size = ? AND mtime_ns = ?
    AND directory = (SELECT id FROM directories WHERE path = ?)"""
_KNOWN_UNIT_AS = """UPDATE known SET seq = ? WHERE name = ?
    AND directory = (SELECT id FROM directories WHERE path = ?)"""


class Resent(NamedTuple):
    """What became of one that was chosen."""

    record: Record
    """The delivery that was sent."""
    seq: int = 0
    """That of the second delivery; 0 where there is none."""
    task_id: str = ""
    """That of the second task."""
    reason: str = ""
    """Why there is none."""


Look = Callable[[Record], Version | str]
"""Returns what is at a delivery's final path now, or why it gets no second task."""


class Resending:
    """Chosen deliveries, kept in a table on disk. Can be used until its context ends."""

    def __init__(self, connection: sqlite3.Connection, state_dir: str) -> None:
        self._connection = connection
        self._state_dir = state_dir
        self.unreadable: dict[str, None] = {}
        """A line for each part of the history that cannot be read."""
        self._first: dict[str, tuple[int, str]] = {}
        """Of tasks, by id: seq and path of the first of their files that nobody has asked for.

        It stays out where something newer is chosen at its path.
        """
        self.others = 0
        """How many are chosen only since one task has announced them with others."""
        self._chosen = RecordTable(connection, "chosen")
        connection.execute(_RESULTS)
        connection.execute("CREATE UNIQUE INDEX temp.one_each ON chosen (final)")
        connection.execute("CREATE INDEX temp.chosen_by_task ON chosen (task_id)")

    def choose(self, question: Question) -> int:
        """Choose what was sent and is meant, of each final path the newest; return how many more.

        ``question`` names no state. Raises JournalError.
        """
        before = self.count
        with open_reader(self._state_dir) as journal:
            self._chosen.add(answers.each(journal, question, self.unreadable))
        chosen = self.count
        if chosen > before:
            self._choose_others()
            self.others += self.count - chosen
        return self.count - before

    def _choose_others(self) -> None:
        """Choose as well what one task has announced together with what is chosen.

        The archive has no numbers of bundles: there the id of the task tells, which all of them
        have got from it.
        """
        ids = {task_id for (task_id,) in self._connection.execute(_IDS_OF_ARCHIVED)}
        which = f"({_BY_NUMBER} OR {_BY_ID})" if ids else _BY_NUMBER
        rows = self._connection.execute(f"{_OTHERS}{which} ORDER BY seq DESC").fetchall()
        self._keep_others(map(answers.record, rows))
        files: list[archive.SegmentFile] = []
        with contextlib.suppress(OSError):  # that has been said already
            files += archive.files(self._state_dir) if ids else ()
        for file in files:
            try:
                with contextlib.closing(Segment(file.path)) as segment:
                    self._keep_others(segment.sent_as(ids))
            except FileNotFoundError:
                pass  # it has just become too old
            except (sqlite3.Error, OSError) as error:
                self.unreadable[archive.unreadable(file, error)] = None

    def _keep_others(self, records: Iterable[Record]) -> None:
        for one in records:
            if self._connection.execute(_IS_CHOSEN, (one.seq,)).fetchone() is None:
                first = one.seq, one.final
                self._first[one.task_id] = min(first, self._first.get(one.task_id, first))
                self._chosen.add([one])

    @property
    def count(self) -> int:
        """How many are chosen."""
        return len(self._chosen)

    def carry_out(
        self,
        look: Look,
        route_of: Callable[[Record], Route | None],
        actor: str,
        *,
        same_id: bool = False,
        is_main_file: Callable[[Record], bool] = lambda _: False,
    ) -> None:
        """Make the second deliveries.

        ``route_of`` gives the route that a path has in the configuration: it is taken where the
        journal only knows broker and task of what was sent. ``is_main_file`` says whether it has
        a set there: the archive does not know that of a file to which no other belonged.
        """
        for page in self._pages():
            # Looked at before the transaction: the disk may be slow.
            looked = [
                (record, look(record), route_of(record), is_main_file(record)) for record in page
            ]
            begun = time.monotonic()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                made = self._make(looked, actor, same_id=same_id)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.executemany(
                "INSERT INTO temp.results VALUES (?,?,?,?)",
                [(one.record.seq, one.seq, one.task_id, one.reason) for one in made],
            )
            if len(page) >= PAGE:
                # Half of the time is the daemon's: SQLite's lock knows no turns.
                time.sleep(time.monotonic() - begun)

    def _pages(self) -> Iterator[list[Record]]:
        """Yield what is chosen, with what one task has announced together; about PAGE at a time.

        What came of a page must be among the results before the next one is taken.
        """
        page: dict[int, Record] = {}
        for record in self._chosen:
            if record.seq not in page:
                rows = self._connection.execute(_SAME_TASK, (record.task_id,)).fetchall()
                page |= {one.seq: one for one in map(answers.record, rows)}
            if len(page) >= PAGE:
                yield list(page.values())
                page = {}
        if page:
            yield list(page.values())

    def upload(self, record: Record) -> Upload | None:
        """Return what a transfer log tells of the upload that a delivery came by."""
        return uploads.read(self._connection, [record.seq]).get(record.seq)

    def results(self) -> Iterator[Resent]:
        """Yield what became of each that was chosen, read as they are taken.

        What is sent does not depend on how far somebody reads.
        """
        query = "SELECT second, task_id, reason FROM temp.results WHERE first = ?"
        for record in self._chosen:
            yield Resent(record, *self._connection.execute(query, (record.seq,)).fetchone())

    def _make(
        self,
        looked: Sequence[tuple[Record, Version | str, Route | None, bool]],
        actor: str,
        *,
        same_id: bool,
    ) -> list[Resent]:
        now = time.time_ns()
        seq = self._last_seq()
        made: list[Resent] = []
        tasks = Counter(record.task_id for record, *_ in looked)
        together: dict[str, list[int]] = {}
        main_files: dict[str, Resent] = {}
        for record, version, route, has_set in looked:
            # Of several with one id none may be under way under it but their bundle.
            several = has_set or tasks[record.task_id] > 1 or self._is_bundled(record)
            task_id = record.task_id if same_id and not several else str(uuid.uuid4())
            if self._lacks_main_file(record, route, main_files.get(record.task_id)):
                reason = "the main file of its set is left out"
            elif isinstance(version, str):
                reason = version
            else:
                reason = self._insert(record, seq + 1, task_id, version, route, now)
            if not reason:
                seq += 1
                acts.note(self._connection, [Act(record.seq, now, acts.RESENT, actor, seq)])
                if several:
                    together.setdefault(record.task_id, []).append(seq)
            made.append(Resent(record, 0 if reason else seq, "" if reason else task_id, reason))
            main_files.setdefault(record.task_id, made[-1])
        bundled = self._bundle(together, same_id=same_id)
        made = [one._replace(task_id=bundled.get(one.seq, one.task_id)) for one in made]
        for broker in {one.record.broker or "" for one in made if one.seq}:
            number = sum(1 for one in made if one.seq and one.record.broker == broker)
            key = tallies.TallyKey(broker, int(State.READY))
            tallies.add(self._connection, key, number, now, now)
        return made

    def _lacks_main_file(
        self, record: Record, route: Route | None, main_file: Resent | None
    ) -> bool:
        """Say whether a file is of a set of which the main file is not sent again.

        ``main_file`` is the first of its task that was tried, None where it is that itself.
        """
        if main_file is not None:
            is_there = not main_file.reason
        else:
            # By its path too: it may have been sent again under the same id.
            first = self._first.get(record.task_id)
            is_there = first is None or first[0] >= record.seq or first[1] == record.final
        if is_there:
            return False
        row = self._connection.execute(_ROUTE, (self._route(record, route),)).fetchone()
        return row is None or arguments.decode(*row).batch is None

    def _is_bundled(self, record: Record) -> bool:
        """Whether a delivery was announced together with others, as far as the journal tells."""
        query = "SELECT 1 FROM deliveries WHERE seq = ? AND bundle > 0"
        return self._connection.execute(query, (record.seq,)).fetchone() is not None

    def _bundle(self, together: Mapping[str, Sequence[int]], *, same_id: bool) -> dict[int, str]:
        """Have one task announce again what one has announced; its id, by seq."""
        found: dict[int, str] = {}
        for before, seqs in together.items():
            task_id = before if same_id else str(uuid.uuid4())
            row = self._connection.execute(_ARGUMENTS, (seqs[0],)).fetchone()
            route = None if row is None else arguments.decode(*row)
            kind = BundleKind.BATCH if route is not None and route.batch else BundleKind.SET
            bundle = bundles.insert(self._connection, task_id, kind)
            bundles.join(self._connection, bundle, seqs)
            bundles.settle(self._connection, bundle)
            found |= dict.fromkeys(seqs, task_id)
        return found

    def _last_seq(self) -> int:
        """Return the greatest seq of all: the daemon, too, counts on from it."""
        (last,) = self._connection.execute("SELECT max(seq) FROM deliveries").fetchone()
        return max(last or 0, archive.last_seq(self._state_dir))

    def _insert(
        self,
        record: Record,
        seq: int,
        task_id: str,
        version: Version,
        route: Route | None,
        now: int,
    ) -> str:
        """Make a second delivery within a transaction; return why not, empty if it is made."""
        connection = self._connection
        waiting = acts.second_under_way(connection, record.seq)
        if waiting:
            return f"its second task, {waiting}, has not been sent yet"
        number = self._route(record, route)
        if number is None:
            return "the journal does not know the arguments of its task any more"
        final = None if record.final == record.source else os.fsencode(record.final)
        cursor = connection.execute(
            _INSERT,
            (
                *(seq, task_id, os.fsencode(record.source), final, *version, now),
                *(record.broker, number, record.kind, int(State.READY), now, record.seq),
            ),
        )
        if not cursor.rowcount:
            return "a task with the same id has not been sent yet"
        if final is None and not self._know(record, seq, version):
            connection.execute("DELETE FROM deliveries WHERE seq = ?", (seq,))
            return "what is at its path now is another upload, or not known"
        uploads.copy(connection, record.seq, seq, now)
        return ""

    def _route(self, record: Record, route: Route | None) -> int | None:
        """Return the number of the route with which it was sent, as far as that can be told."""
        queries: list[tuple[str, tuple[Any, ...]]] = [(_OF_DELIVERY, (record.seq,))]
        key = record.broker, record.task
        if route is not None and (route.broker, route.task) == key:
            queries.append((_OF_ARGUMENTS, (*key, arguments.encode(route))))
        for query, parameters in (*queries, (_OF_TASK, key)):
            row = self._connection.execute(query, parameters).fetchone()
            if row is not None and row[0] is not None:
                return int(row[0])
        return None

    def _know(self, record: Record, seq: int, version: Version) -> bool:
        """Have what is at the source known as the second delivery; False if it is not known so."""
        directory, _, name = os.fsencode(record.source).rpartition(b"/")
        if record.kind == "directories":
            return bool(self._connection.execute(_KNOWN_UNIT_AS, (seq, name, directory)).rowcount)
        key = (seq, name, version.inode, version.size, version.mtime_ns, directory)
        return bool(self._connection.execute(_KNOWN_AS, key).rowcount)


@contextlib.contextmanager
def resending(state_dir: str) -> Iterator[Resending]:
    """Open the journal for sending again. Raises JournalError."""
    with writing(state_dir) as connection:
        yield Resending(connection, state_dir)
