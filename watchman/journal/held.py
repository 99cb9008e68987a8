"""The holds of now, and what each has kept, as the journal has them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from watchman.journal.soundness import understanding
from watchman.model import Hold, HoldKind, State

ALL = "SELECT id, kind, name, since_ns, by FROM holds ORDER BY id"
LOOKED_AT = 5000
"""Ready deliveries of each broker, the newest, that are looked at for what no sender has come to:
some ms."""
_NEXT_HELD = """SELECT held FROM deliveries INDEXED BY deliveries_held
    WHERE state = 2 AND held > 0 AND held > ? ORDER BY held LIMIT 1"""
_NEWEST = """SELECT source, coalesce(final, source), task, arrived_ns, bundle > 0 FROM deliveries
    INDEXED BY {} LEFT JOIN routes ON routes.id = route
    WHERE state = 2 AND {} AND deliveries.broker = ? ORDER BY seq DESC LIMIT ?"""
_FREE = _NEWEST.format("deliveries_ready", "held = 0")
_RELEASED = _NEWEST.format("deliveries_held", "held > 0 AND held = ?")
_TASKS = "SELECT DISTINCT task FROM routes WHERE broker = ?"
_OPEN = """SELECT DISTINCT task FROM open_batches JOIN routes ON routes.id = route
    WHERE open_batches.broker = ?"""


def read_hold(row: Sequence[object]) -> Hold:
    """Return what a row of the table says. Raises ValueError and TypeError for none."""
    number, kind, name, since_ns, by = row
    if not (isinstance(number, int) and isinstance(name, bytes) and isinstance(since_ns, int)):
        raise TypeError(f"hold {number!r} is none")
    return Hold(number, HoldKind(kind), os.fsdecode(name), since_ns, str(by))


class Held(NamedTuple):
    """What a hold has kept of the tasks for one broker."""

    broker: str
    number: int
    oldest_ns: int
    """When the first of them arrived."""


class HoldCounts(NamedTuple):
    """A hold, and what it keeps."""

    hold: Hold
    held: tuple[Held, ...]
    or_more: bool = False
    """Whether it may keep more: not all was looked at that no sender has come to yet."""

    @property
    def number(self) -> int:
        """How many tasks it keeps; a hold of a broker keeps all that are for it."""
        return sum(one.number for one in self.held)

    @property
    def oldest_ns(self) -> int:
        """When the first of them arrived; 0 where there is none, or not all was looked at."""
        arrivals = [one.oldest_ns for one in self.held if one.number]
        return 0 if self.or_more else min(arrivals, default=0)


_Kept = dict[tuple[int, str], tuple[int, int]]
"""By hold and broker: how many, and when the oldest arrived."""


class HeldNames:
    """Which of several holds means a delivery by its task or its directory, if any does."""

    def __init__(self, active: Iterable[Hold] = ()) -> None:
        self._tasks: dict[str, Hold] = {}
        self._directories: list[tuple[str, Hold]] = []
        """With the slash behind the path."""
        for one in active:
            if one.kind is HoldKind.TASK:
                self._tasks[one.name] = one
            elif one.kind is HoldKind.DIRECTORY:
                self._directories.append((one.name.rstrip("/") + "/", one))

    def __bool__(self) -> bool:
        return bool(self._tasks or self._directories)

    def of(self, task: str | None, source: str, final: str) -> Hold | None:
        """Return the one that means a delivery."""
        if task in self._tasks:
            return self._tasks[task]
        for prefix, hold in self._directories:
            if source.startswith(prefix) or final.startswith(prefix):
                return hold
        return None

    def that_may_mean(self, tasks: Iterable[str]) -> set[int]:
        """Return the ids of those that may mean deliveries with these tasks."""
        found: set[int] = set()
        for task in tasks:
            found.update(one.id for _, one in self._directories)
            if task in self._tasks:
                found.add(self._tasks[task].id)
        return found


def keeping(execute: Callable[[str, Sequence[int]], Any]) -> Iterator[int]:
    """Yield the ids of the holds, of now and before, that keep anything by a mark."""
    row = execute(_NEXT_HELD, (0,)).fetchone()
    while row is not None:
        yield row[0]
        row = execute(_NEXT_HELD, row).fetchone()


def active_holds(connection: sqlite3.Connection) -> list[Hold]:
    """Return the holds of now, the oldest first. Raises sqlite3.DatabaseError for what is none."""
    with understanding("a hold"):
        return list(map(read_hold, connection.execute(ALL).fetchall()))


def holds(connection: sqlite3.Connection) -> list[HoldCounts]:
    """Return the holds of now, the oldest first, with what they keep, within a transaction.

    Of what no sender has come to yet, say while no daemon runs, the newest are looked at. Raises
    sqlite3.DatabaseError for what is no hold.
    """
    found = active_holds(connection)
    with understanding("a hold"):
        kept: _Kept = {
            (number, broker): (count, oldest_ns)
            for number, broker, count, oldest_ns in connection.execute("SELECT * FROM held")
        }
        names, or_more = HeldNames(found), set[int]()
        if names:
            or_more = _count_unmarked(connection, names, {one.id for one in found}, kept)
        ready = _ready(connection)
        for one in found:
            if one.kind is HoldKind.BROKER and one.name in ready:
                kept[one.id, one.name] = ready[one.name]
        return [
            HoldCounts(
                one,
                tuple(Held(broker, *what) for (by, broker), what in kept.items() if by == one.id),
                one.id in or_more,
            )
            for one in found
        ]


def _ready(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Return how many wait for each broker, and when the oldest arrived."""
    query = "SELECT broker, count, oldest_ns FROM tallies WHERE state = ? AND count > 0"
    rows = connection.execute(query, (int(State.READY),))
    return {broker: (count, oldest_ns) for broker, count, oldest_ns in rows}


def _count_unmarked(
    connection: sqlite3.Connection,
    names: HeldNames,
    active: set[int],
    kept: _Kept,
) -> set[int]:
    """Add to ``kept`` what bears no mark yet; return the holds that may keep more than that.

    What a hold has kept that is gone bears the mark of that one.
    """
    or_more: set[int] = set()
    gone = [number for number in keeping(connection.execute) if number not in active]
    for broker in _ready(connection):
        concerned = names.that_may_mean(task for (task,) in connection.execute(_TASKS, (broker,)))
        if not concerned:
            continue
        pages = [connection.execute(_FREE, (broker, LOOKED_AT)).fetchall()]
        pages += [
            connection.execute(_RELEASED, (number, broker, LOOKED_AT)).fetchall() for number in gone
        ]
        # Of a bundle only the leader is read, and of an open batch nothing.
        bundled = {task for (task,) in connection.execute(_OPEN, (broker,))}
        for page in pages:
            if len(page) == LOOKED_AT:
                or_more |= concerned
            for source, final, task, arrived_ns, is_bundled in page:
                if is_bundled:
                    bundled.add(task)
                hold = names.of(task, os.fsdecode(source), os.fsdecode(final))
                if hold is not None:
                    count, oldest_ns = kept.get((hold.id, broker), (0, arrived_ns))
                    kept[hold.id, broker] = count + 1, min(oldest_ns, arrived_ns)
        or_more |= names.that_may_mean(bundled)
    return or_more
