"""Bundles: files that one task announces, and which of their rows senders read.

Each file keeps a row of its own. A sender reads the READY row that is its bundle's leader, as it
reads a file without a bundle (``held`` is 0, or the hold that keeps it); the others have ``held`` =
:data:`WITH_LEADER`, and are in none of the indexes that senders read. A bundle has a leader when it
can be sent: a batch when it is no longer open, a set when no row of it is MOVING any more.

Files join a batch in the commit by which they become READY. A batch that is full is ready at once;
of one that is open the table ``open_batches`` says until when it waits, so that what is due is
found in an index, however much waits. So what a task is about is on disk before anything is
published.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from watchman.model import DISCARDED, BundleKind, State
from watchman.text import MAIN_IS_GONE, part_is_gone

WITH_LEADER = -1
"""``deliveries.held`` of a row that goes with its bundle's leader."""

TABLES = """
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT
);
CREATE INDEX bundles_task ON bundles (task_id);
CREATE TABLE open_batches (
    bundle INTEGER PRIMARY KEY,
    broker TEXT NOT NULL,
    route INTEGER NOT NULL,
    directory BLOB NOT NULL,
    count INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    UNIQUE (route, directory)
);
CREATE INDEX open_batches_due ON open_batches (broker, due_ns);
"""
INDEX = """
CREATE INDEX deliveries_bundle ON deliveries (bundle, seq) WHERE bundle > 0;
"""
# What was collected when a journal was damaged is sent as it is. A row whose bundle is lost is as
# if it had never been in one.
MEND = (
    """UPDATE deliveries SET bundle = 0 WHERE state IN (1, 2, 4) AND bundle > 0
        AND bundle NOT IN (SELECT id FROM bundles)""",
    "UPDATE deliveries SET held = 0 WHERE state IN (1, 2, 4) AND held < 0 AND bundle <= 0",
    """UPDATE deliveries SET held = 0 WHERE seq IN (
        SELECT min(seq) FROM deliveries WHERE state IN (1, 2) AND bundle > 0
        GROUP BY bundle HAVING max(held) < 0 AND min(state) = 2)""",
)
"""What is done with the bundles of a journal that was saved from a damaged one."""
OF_BUNDLE = "INDEXED BY deliveries_bundle WHERE bundle > 0 AND bundle = ?"
"""In SQL: the rows of a bundle."""


_OF_ROWS = "SELECT DISTINCT bundle FROM deliveries WHERE seq IN ({}) AND bundle > 0"
_ROWS = f"""SELECT seq, state, held, final IS NOT NULL FROM deliveries {OF_BUNDLE}
    AND +state IN (1, 2, 4) ORDER BY seq"""  # noqa: S608 — our own words
_SEQS = f"""SELECT seq FROM deliveries {OF_BUNDLE} AND +state IN (1, 2, 4) ORDER BY seq LIMIT ?"""  # noqa: S608 — the same
_COUNT = f"SELECT count(*) FROM deliveries {OF_BUNDLE} AND +state = ?"  # noqa: S608 — the same
_MEMBERS = """SELECT seq, state, deliveries.bundle, coalesce(bundles.task_id, deliveries.task_id),
    coalesce(bundles.kind, ''), due_ns
    FROM deliveries LEFT JOIN bundles ON bundles.id = deliveries.bundle
    LEFT JOIN open_batches ON open_batches.bundle = deliveries.bundle
    WHERE seq IN ({}) AND deliveries.bundle > 0"""
# The main file of a set is recorded first.
_BUNDLE_OF = """SELECT bundle, source, (SELECT min(seq) FROM deliveries AS others
    INDEXED BY deliveries_bundle WHERE others.bundle > 0 AND others.bundle = deliveries.bundle)
    FROM deliveries WHERE seq = ? AND bundle > 0"""
# What has failed first: all else is only a matter of time.
_NOT_READY = f"""SELECT source, state FROM deliveries {OF_BUNDLE} AND +state IN (1, 4)
    ORDER BY state DESC LIMIT 1"""  # noqa: S608 — the same
_BREAK = "UPDATE bundles SET reason = ? WHERE id = ? AND kind = 'set'"
_REASON_OF = """SELECT bundles.reason FROM deliveries JOIN bundles ON bundles.id = bundle
    WHERE seq = ?"""
_JOIN = f"UPDATE deliveries SET bundle = ?, held = {WITH_LEADER} WHERE seq = ?"  # noqa: S608 — a number
_ABOUT = """SELECT kind, reason, open_batches.bundle FROM bundles
    LEFT JOIN open_batches ON open_batches.bundle = id WHERE id = ?"""
_READY = int(State.READY)
_TOGETHER = 500


def insert(connection: sqlite3.Connection, task_id: str, kind: BundleKind) -> int:
    """Make a bundle within a transaction, and return its number."""
    cursor = connection.execute(
        "INSERT INTO bundles (task_id, kind) VALUES (?, ?)", (task_id, kind.value)
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def of_rows(connection: sqlite3.Connection, seqs: Sequence[int]) -> set[int]:
    """Return the bundles that deliveries belong to."""
    found: set[int] = set()
    for start in range(0, len(seqs), _TOGETHER):
        part = seqs[start : start + _TOGETHER]
        rows = connection.execute(_OF_ROWS.format(",".join("?" * len(part))), part)
        found.update(bundle for (bundle,) in rows)
    return found


def break_sets(connection: sqlite3.Connection, vanished: Iterable[tuple[int, str]]) -> None:
    """Note of sets why they have no task: of the deliveries that vanished, (seq, reason) each."""
    for seq, reason in vanished:
        row = connection.execute(_BUNDLE_OF, (seq,)).fetchone()
        if row is None:
            continue
        bundle, source, first = row
        is_discarded, is_main = reason.startswith(DISCARDED), seq == first
        why = part_is_gone(os.fsdecode(source), reason, is_main=is_main)
        # Without its main file a set cannot be sent at all, whatever else it lacks.
        query = _BREAK if is_discarded or is_main else f"{_BREAK} AND reason IS NULL"
        connection.execute(query, (reason if is_discarded else why, bundle))


def take_as_they_are(connection: sqlite3.Connection, broken: Iterable[int]) -> None:
    """Have what is left of sets be sent."""
    query = "UPDATE bundles SET reason = NULL WHERE id = ?"
    connection.executemany(query, ((bundle,) for bundle in broken))


def why_unsendable(connection: sqlite3.Connection, seq: int) -> str:
    """Return why what is left of a delivery's set cannot be sent; empty if it can."""
    row = connection.execute(_REASON_OF, (seq,)).fetchone()
    return str(row[0]) if row is not None and str(row[0]).startswith(MAIN_IS_GONE) else ""


class Left(NamedTuple):
    """What is left of a set that has no task any more: READY deliveries."""

    in_place: list[int]
    """Where they came, so that they are arrivals once more when the rest of the set is."""
    moved: list[int]
    """Where nobody looks for them."""
    reason: str

    @property
    def is_discarded(self) -> bool:
        """Whether an operator has given the set up."""
        return self.reason.startswith(DISCARDED)


NOTHING_LEFT = Left([], [], "")


def settle(connection: sqlite3.Connection, bundle: int) -> Left:
    """See to it, within a transaction, that a bundle has a leader if it can be sent.

    Return the READY rows that are left of a set of which a part has vanished.
    """
    rows = connection.execute(_ROWS, (bundle,)).fetchall()
    if not rows:
        connection.execute("DELETE FROM bundles WHERE id = ?", (bundle,))
        connection.execute("DELETE FROM open_batches WHERE bundle = ?", (bundle,))
        return NOTHING_LEFT
    ready = [(seq, held, moved) for seq, state, held, moved in rows if state == _READY]
    kind, reason, is_open = connection.execute(_ABOUT, (bundle,)).fetchone() or ("", None, None)
    if reason is not None:
        in_place = [seq for seq, _, moved in ready if not moved]
        return Left(in_place, [seq for seq, _, moved in ready if moved], str(reason))
    if not ready or any(held >= 0 for _, held, _ in ready):
        return NOTHING_LEFT
    # Of a set that which is still moved, or has failed, is waited for.
    waits = len(ready) < len(rows) if kind == BundleKind.SET.value else is_open
    if not waits:
        connection.execute("UPDATE deliveries SET held = 0 WHERE seq = ?", ready[0][:1])
    return NOTHING_LEFT


def is_moved(connection: sqlite3.Connection, bundle: int) -> bool:
    """Say whether what is under way of a bundle has left its paths: all that is to be moved."""
    rows = connection.execute(_ROWS, (bundle,)).fetchall()
    states = {state for _, state, _, moved in rows if moved}
    return states == {_READY}


def join(connection: sqlite3.Connection, bundle: int, seqs: Iterable[int]) -> None:
    """Have deliveries be of a bundle, none of them its leader."""
    connection.executemany(_JOIN, ((bundle, seq) for seq in seqs))


def leave(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Have READY deliveries be in no bundle any more."""
    concerned = of_rows(connection, seqs)
    query = "UPDATE deliveries SET bundle = 0, held = 0 WHERE seq = ? AND state = ?"
    connection.executemany(query, ((seq, _READY) for seq in seqs))
    for bundle in concerned:
        settle(connection, bundle)


def complete(connection: sqlite3.Connection, bundle: int) -> None:
    """Let no further file join a batch."""
    connection.execute("DELETE FROM open_batches WHERE bundle = ?", (bundle,))
    settle(connection, bundle)


class Membership(NamedTuple):
    """How a delivery is announced together with others."""

    task_id: str
    kind: str
    """``set`` or ``batch``; empty of what has been sent."""
    number: int
    """How many deliveries are in the same state with it."""
    due_ns: int | None
    """Until when its batch waits for others, if it is open."""
    part: tuple[str, State] | None = None
    """The source and the state of a part of its set for which it waits, if it is READY."""


def memberships(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, Membership]:
    """Return how deliveries, not many, are announced together with others, by seq."""
    query = _MEMBERS.format(",".join("?" * len(seqs)))
    found: dict[int, Membership] = {}
    for seq, state, bundle, task_id, kind, due_ns in connection.execute(query, seqs).fetchall():
        (number,) = connection.execute(_COUNT, (bundle, state)).fetchone()
        part = None
        if kind == BundleKind.SET.value and state == _READY:
            row = connection.execute(_NOT_READY, (bundle,)).fetchone()
            part = row and (os.fsdecode(row[0]), State(row[1]))
        found[seq] = Membership(task_id, kind, number, due_ns, part)
    return found


def under_way_as(connection: sqlite3.Connection, task_id: str, most: int) -> list[int]:
    """Return the deliveries that a task with an id will announce, by seq, ``most`` of them."""
    found: list[int] = []
    for row in connection.execute("SELECT id FROM bundles WHERE task_id = ?", (task_id,)):
        found += [seq for (seq,) in connection.execute(_SEQS, (row[0], most - len(found)))]
    return found
