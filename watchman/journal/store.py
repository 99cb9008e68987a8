"""Recording, paging and noting deliveries; remembering known versions.

One connection writes, behind a lock; each thread reads through a connection of its own, which
never waits for a writer. Every method that writes returns only when its commit is on disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from watchman.errors import JournalError
from watchman.journal import arguments, schema
from watchman.model import Delivery, Route, State, Version

FINISHED = (State.SENT, State.VANISHED, State.MOVED)


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


class Known(NamedTuple):
    """What is remembered of a name in a directory."""

    version: Version
    seq: int
    """The delivery that announced this version; 0 where it was only noted."""


_SELECT = """SELECT seq, task_id, source, final, device, inode, size, mtime_ns, arrived_ns,
    route, state, kind FROM deliveries """
_INSERT = """INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns,
    arrived_ns, broker, route, kind, state, noted_ns) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"""
_REMEMBER = "INSERT OR REPLACE INTO known VALUES (?,?,?,?,?,?,?)"
_NAMES_A_QUERY = 500


class Journal:
    """The journal in the directory ``state_dir``, made there if it is missing.

    Raises JournalError where it cannot be opened.
    """

    def __init__(self, state_dir: str) -> None:
        self.path = os.path.join(state_dir, "journal.db")
        self._lock = threading.Lock()
        self._readers = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._routes: dict[int, Route] = {}
        self._route_ids: dict[int, tuple[Route, int]] = {}
        self._directories: dict[str, int] = {}
        try:
            self._writer = self._connect()
            self._prepare()
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {self.path} cannot be opened: {error}; check the directory's "
                "permissions and free space"
            ) from error

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = schema.connect(self.path, read_only=read_only)
        self._connections.append(connection)
        return connection

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            schema.create(self._writer)
        elif version != schema.SCHEMA_VERSION:
            raise JournalError(
                f"the journal {self.path} has schema {version}, this watchman knows "
                f"{schema.SCHEMA_VERSION}; run the version of watchman that wrote it"
            )
        (last,) = self._writer.execute("SELECT max(seq) FROM deliveries").fetchone()
        self._next_seq = (last or 0) + 1

    @property
    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = self._connect(read_only=True)
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every connection; the journal cannot be used afterwards."""
        for connection in self._connections:
            connection.close()

    # Recording

    def record(
        self,
        deliveries: Sequence[tuple[NewDelivery, int, str]],
        noted: Iterable[tuple[int, str, Version]] = (),
    ) -> None:
        """Record arrivals and make their versions known, in one commit.

        ``deliveries`` are (delivery, id of its directory, name) in the order in which they are
        to be sent; ``noted`` are versions that become known without a delivery.
        """
        now = time.time_ns()
        rows, known = [], []
        with self._transaction() as connection:
            seq = self._next_seq
            for new, directory, name in deliveries:
                version = new.version
                route = new.route
                state = State.READY if new.final is None else State.MOVING
                rows.append(
                    (
                        seq,
                        new.task_id,
                        os.fsencode(new.source),
                        None if new.final is None else os.fsencode(new.final),
                        *version,
                        new.arrived_ns,
                        None if route is None else route.broker,
                        None if route is None else self._route_id(connection, route),
                        new.kind,
                        state,
                        now,
                    )
                )
                known.append((directory, os.fsencode(name), *version, seq))
                seq += 1
            known.extend((directory, os.fsencode(name), *v, 0) for directory, name, v in noted)
            connection.executemany(_INSERT, rows)
            connection.executemany(_REMEMBER, known)
        self._next_seq = seq

    def _route_id(self, connection: sqlite3.Connection, route: Route) -> int:
        cached = self._route_ids.get(id(route))
        if cached is not None:
            return cached[1]
        key = (route.broker, route.task, arguments.encode(route))
        connection.execute(
            "INSERT OR IGNORE INTO routes (broker, task, arguments) VALUES (?,?,?)", key
        )
        (route_id,) = connection.execute(
            "SELECT id FROM routes WHERE broker = ? AND task = ? AND arguments = ?", key
        ).fetchone()
        # The route is kept beside its id, so that no other object can get the same id().
        self._route_ids[id(route)] = (route, route_id)
        return int(route_id)

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

    def page_failed(self, after: int, limit: int) -> list[Delivery]:
        """Return deliveries in state FAILED behind ``after``, by seq."""
        return self._page("WHERE state = 4 AND seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def _page(self, where: str, parameters: tuple[Any, ...]) -> list[Delivery]:
        fsdecode = os.fsdecode
        page = []
        for row in self._reader.execute(_SELECT + where, parameters):
            seq, task_id, source, final, device, inode, size, mtime_ns, arrived_ns = row[:9]
            source = fsdecode(source)
            page.append(
                Delivery(
                    seq,
                    task_id,
                    source,
                    source if final is None else fsdecode(final),
                    Version(device, inode, size, mtime_ns),
                    arrived_ns,
                    None if row[9] is None else self._routes.get(row[9]) or self._route(row[9]),
                    State(row[10]),
                    row[11],
                )
            )
        return page

    def _route(self, route_id: int) -> Route:
        row = self._reader.execute(
            "SELECT broker, task, arguments FROM routes WHERE id = ?", (route_id,)
        ).fetchone()
        route = self._routes[route_id] = arguments.decode(*row)
        return route

    # Noting

    def redirect(self, seq: int, final: str) -> None:
        """Change where a MOVING delivery goes."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET final = ? WHERE seq = ? AND state = 1",
                (os.fsencode(final), seq),
            )

    def note(self, changes: Sequence[tuple[int, State, str]]) -> None:
        """Note the new state of deliveries, (seq, state, reason) each, in one commit."""
        now = time.time_ns()
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE deliveries SET state = ?, noted_ns = ?, reason = ? WHERE seq = ?",
                [(state, now, reason or None, seq) for seq, state, reason in changes],
            )

    # Known versions

    def directory_id(self, path: str) -> int:
        """Return the number under which the names of a directory are remembered."""
        cached = self._directories.get(path)
        if cached is not None:
            return cached
        blob = os.fsencode(path)
        query = "SELECT id FROM directories WHERE path = ?"
        row = self._reader.execute(query, (blob,)).fetchone()
        if row is None:
            with self._transaction() as connection:
                row = connection.execute(
                    "INSERT INTO directories (path) VALUES (?) RETURNING id", (blob,)
                ).fetchone()
        if len(self._directories) >= 4096:
            self._directories.clear()
        number = self._directories[path] = int(row[0])
        return number

    def known(self, directory: int, names: Sequence[str]) -> dict[str, Known]:
        """Return what is remembered of ``names`` in a directory."""
        found = {}
        for start in range(0, len(names), _NAMES_A_QUERY):
            part = names[start : start + _NAMES_A_QUERY]
            # A few lengths only, so that SQLite finds its prepared statement again.
            length = next(n for n in (1, 10, 100, _NAMES_A_QUERY) if n >= len(part))
            part = [*part, *part[:1] * (length - len(part))]
            marks = ",".join("?" * length)
            rows = self._reader.execute(
                "SELECT name, device, inode, size, mtime_ns, seq FROM known "
                f"WHERE directory = ? AND name IN ({marks})",  # noqa: S608 — only question marks
                (directory, *map(os.fsencode, part)),
            )
            for name, device, inode, size, mtime_ns, seq in rows:
                found[os.fsdecode(name)] = Known(Version(device, inode, size, mtime_ns), seq)
        return found

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer version at the delivery's source has been announced."""
        directory, name = os.path.split(delivery.source)
        known = self.known(self.directory_id(directory), [name]).get(name)
        return known is not None and known.seq > delivery.seq

    def known_names(self, directory: int) -> Iterator[str]:
        """Yield every remembered name of a directory."""
        rows = self._reader.execute("SELECT name FROM known WHERE directory = ?", (directory,))
        return (os.fsdecode(name) for (name,) in rows)

    def known_count(self, directory: int) -> int:
        """Return how many names of a directory are remembered."""
        query = "SELECT count(*) FROM known WHERE directory = ?"
        return int(self._reader.execute(query, (directory,)).fetchone()[0])

    def forget(self, names: Iterable[tuple[int, str]]) -> None:
        """Forget names, (directory, name) each: the next look at one is an arrival."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM known WHERE directory = ? AND name = ?",
                [(directory, os.fsencode(name)) for directory, name in names],
            )

    def forget_below(self, path: str) -> None:
        """Forget all names in a directory that is gone, and in those below it."""
        blob = os.fsencode(path)
        # All paths that begin with "path/": "0" is the character behind "/".
        below = (blob, blob.rstrip(b"/") + b"/", blob.rstrip(b"/") + b"0")
        where = "path = ? OR (path >= ? AND path < ?)"
        with self._transaction() as connection:
            connection.execute(
                f"DELETE FROM known WHERE directory IN (SELECT id FROM directories WHERE {where})",
                below,
            )
            connection.execute(f"DELETE FROM directories WHERE {where}", below)
        self._directories.clear()

    def refresh(self, names: Iterable[tuple[int, str, Version]]) -> None:
        """Note that a known file's times changed and its content did not.

        A delivery that is still on its way takes the new version over; its task id stays.
        """
        with self._transaction() as connection:
            for directory, name, version in names:
                key = (directory, os.fsencode(name))
                connection.execute(
                    "UPDATE deliveries SET device = ?, inode = ?, size = ?, mtime_ns = ? "
                    "WHERE state IN (1, 2) AND seq = "
                    "(SELECT seq FROM known WHERE directory = ? AND name = ?)",
                    (*version, *key),
                )
                connection.execute(
                    "UPDATE known SET device = ?, inode = ?, size = ?, mtime_ns = ? "
                    "WHERE directory = ? AND name = ?",
                    (*version, *key),
                )

    # Watches

    def first_runs(self, paths: Iterable[str]) -> set[str]:
        """Return those watch roots that no run has scanned to the end yet."""
        rows = self._reader.execute("SELECT path FROM watches").fetchall()
        return set(paths) - {os.fsdecode(path) for (path,) in rows}

    def note_first_run(self, paths: Iterable[str]) -> None:
        """Note that the first run on these watch roots has seen all that was there."""
        now = time.time_ns()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO watches VALUES (?,?)",
                [(os.fsencode(path), now) for path in paths],
            )

    # Reporting

    def counts(self) -> Mapping[tuple[str, State], tuple[int, int]]:
        """Return for each (broker, state) the number of deliveries and the oldest's arrival.

        The broker is empty for deliveries that are only moved.
        """
        rows = self._reader.execute(
            "SELECT coalesce(broker, ''), state, count(*), min(arrived_ns) FROM deliveries "
            "GROUP BY 1, 2"
        )
        return {(broker, State(state)): (count, oldest) for broker, state, count, oldest in rows}

    def prune(self, before_ns: int, limit: int = 10_000) -> int:
        """Drop up to ``limit`` finished deliveries noted before a time; return how many."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries "
                "WHERE state IN (3, 5, 6) AND noted_ns < ? AND seq < ? ORDER BY seq LIMIT ?)",
                (before_ns, self._next_seq - 1, limit),
            ).rowcount
