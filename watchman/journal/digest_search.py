"""Where in the journal the deliveries can be that are asked for, by its digests and counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from watchman.journal import digests, soundness
from watchman.journal.question import LARGEST, SMALLEST, AskedPath, Question
from watchman.model import State

_BROKERS_OF_TASK = "SELECT DISTINCT broker FROM routes WHERE task = ?"
_COUNTED = "SELECT broker, state, discarded FROM tallies WHERE count > 0"
_DIGESTS = """SELECT block, CASE WHEN earliest_ns <= ? AND latest_ns >= ? THEN {} END FROM digests
    ORDER BY block DESC"""


def ranges(connection: sqlite3.Connection, question: Question) -> Iterator[tuple[int, int]]:
    """Yield first and last seq of where deliveries can be that are meant, the newest first."""
    if not _are_any(connection, question):
        return
    groups = _wanted(question)
    end = LARGEST
    # Python finds bytes in bytes several times faster than SQLite's instr() does.
    query = _DIGESTS.format("hashes" if groups else "x''")
    times = question.until_ns, question.since_ns
    for block, hashes in connection.execute(query, times) if groups or question.has_time else ():
        with soundness.understanding("a digest"):
            may_be_there = hashes is not None and all(
                any(all(one in hashes for one in way) for way in ways) for ways in groups
            )
        if not may_be_there:
            first, last = digests.seqs(block)
            if last < end:
                yield last + 1, end
            end = first - 1
    yield SMALLEST, end


def _are_any(connection: sqlite3.Connection, question: Question) -> bool:
    """Whether the journal counts deliveries in the states that are asked for, to the brokers."""
    if (question.state, question.reason, question.broker, question.task) == (None,) * 4:
        return True
    brokers: set[str] | None = None if question.broker is None else {question.broker}
    if question.task is not None:
        of_task = {name for (name,) in connection.execute(_BROKERS_OF_TASK, (question.task,))}
        brokers = of_task if brokers is None else brokers & of_task
    with soundness.understanding("a count of deliveries"):
        return any(
            question.may_be_in(State(state))
            and question.discarded in {None, bool(discarded)}
            and (brokers is None or broker in brokers)
            for broker, state, discarded in connection.execute(_COUNTED)
        )


_Way = tuple[bytes, ...]
"""Hashes that are all in the digest of what is meant in one way."""


def _wanted(question: Question) -> list[set[_Way]]:
    """Return groups, of each of which one must be in a digest; none where nothing tells."""
    groups: list[set[_Way]] = []
    if question.task_id is not None:
        groups.append({(digests.of_id(question.task_id),)})
    if question.task is not None:
        groups.append({(digests.of_task(question.task),)})
    if question.broker is not None:
        groups.append({(digests.of_broker(question.broker),)})
    if question.asked_directory:
        groups.append(_as_it_stands(question.asked_directory))
    if question.asked_paths:
        ways: set[_Way] = set()
        for asked in question.asked_paths:
            ways |= _as_it_stands(asked)
            if asked.pattern:
                ways.add(_of_pattern(asked))
        if () not in ways:
            groups.append(ways)
    return groups


def _as_it_stands(asked: AskedPath) -> set[_Way]:
    """Return the hashes of a file, and of a directory with what is below it."""
    return {(digests.of_name(asked.name),), (digests.of_directory(asked.below[:-1]),)}


def _of_pattern(asked: AskedPath) -> _Way:
    """Return the hashes that each path has that matches; none where the pattern does not tell."""
    found = []
    if asked.tail is not None:
        found.append(digests.of_name(asked.tail))
    elif asked.extension is not None:
        found.append(digests.of_extension(asked.extension))
    directory, slash, _ = asked.prefix.rpartition(b"/")
    if slash and directory:
        found.append(digests.of_directory(directory))
    return tuple(found)
