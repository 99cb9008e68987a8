"""New states of deliveries, their counts, and what follows for bundles: within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from watchman.journal import bundles, digests, tallies
from watchman.model import State
from watchman.text import printable

_NOTE = "UPDATE deliveries SET state = ?, noted_ns = ?, reason = ? WHERE seq IN"
_WHERE_STILL = "AND +state = ?"
"""With the plus sign SQLite does not think of an index, nor goes through the rows twice."""
TOGETHER = 500
"""Rows noted by one statement: SQLite takes 32,766 parameters, in old versions 999."""

_TASK_IDS = """SELECT seq, bundles.task_id FROM deliveries
    JOIN bundles ON bundles.id = deliveries.bundle WHERE seq IN ({})"""


def change(
    connection: sqlite3.Connection,
    seqs: Sequence[int],
    state: State,
    reason: str,
    key: tallies.TallyKey | None,
    now: int,
) -> None:
    """Give deliveries their new state and count them in it.

    ``key`` is what those are counted as that are still in its state: mostly all of them.
    """
    for start in range(0, len(seqs), TOGETHER):
        _change(connection, seqs[start : start + TOGETHER], state, reason, key, now)


def _change(
    connection: sqlite3.Connection,
    seqs: Sequence[int],
    state: State,
    reason: str,
    key: tallies.TallyKey | None,
    now: int,
) -> None:
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


def share_task_id(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Give deliveries that were sent in a bundle the id of its task: by it they are found."""
    for start in range(0, len(seqs), TOGETHER):
        part = seqs[start : start + TOGETHER]
        ids = connection.execute(_TASK_IDS.format(",".join("?" * len(part))), part).fetchall()
        update = "UPDATE deliveries SET task_id = ? WHERE seq = ?"
        connection.executemany(update, ((task_id, seq) for seq, task_id in ids))
        digests.add_ids(connection, ids)


def settle_bundles(
    connection: sqlite3.Connection,
    concerned: Iterable[int],
    vanished: Iterable[tuple[int, str]],
    now: int,
) -> list[bundles.Left]:
    """Do what new states of deliveries mean for their bundles; return what is left of broken sets.

    ``concerned`` are the bundles, ``vanished`` those of the deliveries that did, (seq, reason)
    each: nothing is sent of their sets. What is in its place vanishes with them, and is looked for
    there. What was moved has failed: no scan would find it again.
    """
    bundles.break_sets(connection, vanished)
    gone: list[bundles.Left] = []
    for bundle in concerned:
        left = bundles.settle(connection, bundle)
        if left is bundles.NOTHING_LEFT:
            continue
        lost = State.VANISHED if left.is_discarded else State.FAILED
        for seqs, state in ((left.in_place, State.VANISHED), (left.moved, lost)):
            if seqs:
                change(connection, seqs, state, left.reason, None, now)
        bundles.settle(connection, bundle)
        gone.append(left)
    return gone
