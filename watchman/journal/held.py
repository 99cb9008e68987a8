"""The holds of now, and what each has kept, as the journal has them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from watchman.journal.soundness import understanding
from watchman.model import Hold, HoldKind

ALL = "SELECT id, kind, name, since_ns, by FROM holds ORDER BY id"


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

    @property
    def number(self) -> int:
        """How many tasks it keeps; a hold of a broker keeps all that are for it."""
        return sum(one.number for one in self.held)


def holds(connection: sqlite3.Connection) -> list[HoldCounts]:
    """Return the holds of now, the oldest first, with what they keep.

    What a sender has not come to yet is not counted. Raises sqlite3.DatabaseError for what is no
    hold.
    """
    with understanding("a hold"):
        found = list(map(read_hold, connection.execute(ALL).fetchall()))
        rows = connection.execute("SELECT * FROM held").fetchall()
        rows += [(one.id, *row) for one in found for row in _of_broker(connection, one)]
        return [
            HoldCounts(one, tuple(Held(*row) for number, *row in rows if number == one.id))
            for one in found
        ]


def _of_broker(connection: sqlite3.Connection, one: Hold) -> list[tuple[str, int, int]]:
    if one.kind is not HoldKind.BROKER:
        return []
    query = "SELECT broker, count, oldest_ns FROM tallies WHERE broker = ? AND state = 2 AND count"
    return connection.execute(query, (one.name,)).fetchall()
