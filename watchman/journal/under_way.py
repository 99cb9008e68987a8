"""Deliveries with one task id, of which one at most is under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence


def under_way(connection: sqlite3.Connection, inode: int, task_id: str) -> int:
    """Return the seq of the delivery with a task id that is MOVING or READY; 0 for none."""
    query = "SELECT seq FROM deliveries WHERE inode = ? AND task_id = ? AND state IN (1, 2)"
    found = connection.execute(query, (inode, task_id)).fetchone()
    return int(found[0]) if found else 0


def in_conflict(
    connection: sqlite3.Connection,
    numbered: Sequence[tuple[int, int, str]],
    there: Mapping[int, int],
) -> dict[int, int]:
    """Return which delivery is under way instead of new ones that were not inserted, by their seq.

    ``numbered`` are all new ones, (seq, inode, task id) each; ``there`` those of which it is known.
    """
    rows = connection.execute("SELECT seq FROM deliveries WHERE seq >= ?", (numbered[0][0],))
    inserted = {seq for (seq,) in rows}
    return {
        seq: under_way(connection, inode, task_id)
        for seq, inode, task_id in numbered
        if seq not in inserted and seq not in there
    }
