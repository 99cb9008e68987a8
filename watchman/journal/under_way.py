"""Deliveries with one task id, of which one at most is under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_FIND = """SELECT seq, final IS NOT NULL AND state = 2 FROM deliveries
    WHERE inode = ? AND task_id = ? AND state IN (1, 2)"""


class UnderWay(NamedTuple):
    """A delivery that is MOVING or READY."""

    seq: int
    is_moved: bool
    """Whether it has left its source: what is there is another arrival, however much it is alike.

    The source of a copy comes back with its directory, which was away when it was to be removed.
    """


def under_way(connection: sqlite3.Connection, inode: int, task_id: str) -> UnderWay | None:
    """Return the delivery with a task id that is MOVING or READY; None if there is none."""
    found = connection.execute(_FIND, (inode, task_id)).fetchone()
    return UnderWay(int(found[0]), bool(found[1])) if found else None


def in_conflict(
    connection: sqlite3.Connection,
    numbered: Sequence[tuple[int, int, str]],
    there: Mapping[int, UnderWay],
) -> dict[int, UnderWay]:
    """Return which delivery is under way instead of new ones that were not inserted, by their seq.

    ``numbered`` are all new ones, (seq, inode, task id) each; ``there`` those of which it is known.
    """
    rows = connection.execute("SELECT seq FROM deliveries WHERE seq >= ?", (numbered[0][0],))
    inserted = {seq for (seq,) in rows}
    return {
        seq: found
        for seq, inode, task_id in numbered
        if seq not in inserted
        and seq not in there
        and (found := under_way(connection, inode, task_id)) is not None
    }
