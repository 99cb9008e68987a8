"""Files of one route that are to be announced together: which batches they join, and until when.

The tables are those of :mod:`watchman.journal.bundles`.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from watchman.journal import bundles
from watchman.journal.database import Database
from watchman.model import LONGEST_BATCH, Batch, Bundle, BundleKind, Route

_OPEN = "SELECT bundle, count FROM open_batches WHERE route = ? AND directory = ?"
_DUE = """SELECT bundle FROM open_batches WHERE broker = ? AND due_ns <= ?
    ORDER BY due_ns LIMIT ?"""
# A time that lies further ahead than any batch waits was made by a clock that was wrong.
_NEVER = """SELECT bundle FROM open_batches WHERE broker = ? AND due_ns > ?
    ORDER BY due_ns LIMIT ?"""
_NS = 1_000_000_000
LARGEST = (1 << 63) - 1
"""SQLite's greatest integer: later than any time."""


class Joining(NamedTuple):
    """A READY delivery that joins a batch."""

    seq: int
    number: int
    """That of its route."""
    route: Route
    final: str

    @property
    def batch(self) -> Batch:
        """What its route has files joined by."""
        assert self.route.batch is not None
        return self.route.batch


class Bundles:
    """The table ``bundles``, for the daemon. For any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.in_use = False
        """Whether there may be any. Where there never was, nothing is asked of their tables."""
        self._due_ns: dict[str, int] = {}
        """By broker: when the first of the open batches is due, or earlier."""

    def load(self) -> None:
        """Take up what there is already. Raises JournalError."""
        reader = self._database.reader
        self.in_use = reader.execute("SELECT 1 FROM bundles LIMIT 1").fetchone() is not None
        query = "SELECT broker, min(due_ns) FROM open_batches GROUP BY broker"
        self._due_ns = {str(broker): int(due_ns) for broker, due_ns in reader.execute(query)}

    # Which are open

    def seconds_left(self, broker: str, now_ns: int) -> float | None:
        """Return until an open batch for a broker is due, 0 if one may be; None if none is open."""
        due_ns = self._due_ns.get(broker)
        if due_ns is None:
            return None
        left = (due_ns - now_ns) / _NS
        return 0.0 if left > LONGEST_BATCH else max(0.0, left)

    def brokers(self) -> set[str]:
        """Return the brokers that open batches are for."""
        return set(self._due_ns)

    def complete_due(self, broker: str, now_ns: int, most: int) -> int:
        """Let no further file join the batches whose time is over, ``most`` at once; how many.

        Raises JournalError.
        """

        def work(connection: sqlite3.Connection) -> int:
            latest = min(now_ns + int(LONGEST_BATCH * _NS), LARGEST)
            due = connection.execute(_DUE, (broker, now_ns, most)).fetchall()
            due = due or connection.execute(_NEVER, (broker, latest, most)).fetchall()
            for (bundle,) in due:
                bundles.complete(connection, bundle)
            query = "SELECT min(due_ns) FROM open_batches WHERE broker = ?"
            (next_ns,) = connection.execute(query, (broker,)).fetchone()
            # Here, where nobody else can open one just now.
            self._due_ns.pop(broker, None)
            if next_ns is not None:
                self._due_ns[broker] = next_ns
            return len(due)

        return self._database.write(work)

    # Who joins

    def join(self, connection: sqlite3.Connection, joining: Iterable[Joining]) -> None:
        """Have READY deliveries, in the order of seq, join open batches, within a transaction."""
        groups: dict[tuple[int, bytes], list[Joining]] = {}
        for one in joining:
            directory = os.path.dirname(one.final) or "/" if one.batch.by_directory else ""
            groups.setdefault((one.number, os.fsencode(directory)), []).append(one)
        now_ns = time.time_ns()
        for key, rows in groups.items():
            seqs, done = [one.seq for one in rows], 0
            while done < len(seqs):
                some = seqs[done : done + rows[0].batch.size]
                done += self._join(connection, key, rows[0], some, now_ns)

    def _join(
        self,
        connection: sqlite3.Connection,
        key: tuple[int, bytes],
        like: Joining,
        seqs: Sequence[int],
        now_ns: int,
    ) -> int:
        """Fill one batch up; return how many of the deliveries it has taken."""
        found = connection.execute(_OPEN, key).fetchone()
        bundle, count = found or (self.make(connection, str(uuid.uuid4()), BundleKind.BATCH), 0)
        taken = seqs[: like.batch.size - count]
        bundles.join(connection, bundle, taken)
        if count + len(taken) >= like.batch.size:
            bundles.complete(connection, bundle)
        elif found:
            update = "UPDATE open_batches SET count = ? WHERE bundle = ?"
            connection.execute(update, (count + len(taken), bundle))
        else:
            due_ns = now_ns + int(like.batch.seconds * _NS)
            row = (bundle, like.route.broker, *key, len(taken), due_ns)
            connection.execute("INSERT INTO open_batches VALUES (?,?,?,?,?,?)", row)
            # A rollback leaves it too early at the worst, which costs a look.
            self._due_ns[like.route.broker] = min(
                due_ns, self._due_ns.get(like.route.broker, due_ns)
            )
        return len(taken)

    def make(self, connection: sqlite3.Connection, task_id: str, kind: BundleKind) -> int:
        """Return the number of a new bundle, made within a transaction."""
        self.in_use = True
        return bundles.insert(connection, task_id, kind)

    def record_sets(
        self, connection: sqlite3.Connection, members: Mapping[str, Sequence[int]]
    ) -> None:
        """Make sets of deliveries that were just recorded: by task id, their seqs.

        A set of that id that is under way gets further ones: its files may be recorded in two
        commits, where one of them was under way by itself. One that was moved has its task: these
        get another, as the files that are in the place of its own are others.
        """
        query = "SELECT id FROM bundles WHERE task_id = ? AND kind = 'set'"
        for task_id, seqs in members.items():
            found = connection.execute(query, (task_id,)).fetchone()
            if found is None:
                bundle = self.make(connection, task_id, BundleKind.SET)
            elif bundles.is_moved(connection, found[0]):
                bundle = self.make(connection, str(uuid.uuid4()), BundleKind.SET)
            else:
                bundle = found[0]
            bundles.join(connection, bundle, seqs)
            bundles.settle(connection, bundle)

    def read(self, numbers: Iterable[int]) -> dict[int, Bundle]:
        """Return bundles by number. Raises JournalError."""
        query = "SELECT id, task_id, kind FROM bundles WHERE id = ?"
        found = {}
        for number in numbers:
            row = self._database.reader.execute(query, (number,)).fetchone()
            try:
                found[number] = Bundle(int(row[0]), str(row[1]), BundleKind(row[2]))
            except (TypeError, ValueError) as error:
                strange = ValueError(f"bundle {number} in it cannot be understood: {error!r}")
                self._database.found_damage(strange)
        return found
