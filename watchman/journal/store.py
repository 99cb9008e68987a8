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
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from watchman.errors import JournalError
from watchman.journal import archive, tallies
from watchman.journal.database import Database
from watchman.journal.ended import EndedDeliveries
from watchman.journal.known import KnownVersions
from watchman.journal.patience import Patience
from watchman.journal.pruning import Pruned, Pruner
from watchman.journal.routes import Routes
from watchman.journal.watches import WatchRuns
from watchman.model import Delivery, Noted, Route, State, Version
from watchman.text import PATHS, printable
from watchman.turns import turn

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


NotedVersion = tuple[str, Version] | tuple[str, Version, Noted]
"""What becomes known without a delivery: path, version, why."""

_SELECT = """SELECT seq, task_id, source, final, device, inode, size, mtime_ns, changed_ns,
    arrived_ns, route, state, kind FROM deliveries """
_INSERT = """INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns,
    changed_ns, arrived_ns, broker, route, kind, state, noted_ns)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (inode, task_id) WHERE state IN (1, 2)
    DO NOTHING"""
_NOTE = "UPDATE deliveries SET state = ?, noted_ns = ?, reason = ? WHERE seq IN"
_SOURCE, _ARRIVED, _BROKER, _STATE = 2, 9, 10, 13
"""Where they are in what is inserted."""
_BROKER_AND_STATE = itemgetter(_BROKER, _STATE)
_WHERE_STILL = "AND +state = ?"
"""With the plus sign SQLite does not think of an index, nor goes through the rows twice."""
_MOST_SAID = 10_000
_TOGETHER = 500
"""Rows noted by one statement: SQLite takes 32,766 parameters, in old versions 999."""
# Plain integers: sqlite3 converts an enum's member several times slower.
_MOVING, _READY = int(State.MOVING), int(State.READY)
_NO_VERSION = Version(0, 0, 0, 0)
_FILES = "files"
_STATES = {int(state): state for state in State}


class Journal(WatchRuns, EndedDeliveries):
    """The journal in the directory ``state_dir``, which must exist.

    Raises JournalError where it cannot be opened.
    """

    def __init__(self, state_dir: str) -> None:
        self._database = Database(os.path.join(state_dir, "journal.db"))
        self.known = KnownVersions(self._database)
        self._routes = Routes(self._database)
        self._pruner = Pruner(self._database)
        try:
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
    def patience(self) -> Patience:
        """What is done while the disk is full or fails, and why it is at the moment."""
        return self._database.patience

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
    ) -> list[NewDelivery]:
        """Record arrivals and make their versions known, in one commit.

        ``deliveries`` come in the order in which they are to be sent; ``noted`` are versions,
        (path, version, why) each, that become known without a delivery; ``gone`` are paths that
        are to be forgotten. Return those of which a delivery with the same task id is under way:
        they were not recorded again, and are known as that delivery.
        """
        now = time.time_ns()
        forgotten = self.known.keys(gone)
        everything: list[NewDelivery | NotedVersion] = [*noted, *deliveries]

        def work(
            connection: sqlite3.Connection, part: Sequence[NewDelivery | NotedVersion]
        ) -> list[NewDelivery]:
            if part[:1] == everything[:1]:
                self.known.drop(connection, forgotten)
            return self._insert(connection, part, now)

        return list(chain(*self._database.write_each(everything, work, self._left_out)))

    def _insert(
        self,
        connection: sqlite3.Connection,
        part: Sequence[NewDelivery | NotedVersion],
        now: int,
    ) -> list[NewDelivery]:
        """Insert rows within a transaction; return those that are under way already."""
        versions: list[tuple[bytes, Version, int]] = []
        rows: list[tuple[Any, ...]] = []
        deliveries: list[NewDelivery] = []
        there: dict[int, int] = {}
        # Files and finished directories are recorded by two threads: numbers are taken here,
        # one writer at a time. One that is skipped does no harm.
        first = seq = self._next_seq
        for new in part:
            if not isinstance(new, NewDelivery):
                why = int(new[2]) if len(new) > 2 else 0
                versions.append((new[0].encode(*PATHS), new[1], why))
                continue
            row = self._row(connection, seq, new, now)
            found = 0
            if new.unless and new.unless != new.task_id:
                found = _under_way(connection, new.version.inode, new.unless)
            if found:
                there[seq] = found
            else:
                rows.append(row)
            versions.append((row[_SOURCE], new.version, found or seq))
            deliveries.append(new)
            seq += 1
        self._next_seq = seq
        if connection.executemany(_INSERT, rows).rowcount < len(rows):
            conflicting = _conflicting(connection, list(enumerate(deliveries, first)), there)
            versions = [
                (path, version, conflicting.get(seq, seq)) for path, version, seq in versions
            ]
            there |= conflicting
            rows = [row for row in rows if row[0] not in there]
        self._count(connection, rows, now)
        self.known.remember(connection, versions)
        return [deliveries[seq - first] for seq in there]

    @staticmethod
    def _count(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], now: int) -> None:
        for (broker, state), number in Counter(map(_BROKER_AND_STATE, rows)).items():
            key = tallies.Key(broker or "", state)
            tallies.add(connection, key, number, rows[0][_ARRIVED], now)

    def _row(
        self, connection: sqlite3.Connection, seq: int, new: NewDelivery, now: int
    ) -> tuple[Any, ...]:
        task_id, source, final, version, arrived_ns, route, kind, _ = new
        return (
            seq,
            task_id,
            source.encode(*PATHS),
            None if final is None else final.encode(*PATHS),
            *version,
            arrived_ns,
            None if route is None else route.broker,
            None if route is None else self._routes.number(connection, route),
            kind,
            _READY if final is None else _MOVING,
            now,
        )

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
            task_id=printable(new.task_id), version=_NO_VERSION, kind=_FILES, final=None
        )

        def work(connection: sqlite3.Connection) -> None:
            seq = self._next_seq
            self._next_seq += 1
            row = self._row(connection, seq, harmless, time.time_ns())
            connection.execute(_INSERT, row)
            connection.execute(
                "UPDATE deliveries SET state = ?, reason = ? WHERE seq = ?",
                (int(State.FAILED), reason, seq),
            )
            failed = (*row[:_STATE], int(State.FAILED), *row[_STATE + 1 :])
            self._count(connection, [failed], time.time_ns())

        self._database.write(work)

    # Paging

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        """Return deliveries to ``broker`` in state READY behind ``after``, by seq."""
        return self._page(
            "WHERE state = 2 AND broker = ? AND seq > ? ORDER BY seq LIMIT ?",
            (broker, after, limit),
        )

    def page_moving(self, after: int, limit: int) -> list[Delivery]:
        """Return deliveries in state MOVING behind ``after``, by seq."""
        return self._page("WHERE state = 1 AND seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def _page(self, where: str, parameters: tuple[Any, ...]) -> list[Delivery]:
        with turn():
            rows = self._database.reader.execute(_SELECT + where, parameters)
        try:
            return self._deliveries(rows)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            self._database.found_damage(ValueError(f"a delivery in it is none: {error!r}"))

    def _deliveries(self, rows: Iterable[tuple[Any, ...]]) -> list[Delivery]:
        route_of = self._routes.get
        page = []
        for row in rows:
            seq, task_id, blob, final, *version, arrived_ns, route, state, kind = row
            source = blob.decode(*PATHS)
            page.append(
                Delivery(
                    seq,
                    task_id,
                    source,
                    source if final is None else final.decode(*PATHS),
                    Version(*version),
                    arrived_ns,
                    None if route is None else route_of(route),
                    _STATES[state],
                    kind,
                )
            )
        return page

    # Noting

    def redirect(self, seq: int, final: str) -> None:
        """Change where a MOVING delivery goes."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE deliveries SET final = ? WHERE seq = ? AND state = 1",
                (os.fsencode(final), seq),
            )
        )

    def note(
        self,
        changes: Sequence[tuple[int, State, str]],
        moved: Sequence[Delivery] = (),
        *,
        ready_for: str | None = None,
    ) -> None:
        """Note the new state of deliveries, (seq, state, reason) each, in one commit.

        A version that vanished is not known any more: should the file come back just as it was
        (a share mounted again, a rename there and back), it is an arrival. Nor is one that was
        ``moved``, in its new state: whatever is at its source from now on is another upload,
        however much it is alike. ``ready_for`` is the broker that all the others are for, where
        that is known: it saves a look at each.
        """
        now = time.time_ns()
        alike: dict[tuple[State, str, int, str | None], list[int]] = {}
        last: tuple[State, str] | None = None
        bucket: list[int] = []
        for seq, state, reason in changes:
            # Nearly all are like the one before.
            if last is None or state is not last[0] or reason != last[1]:
                last = state, reason
                bucket = alike.setdefault((state, reason, _READY, ready_for), [])
            bucket.append(seq)
        for row in moved:
            broker = row.route.broker if row.route is not None else ""
            alike.setdefault((row.state, "", _MOVING, broker), []).append(row.seq)

        def work(connection: sqlite3.Connection) -> None:
            for (state, reason, before, broker), seqs in alike.items():
                key = None if broker is None else tallies.Key(broker, before)
                for start in range(0, len(seqs), _TOGETHER):
                    part = seqs[start : start + _TOGETHER]
                    _note(connection, part, state, reason, key, now)
                    if state is State.VANISHED:
                        self.known.unlearn(connection, part)
            self.known.unlearn_at(connection, [(row.source, row.seq) for row in moved])

        self._database.write(work)

    def unlearn(self, seqs: Sequence[int]) -> None:
        """Forget the versions that these deliveries announced: to be found again is to arrive."""
        self._database.write(lambda connection: self.known.unlearn(connection, seqs))

    def is_under_way(self, seq: int) -> bool:
        """Whether a delivery is neither sent nor ended."""
        query = "SELECT 1 FROM deliveries WHERE seq = ? AND state IN (1, 2)"
        return self._database.reader.execute(query, (seq,)).fetchone() is not None

    def last_seq(self) -> int:
        """Return the seq of the last delivery that was recorded; 0 if there is none."""
        return self._next_seq - 1

    def tried(self, broker: str, first: int, last: int) -> set[int]:
        """Return those from ``first`` to ``last`` that wait although they were tried before.

        They are READY with a reason: why the broker did not take them.
        """
        query = (
            "SELECT seq FROM deliveries WHERE broker = ? AND state = 2 AND seq BETWEEN ? AND ? "
            "AND reason IS NOT NULL"
        )
        rows = self._database.reader.execute(query, (broker, first, last))
        return {seq for (seq,) in rows.fetchall()}

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer version at the delivery's source has been announced."""
        directory, _, name = delivery.source.rpartition("/")
        known = self.known.lookup(directory, [name]).get(name)
        return known is not None and known.seq > delivery.seq

    def ready_brokers(self) -> set[str]:
        """Return the brokers that deliveries in state READY are for."""
        found: set[str] = set()
        query = (
            "SELECT broker FROM deliveries WHERE state = 2 AND broker > ? ORDER BY broker LIMIT 1"
        )
        row = self._database.reader.execute(query, ("",)).fetchone()
        while row is not None:
            found.add(row[0])
            row = self._database.reader.execute(query, row).fetchone()
        return found

    # Pruning

    def prune(self, before_ns: int) -> Pruned:
        """Drop a few finished deliveries noted before a time, if there are any."""
        return self._pruner.step(before_ns, self._next_seq - 1)


def _note(
    connection: sqlite3.Connection,
    seqs: Sequence[int],
    state: State,
    reason: str,
    key: tallies.Key | None,
    now: int,
) -> None:
    """Give deliveries their new state and count them in it.

    ``key`` is what those are counted as that are still in its state: mostly all of them.
    """
    query = f"{_NOTE} ({','.join('?' * len(seqs))})"
    values = (int(state), now, printable(reason) or None, *seqs)
    if key is not None and key.state != state:
        found = connection.execute(f"{query} {_WHERE_STILL}", (*values, key.state))
        if found.rowcount:
            tallies.move(connection, key, found.rowcount, state, reason, seqs[0], now)
        if found.rowcount == len(seqs):
            return
    tallies.change(connection, tallies.leaving(connection, seqs), state, reason, now)
    connection.execute(query, values)


def _under_way(connection: sqlite3.Connection, inode: int, task_id: str) -> int:
    """Return the seq of the delivery with a task id that is MOVING or READY; 0 for none."""
    query = "SELECT seq FROM deliveries WHERE inode = ? AND task_id = ? AND state IN (1, 2)"
    found = connection.execute(query, (inode, task_id)).fetchone()
    return int(found[0]) if found else 0


def _conflicting(
    connection: sqlite3.Connection,
    numbered: Sequence[tuple[int, NewDelivery]],
    there: Mapping[int, int],
) -> dict[int, int]:
    """Find the deliveries for which new ones were not inserted, by the new one's seq."""
    rows = connection.execute("SELECT seq FROM deliveries WHERE seq >= ?", (numbered[0][0],))
    inserted = {seq for (seq,) in rows}
    return {
        seq: _under_way(connection, new.version.inode, new.task_id)
        for seq, new in numbered
        if seq not in inserted and seq not in there
    }
