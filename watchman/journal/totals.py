"""How many deliveries there are, in the journal and in its archive together."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from watchman.journal import archive, tallies
from watchman.journal.question import Question
from watchman.journal.sealed import Segment
from watchman.journal.tallies import Summary
from watchman.model import State

_IN_BOTH = f"""SELECT seq, coalesce(broker, ''), state, {tallies.IS_DISCARDED} FROM deliveries
    WHERE seq BETWEEN ? AND ? AND state IN (3, 5, 6) AND noted_ns <= ? ORDER BY seq"""  # noqa: S608 — our own words
_TOGETHER = 2000
"""Rows looked for in a segment at once."""

_UNREADABLE = sqlite3.Error, OSError
"""What a part of the archive raises that cannot be read: `history` says it."""


class _Part(NamedTuple):
    """Deliveries to one broker that ended alike, in one segment."""

    broker: str
    state: State
    discarded: bool
    number: int
    oldest_ns: int


def summary(connection: sqlite3.Connection, state_dir: str, *, whole: bool = False) -> Summary:
    """Count the deliveries. A part of the archive that cannot be read counts as empty.

    With ``whole`` it raises sqlite3.Error or OSError.

    The order that must hold is that of :mod:`watchman.journal.answers`: the journal first, in a
    transaction that stays, so that what leaves it meanwhile is counted once. Raises ValueError and
    TypeError for what is no count.
    """
    connection.execute("BEGIN")
    try:
        found = tallies.summary(connection)
        counts, discarded = dict(found.counts), dict(found.discarded)
        for part in _archived(connection, state_dir, () if whole else _UNREADABLE):
            if part.discarded:
                discarded[part.broker] = _with(part, discarded.get(part.broker))
            else:
                key = part.broker, part.state
                counts[key] = _with(part, counts.get(key))
        return Summary(counts, discarded, found.latest)
    finally:
        connection.execute("ROLLBACK")


def count(connection: sqlite3.Connection, state_dir: str, question: Question) -> int | None:
    """Return how many deliveries are meant, where the counts tell; None where they do not."""
    if replace(question, state=None, discarded=None, broker=None) != Question():
        return None
    try:
        found = summary(connection, state_dir, whole=True)
    except _UNREADABLE:
        return None

    def number(of: Iterable[tuple[str, State, int]]) -> int:
        return sum(
            many
            for broker, state, many in of
            # Without a broker is what is only moved.
            if question.state in {None, state} and question.broker in {None, broker or None}
        )

    by_hand = ((b, State.VANISHED, many) for b, (many, _) in found.discarded.items())
    others = ((b, state, many) for (b, state), (many, _) in found.counts.items())
    return (0 if question.discarded is False else number(by_hand)) + (
        0 if question.discarded is True else number(others)
    )


def _with(part: _Part, before: tuple[int, int] | None) -> tuple[int, int]:
    if before is None:
        return part.number, part.oldest_ns
    return before[0] + part.number, min(before[1], part.oldest_ns)


def _archived(
    connection: sqlite3.Connection, state_dir: str, passed_over: Sequence[type[Exception]]
) -> Iterator[_Part]:
    """Yield what is in the archive and not in the journal as well."""
    files: list[archive.SegmentFile] = []
    with contextlib.suppress(*passed_over):
        files = archive.files(state_dir)
    for file in files:
        with contextlib.suppress(*passed_over):
            yield from _parts_of(connection, file)


def _parts_of(connection: sqlite3.Connection, file: archive.SegmentFile) -> list[_Part]:
    segment = Segment(file.path)
    try:
        twice = _in_both(connection, file, segment)
        found: dict[tuple[str, int, bool], _Part] = {}
        for kind in segment.kinds:
            key = kind.broker or "", int(kind.state), kind.discarded
            before = found.get(key)
            number = kind.rows if before is None else before.number + kind.rows
            oldest = kind.first_arrived_ns
            oldest = oldest if before is None else min(oldest, before.oldest_ns)
            found[key] = _Part(key[0], kind.state, kind.discarded, number, oldest)
        left = (part._replace(number=part.number - twice[key]) for key, part in found.items())
        return [part for part in left if part.number > 0]
    finally:
        segment.close()


def _in_both(
    connection: sqlite3.Connection, file: archive.SegmentFile, segment: Segment
) -> Counter[tuple[str, int, bool]]:
    """Count the rows of a segment that have not been cleared from the journal yet.

    What else ended there did so after the segment was made; but by the time alone that cannot be
    told, as the clock may have been set back.
    """
    found: Counter[tuple[str, int, bool]] = Counter()
    rows = connection.execute(_IN_BOTH, (file.first, file.last, segment.last_noted_ns))
    while some := rows.fetchmany(_TOGETHER):
        sealed = segment.holding([seq for seq, *_ in some])
        found.update(
            (broker, state, bool(by_hand)) for seq, broker, state, by_hand in some if seq in sealed
        )
    return found
