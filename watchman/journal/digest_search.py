"""Where in the journal the deliveries can be that are asked for, by its digests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from watchman.journal import digests, soundness
from watchman.journal.question import LARGEST, SMALLEST, AskedPath, Question


def ranges(connection: sqlite3.Connection, question: Question) -> Iterator[tuple[int, int]]:
    """Yield first and last seq of where deliveries can be that are meant, the newest first."""
    groups = _wanted(question)
    end = LARGEST
    # Python finds bytes in bytes several times faster than SQLite's instr() does.
    query = "SELECT block, hashes FROM digests ORDER BY block DESC"
    for block, hashes in connection.execute(query) if groups else ():
        with soundness.understanding("a digest"):
            may_be_there = all(any(one in hashes for one in group) for group in groups)
        if not may_be_there:
            first, last = digests.seqs(block)
            if last < end:
                yield last + 1, end
            end = first - 1
    yield SMALLEST, end


def _wanted(question: Question) -> list[set[bytes]]:
    """Return hashes: of each group one must be in a digest. None where nothing narrows it down."""
    groups: list[set[bytes]] = []
    if question.task_id is not None:
        groups.append({digests.of_id(question.task_id)})
    if question.asked_directory:
        groups.append(_as_it_stands(question.asked_directory))
    if question.asked_paths:
        paths: set[bytes] = set()
        for asked in question.asked_paths:
            narrowed = _as_it_stands(asked)
            if asked.pattern:
                pattern = _of_pattern(asked)
                if pattern is None:
                    return groups
                narrowed.add(pattern)
            paths |= narrowed
        groups.append(paths)
    return groups


def _as_it_stands(asked: AskedPath) -> set[bytes]:
    """Return the hashes of a file, and of a directory with what is below it."""
    return {digests.of_name(asked.name), digests.of_directory(asked.below[:-1])}


def _of_pattern(asked: AskedPath) -> bytes | None:
    """Return the hash that each path has that matches; None where the pattern does not tell."""
    if asked.tail is not None:
        return digests.of_name(asked.tail)
    directory, slash, _ = asked.prefix.rpartition(b"/")
    return digests.of_directory(directory) if slash and directory else None
