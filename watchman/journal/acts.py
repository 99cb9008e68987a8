"""What operators did to deliveries: the table ``acts``.

A second task for what was sent is a delivery of its own: ``other`` is its seq. The acts go with the
history, after HISTORY_DAYS.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

RESENT, RETRIED = "resent", "retried"

TABLE = """
CREATE TABLE acts (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    act TEXT NOT NULL,
    actor TEXT NOT NULL,
    other INTEGER
);
CREATE INDEX acts_seq ON acts (seq);
CREATE INDEX acts_other ON acts (other) WHERE other IS NOT NULL;
"""
RESCUED = """SELECT * FROM acts WHERE typeof(seq) = 'integer' AND typeof(at_ns) = 'integer'
    AND typeof(act) = 'text' AND typeof(actor) = 'text' AND typeof(other) IN ('integer', 'null')
    ORDER BY id {order}"""
"""What of it can be understood, where the journal was damaged."""
_TOGETHER = 400
"""Deliveries asked for by one statement, twice: SQLite takes 999 parameters in old versions."""
_INSERT = "INSERT INTO acts (seq, at_ns, act, actor, other) VALUES (?,?,?,?,?)"
_SECOND = """SELECT deliveries.seq FROM acts JOIN deliveries ON deliveries.seq = acts.other
    WHERE acts.seq = ? AND deliveries.state IN (1, 2) LIMIT 1"""


class Act(NamedTuple):
    """What an operator did to a delivery."""

    seq: int
    at_ns: int
    act: str
    """:data:`RESENT` or :data:`RETRIED`."""
    actor: str
    """Who it was: login name and uid, as they were then."""
    other: int | None = None
    """Of what was sent again: the seq of the second delivery."""


def note(connection: sqlite3.Connection, acts: Iterable[Act]) -> None:
    """Write down acts, within the transaction that carries them out."""
    connection.executemany(_INSERT, acts)


def second_under_way(connection: sqlite3.Connection, seq: int) -> int:
    """Return the seq of a second delivery for one that was sent, while it waits; 0 for none."""
    row = connection.execute(_SECOND, (seq,)).fetchone()
    return int(row[0]) if row else 0


def about(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[Act]:
    """Return the acts on these deliveries, and those that made one of them, in their order."""
    found: dict[int, Act] = {}
    for start in range(0, len(seqs), _TOGETHER):
        part = seqs[start : start + _TOGETHER]
        marks = ",".join("?" * len(part))
        # Two queries in one, so that each goes through its index.
        query = (
            f"SELECT * FROM acts WHERE seq IN ({marks}) UNION "  # noqa: S608 — question marks
            f"SELECT * FROM acts WHERE other IS NOT NULL AND other IN ({marks})"
        )
        for number, *fields in connection.execute(query, [*part, *part]):
            found[number] = Act(*fields)
    return [found[number] for number in sorted(found)]
