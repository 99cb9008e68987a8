"""Recording, paging and noting deliveries.

Every method that writes returns only when its commit is on disk; while the disk is full or fails,
it waits.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, takewhile
from operator import itemgetter
from typing import Any, NamedTuple, cast

from watchman.errors import JournalError
from watchman.journal import archive, counters, digests, tallies
from watchman.journal.batches import Bundles, Joining
from watchman.journal.database import Database
from watchman.journal.digesting import Digests
from watchman.journal.ended import EndedDeliveries
from watchman.journal.holds import Holds
from watchman.journal.known import KnownVersions
from watchman.journal.measures import Measures, measures
from watchman.journal.moves import Moves
from watchman.journal.noting import NotedDeliveries
from watchman.journal.partial import PartialTable
from watchman.journal.pruning import Pruned, Pruner
from watchman.journal.ready import ReadyDeliveries
from watchman.journal.route_table import Routes
from watchman.journal.states import TOGETHER
from watchman.journal.under_way import UnderWay, in_conflict, under_way
from watchman.journal.uploads import Uploads
from watchman.journal.watch_runs import WatchRuns
from watchman.journal.write_retry import WriteRetry
from watchman.model import INCOMPLETE, Delivery, Move, Noted, Route, State, Version, record_of
from watchman.soft_lock import soft_lock
from watchman.text import PATHS, printable

log = logging.getLogger("watchman.journal")


class NewDelivery(NamedTuple):
    """An arrival as it is recorded."""

    task_id: str
    source: str
    final: str | None
    """The destination where MOVES has one."""
    version: Version
    arrived_ns: int
    route: Route | None
    kind: str = "files"
    unless: str = ""
    """The task id under which this very arrival may be under way already."""
    move: Move | None = None
    """The MOVES entry that leads to ``final``."""
    told: str = ""
    """As in ``Delivery``."""
    failed: str = ""
    """Why it is recorded as FAILED; empty for an arrival on its way."""
    set_id: str = ""
    """The task id of the set that it belongs to, whose files are recorded together, the one that
    gives its path to the task first; empty for none."""


def _is_noted(one: NewDelivery | NotedVersion) -> bool:
    return not isinstance(one, NewDelivery)


def _insert_all(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows in their order; return how many were, without those under way already."""
    whole, inserted = len(rows) - len(rows) % _AT_ONCE, 0
    for start in range(0, whole, _AT_ONCE):
        values = [*chain.from_iterable(rows[start : start + _AT_ONCE])]
        inserted += connection.execute(_INSERT_SOME, values).rowcount
    return inserted + connection.executemany(_INSERT, rows[whole:]).rowcount


class Doubled(NamedTuple):
    """An arrival that was not recorded: a delivery with its task id is under way."""

    delivery: NewDelivery
    is_moved: bool
    """As in ``UnderWay``."""


class _Inserted(NamedTuple):
    """What became of the deliveries of one transaction."""

    doubled: list[Doubled]
    failed: list[int]
    """The seqs of those that are recorded as FAILED."""


NotedVersion = tuple[str, Version] | tuple[str, Version, Noted]
"""What becomes known without a delivery: path, version, why."""

_SELECT = """SELECT seq, task_id, source, final, device, inode, size, mtime_ns, changed_ns,
    arrived_ns, route, state, kind, told, bundle FROM deliveries """
_AT_ONCE = 20
"""Rows that one statement inserts: a third less work in SQLite than one by one, and the lock of the
interpreter changes hands once for all of them. With more nothing is gained beyond that."""
_INSERT, _INSERT_SOME = (
    f"""INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns,
    changed_ns, arrived_ns, broker, route, kind, state, noted_ns, move, told)
    VALUES {",".join(["(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"] * number)}
    ON CONFLICT (inode, task_id) WHERE state IN (1, 2) DO NOTHING"""
    for number in (1, _AT_ONCE)
)
_MOVING_OF = "WHERE state = 1 AND move IS ? AND seq > ? ORDER BY seq LIMIT ?"
_NEXT_MOVE = "SELECT move FROM deliveries WHERE state = 1 AND move > ? ORDER BY move LIMIT 1"
_REDIRECT = "UPDATE deliveries SET final = ? WHERE seq = ? AND state = 1"
_SOURCE, _VERSION, _ARRIVED, _BROKER, _KIND, _STATE = 2, slice(4, 9), 9, 10, 12, 13
"""Where they are in what is inserted."""
_BROKER_AND_STATE = itemgetter(_BROKER, _STATE)
_MOST_SAID = 10_000
# Plain integers: sqlite3 converts an enum's member several times slower.
_MOVING, _READY, _FAILED = int(State.MOVING), int(State.READY), int(State.FAILED)
_UNASKED = int(Noted.UNASKED)
_NO_VERSION = Version(0, 0, 0, 0)
_STATES = {int(state): state for state in State}


class Journal(WatchRuns, EndedDeliveries, ReadyDeliveries, NotedDeliveries):
    """The journal in the directory ``state_dir``, which must exist.

    ``give_up()`` is asked whenever it has to wait, or while one of an older version is brought up
    to date: whether to stop. Raises JournalError where it cannot be opened.
    """

    def __init__(self, state_dir: str, give_up: Callable[[], bool] = lambda: False) -> None:
        self._database = Database(os.path.join(state_dir, "journal.db"), give_up)
        self.known = KnownVersions(self._database)
        self._routes = Routes(self._database)
        self._moves = Moves(self._database)
        self._pruner = Pruner(self._database)
        self.digests = Digests(self._database)
        self.partial = PartialTable(self._database)
        """Files that do not meet their criteria."""
        self.uploads = Uploads(self._database)
        self.holds = Holds(self._database)
        self.bundles = Bundles(self._database)
        try:
            self.holds.refresh()
            self.bundles.load()
            last = self._database.reader.execute("SELECT max(seq) FROM deliveries")[0][0] or 0
            # Where the journal was begun anew, the archive has the greater numbers.
            last = max(last, archive.last_seq(state_dir))
        except OSError as error:
            self._database.close()
            raise JournalError(
                f"the history in {archive.directory_of(state_dir)} cannot be listed: "
                f"{error.strerror}; check the directory's permissions"
            ) from error
        except BaseException:
            self._database.close()
            raise
        self._next_seq = last + 1
        self._unrecorded: set[str] = set()
        """Paths of rows that the database did not take, and that has been said."""

    @property
    def path(self) -> str:
        """The database file."""
        return self._database.path

    @property
    def write_retry(self) -> WriteRetry:
        """What is done while the disk is full or fails, and why it is at the moment."""
        return self._database.write_retry

    @property
    def in_place(self) -> bool:
        """Whether the file is still there; if not, :meth:`close` writes it anew."""
        return self._database.in_place

    @property
    def damage(self) -> str:
        """What a sound file would not have said; empty while there is nothing of the kind.

        Nobody can go on with it then: it is to be closed and opened again.
        """
        return self._database.damage

    @property
    def sound(self) -> bool:
        """Whether the file is still there, and no damage was met in it."""
        return not self.damage and self.in_place

    def when_damaged(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, by whichever thread meets damage; it must not wait."""
        self._database.on_damage = call

    def shut_out(self, thread: threading.Thread) -> None:
        """Raise JournalError for all that a thread writes from now on: it hung and was left."""
        self._database.shut_out(thread)

    def suspect(self) -> None:
        """Have the file checked at the next start, as after a crash."""
        self._database.suspect()

    def close(self) -> None:
        """Close the journal; it cannot be used afterwards.

        Raises JournalError where its file was removed or replaced and cannot be written anew.
        """
        self._database.close()

    # Recording

    def record(
        self,
        deliveries: Sequence[NewDelivery],
        noted: Iterable[NotedVersion] = (),
        gone: Iterable[str] = (),
    ) -> list[Doubled]:
        """Record arrivals and make their versions known, in one commit.

        ``deliveries`` come in the order in which they are to be sent; ``noted`` are versions,
        (path, version, why) each, that become known without a delivery; ``gone`` are paths that
        are to be forgotten. Return those that were not recorded, as a delivery with the same task
        id is under way: known as that delivery, unless that has left their path.
        """
        now = time.time_ns()
        forgotten = self.known.keys(gone)
        everything: list[NewDelivery | NotedVersion] = [*noted, *deliveries]
        if not (everything or forgotten):
            return []  # nor wait for whoever is writing

        def work(
            connection: sqlite3.Connection, part: Sequence[NewDelivery | NotedVersion]
        ) -> _Inserted:
            if part[:1] == everything[:1]:
                self.known.drop(connection, forgotten)
            return self._insert(connection, part, now)

        inserted = self._database.write_each(everything, work, self._left_out)
        self._tell_failed([seq for one in inserted for seq in one.failed])
        return [doubled for one in inserted for doubled in one.doubled]

    def _insert(
        self,
        connection: sqlite3.Connection,
        part: Sequence[NewDelivery | NotedVersion],
        now: int,
    ) -> _Inserted:
        """Insert rows within a transaction."""
        noted = cast(list[NotedVersion], list(takewhile(_is_noted, part)))
        deliveries = cast(Sequence[NewDelivery], part[len(noted) :])
        # Files and finished directories are recorded by two threads: numbers are taken here,
        # one writer at a time. One that is skipped does no harm.
        first = self._free_seq(connection)
        self._next_seq = first + len(deliveries)
        rows, unusual = self._rows(connection, deliveries, first, now)
        there: dict[int, UnderWay] = {}
        for seq, new in unusual:
            if new.unless and new.unless != new.task_id:
                found = under_way(connection, new.version.inode, new.unless)
                if found is not None and not found.is_moved:
                    there[seq] = found
        if there:
            rows = [row for row in rows if row[0] not in there]
        if _insert_all(connection, rows) < len(rows):
            ids = [(seq, d.version.inode, d.task_id) for seq, d in enumerate(deliveries, first)]
            there |= in_conflict(connection, ids, there)
            rows = [row for row in rows if row[0] not in there]
        self._count(connection, rows, now)
        self._judge_new(connection, [one for one in unusual if one[0] not in there])
        versions: list[tuple[bytes, Sequence[int], int]] = [
            (one[0].encode(*PATHS), one[1], int(one[2]) if len(one) > 2 else 0) for one in noted
        ]
        versions += [(row[_SOURCE], row[_VERSION], row[0]) for row in rows]
        for seq, found in there.items():
            if not found.is_moved:
                new = deliveries[seq - first]
                versions.append((new.source.encode(*PATHS), new.version, found.seq))
        self.known.remember(connection, versions)
        unmatched = sum(why == _UNASKED for _, _, why in versions[: len(noted)])
        counters.add(connection, {(counters.UNMATCHED, "", 0): unmatched})
        self.uploads.recorded(connection, (row for row in rows if row[_KIND] == "files"), now)
        return _Inserted(
            [Doubled(deliveries[seq - first], found.is_moved) for seq, found in there.items()],
            [seq for seq, new in unusual if new.failed and seq not in there],
        )

    def _rows(
        self,
        connection: sqlite3.Connection,
        deliveries: Sequence[NewDelivery],
        first: int,
        now: int,
    ) -> tuple[list[tuple[Any, ...]], list[tuple[int, NewDelivery]]]:
        """Return what is inserted, and by seq those deliveries of which there is more to do."""
        rows: list[tuple[Any, ...]] = []
        unusual: list[tuple[int, NewDelivery]] = []
        last: Route | None = None
        broker, number, in_batch = None, None, False
        for seq, new in enumerate(deliveries, first):
            id_, source, final, version, arrived, route, kind, unless, move, told, failed, of = new
            if route is not last:  # nearly all are like the one before
                last = route
                broker = None if route is None else route.broker
                number = None if route is None else self._routes.number(connection, route)
                in_batch = route is not None and route.batch is not None
            state = _READY if final is None else _MOVING
            rows.append(
                (
                    seq,
                    id_,
                    source.encode(*PATHS),
                    None if final is None else final.encode(*PATHS),
                    *version,
                    arrived,
                    broker,
                    number,
                    kind,
                    _FAILED if failed else state,
                    now,
                    None if move is None else self._moves.number(connection, move),
                    told or None,
                )
            )
            if in_batch or told or failed or of or (unless and unless != id_):
                unusual.append((seq, new))
        return rows, unusual

    def _judge_new(
        self, connection: sqlite3.Connection, unusual: Sequence[tuple[int, NewDelivery]]
    ) -> None:
        """Note why some have failed, or are incomplete; have others join sets and batches."""
        failed = [(new.failed, seq) for seq, new in unusual if new.failed]
        if failed:
            connection.executemany("UPDATE deliveries SET reason = ? WHERE seq = ?", failed)
        incomplete = sum((new.told or new.failed).startswith(INCOMPLETE) for _, new in unusual)
        counters.add(connection, {(counters.INCOMPLETE, "", 0): incomplete})
        sets: dict[str, list[int]] = {}
        joining: list[Joining] = []
        for seq, new in unusual:
            if new.set_id:
                sets.setdefault(new.set_id, []).append(seq)
            elif new.failed:
                continue
            elif new.route is not None and new.route.batch and new.final is None:
                number = self._routes.number(connection, new.route)
                joining.append(Joining(seq, number, new.route, new.source))
        if sets:
            self.bundles.record_sets(connection, sets)
        self.bundles.join(connection, joining)

    def _free_seq(self, connection: sqlite3.Connection) -> int:
        """Return the next seq, within a transaction: `notify resend` may have taken some."""
        (last,) = connection.execute("SELECT max(seq) FROM deliveries").fetchone()
        return max(self._next_seq, (last or 0) + 1)

    @staticmethod
    def _count(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], now: int) -> None:
        for (broker, state), number in Counter(map(_BROKER_AND_STATE, rows)).items():
            key = tallies.TallyKey(broker or "", state)
            tallies.add(connection, key, number, rows[0][_ARRIVED], now, recorded=True)

    def _left_out(self, row: NewDelivery | NotedVersion, error: Exception) -> None:
        path = row.source if isinstance(row, NewDelivery) else row[0]
        if path in self._unrecorded or len(self._unrecorded) >= _MOST_SAID:
            return
        self._unrecorded.add(path)
        reason = printable(f"{type(error).__name__}: {error}")
        log.error(
            "Not recorded: %s: %s; it stays where it is, and no task is sent for it. Give it "
            "another time or name, and report this",
            printable(path),
            reason,
        )
        if isinstance(row, NewDelivery):
            self._set_aside(row, f"it could not be recorded as it is: {reason}")

    def _set_aside(self, new: NewDelivery, reason: str) -> None:
        """Record what an operator has to know of a row, with nothing that SQLite refuses."""
        harmless = new._replace(
            task_id=printable(new.task_id), version=_NO_VERSION, kind="files", final=None
        )

        def work(connection: sqlite3.Connection) -> int:
            seq = self._free_seq(connection)
            self._next_seq = seq + 1
            ((row,), _) = self._rows(connection, [harmless], seq, time.time_ns())
            connection.execute(_INSERT, row)
            connection.execute(
                "UPDATE deliveries SET state = ?, reason = ? WHERE seq = ?",
                (int(State.FAILED), reason, seq),
            )
            failed = (*row[:_STATE], int(State.FAILED), *row[_STATE + 1 :])
            self._count(connection, [failed], time.time_ns())
            return seq

        self._tell_failed([self._database.write(work)])

    def _tell_failed(self, seqs: Sequence[int]) -> None:
        for start in range(0, len(seqs), TOGETHER):
            self._when_failed(self._at(seqs[start : start + TOGETHER]))

    # Paging

    def page_moving(self, move: Move, after: int, limit: int) -> list[Delivery]:
        """Return deliveries in state MOVING of a MOVES entry behind ``after``, by seq."""
        return self._page(_MOVING_OF, (self._moves.known(move), after, limit))

    def moving(self, seq: int) -> Delivery | None:
        """Return a delivery as it is by now, if it is in state MOVING."""
        return next(iter(self._page("WHERE seq = ? AND +state = 1", (seq,))), None)

    def page_strays(self, moves: Iterable[Move], limit: int) -> list[Delivery]:
        """Return deliveries in state MOVING of other MOVES entries than these, or of none.

        Those that an older watchman has recorded are of none.
        """
        current = set(map(self._moves.known, moves))
        page, number = self._page(_MOVING_OF, (None, 0, limit)), 0
        while not page:
            row = self._database.reader.execute(_NEXT_MOVE, (number,)).fetchone()
            if row is None:
                break
            (number,) = row
            if number not in current:
                page = self._page(_MOVING_OF, (number, 0, limit))
        return page

    def _page(self, where: str, parameters: tuple[Any, ...]) -> list[Delivery]:
        with soft_lock():
            rows = self._database.reader.execute(_SELECT + where, parameters)
        try:
            return self._deliveries(rows)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            self._database.found_damage(ValueError(f"a delivery in it is none: {error!r}"))

    def _deliveries(self, rows: Iterable[tuple[Any, ...]]) -> list[Delivery]:
        route_of = self._routes.get
        page = []
        for row in rows:
            seq, task_id, blob, path, *version, arrived_ns, route, state, kind, told, bundle = row
            source = blob.decode(*PATHS)
            final = source if path is None else path.decode(*PATHS)
            version = record_of(Version, version)
            route = None if route is None else route_of(route)
            told = "" if told is None else str(told)
            fields = (
                *(seq, task_id, source, final, version, arrived_ns, route),
                *(_STATES[state], kind, told, bundle),
            )
            page.append(record_of(Delivery, fields))
        return page

    # Noting

    def redirect(self, seq: int, final: str) -> None:
        """Change where a MOVING delivery goes."""
        path = os.fsencode(final)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_REDIRECT, (path, seq))
            digests.add(connection, seq, path)

        self._database.write(work)

    def assign(self, seqs: Sequence[int], move: Move) -> None:
        """Have deliveries be of a MOVES entry from now on."""
        marks = ",".join("?" * len(seqs))
        query = f"UPDATE deliveries SET move = ? WHERE seq IN ({marks})"
        self._database.write(
            lambda connection: connection.execute(
                query, (self._moves.number(connection, move), *seqs)
            )
        )

    def is_under_way(self, seq: int) -> bool:
        """Whether a delivery is neither sent nor ended."""
        query = "SELECT 1 FROM deliveries WHERE seq = ? AND state IN (1, 2)"
        return self._database.reader.execute(query, (seq,)).fetchone() is not None

    def measures(self) -> Measures:
        """Return what monitoring asks for, at a price that does not grow.

        Raises JournalError at once where it cannot be read: nobody waits for that.
        """
        return self._database.read_once(measures)

    def last_seq(self) -> int:
        """Return the seq of the last delivery that was recorded; 0 for none."""
        return self._next_seq - 1

    # Pruning

    def prune(self, before_ns: int) -> Pruned:
        """Drop a few finished deliveries noted before a time, if there are any."""
        return self._pruner.step(before_ns, self._next_seq - 1)
