"""What is asked of the history: which deliveries are meant."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import string
from dataclasses import dataclass
from functools import cached_property

from watchman.journal.record import Record
from watchman.model import State

LARGEST = (1 << 63) - 1
SMALLEST = -(1 << 63)
"""SQLite's integers."""
_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}
_WILD = re.compile(r"[*?\[]")
_MOST_RUNS = 4
WITHOUT_REASON = frozenset({State.SENT, State.MOVED})
"""What ended as it should has no reason, so that none of it is looked at for one."""


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory of a path with the slash behind it, and the name."""
    cut = path.rfind(b"/") + 1
    return path[:cut], path[cut:]


def by_name(name: str) -> tuple[str, ...]:
    """Return the paths that ask for a name in any directory: as it stands, then as a pattern.

    A file may be called ``data[1].csv``, which is a pattern that does not match itself.
    """
    as_it_stands = (f"*/{glob.escape(name)}",) if "[" in name else ()
    return *as_it_stands, f"*/{name}"


def ascii_lower(text: str) -> str:
    """Return the text with its ASCII letters in lower case, as SQLite's ``lower`` does."""
    return text.translate(_LOWER)


def behind(prefix: bytes) -> bytes | None:
    """Return the first of all bytes that come behind those with a prefix; None if none do."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def extension(name: bytes) -> bytes | None:
    """Return what stands behind the last dot of a name; None where it has none."""
    _, dot, found = name.rpartition(b".")
    return found if dot else None


def _runs(pattern: str) -> list[str]:
    """Return what stands for itself between the wild parts of a pattern and its slashes.

    Without the directories that it begins with; the last one is what it ends with, perhaps nothing.
    Brackets end where fnmatch has them end.
    """
    wild = _WILD.search(pattern)
    at = pattern.rfind("/", 0, wild.start()) + 1 if wild else 0
    runs, length = [""], len(pattern)
    while at < length:
        letter = pattern[at]
        end = _end_of_brackets(pattern, at) if letter == "[" else at
        if letter in "*?/" or end > at:
            runs.append("")
        else:
            runs[-1] += letter
        at = end + 1
    return runs


def _end_of_brackets(pattern: str, at: int) -> int:
    """Return where the brackets end that are opened; ``at`` itself where they never do."""
    start = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
    # One that comes first is one of the letters.
    return max(pattern.find("]", start + (pattern[start : start + 1] == "]")), at)


class AskedPath:
    """One path, a directory with all below it, or an fnmatch pattern, as the file system's bytes.

    ``text`` is all of them at once: what has a bracket in it may be the name of a file.
    """

    def __init__(self, text: str, *, plain: bool = False) -> None:
        """``plain``: it is no pattern, whatever is in it."""
        self.path = os.fsencode(text)
        self.directory, self.name = split(self.path)
        self.below = self.path.rstrip(b"/") + b"/"
        wild = None if plain else _WILD.search(text)
        self.pattern = re.compile(fnmatch.translate(text)).match if wild else None
        self.prefix = os.fsencode(text[: wild.start()]) if wild else b""
        """What each path that matches begins with."""
        tail = text.rpartition("/")[2] if wild else ""
        self.tail = None if not tail or re.search(r"[*?\[\]]", tail) else os.fsencode(tail)
        """The whole name of each path that matches, where the pattern tells it."""
        runs = [] if plain else list(map(os.fsencode, _runs(text)))
        self.extension = extension(runs[-1]) if wild else None
        """That of each name that matches, where the pattern tells it."""
        self.runs = sorted({run for run in runs if run}, key=len, reverse=True)[:_MOST_RUNS]
        """What stands in each path that matches, each within its directory or within its name."""

    def means(self, path: bytes) -> bool:
        """Whether it is that path, above it, or a pattern that it matches."""
        return (
            path == self.path
            or path.startswith(self.below)
            or (self.pattern is not None and self.pattern(os.fsdecode(path)) is not None)
        )


@dataclass(frozen=True)
class Question:
    """Which deliveries are meant: all that are asked for hold of them."""

    paths: tuple[str, ...] = ()
    """Any of these, before or after the move: a file, a directory with all below it, a pattern."""
    since_ns: int = SMALLEST
    until_ns: int = LARGEST
    """When it arrived, both included."""
    state: State | None = None
    discarded: bool | None = None
    """Among those that vanished: whether somebody gave them up; None for either."""
    broker: str | None = None
    task: str | None = None
    task_id: str | None = None
    reason: str | None = None
    """A part of the reason, whatever the case of its ASCII letters. What was sent or only moved has
    none."""
    directory: str | None = None
    """What is below it, before or after the move; ``paths`` must hold as well."""
    seqs: frozenset[int] | None = None
    """Only these; None for any."""
    up_to: int = LARGEST
    """Only what has no greater seq: where a list goes on."""

    @cached_property
    def asked_paths(self) -> tuple[AskedPath, ...]:
        """The paths, understood."""
        return tuple(map(AskedPath, self.paths))

    @cached_property
    def asked_directory(self) -> AskedPath | None:
        """The directory, understood: no pattern, whatever it looks like."""
        return None if self.directory is None else AskedPath(self.directory, plain=True)

    @property
    def reason_part(self) -> str:
        """The reason as it is compared: in small letters as SQLite makes them, ASCII alone."""
        return ascii_lower(self.reason or "")

    def may_be_in(self, state: State) -> bool:
        """Whether deliveries in a state can be meant."""
        return self.state in {None, state} and (self.reason is None or state not in WITHOUT_REASON)

    def may_be_among(self, first: int, last: int) -> bool:
        """Whether deliveries with seqs from ``first`` to ``last`` can be meant."""
        if self.seqs is not None:
            return any(first <= seq <= min(last, self.up_to) for seq in self.seqs)
        return first <= self.up_to

    @property
    def has_time(self) -> bool:
        """Whether not every time is meant."""
        return (self.since_ns, self.until_ns) != (SMALLEST, LARGEST)

    @cached_property
    def has_patterns(self) -> bool:
        """Whether SQL alone cannot tell."""
        return any(asked.pattern for asked in self.asked_paths)

    @cached_property
    def can_be_met(self) -> bool:
        """Whether anything can be meant: what is no UTF-8 has never been written down.

        Of no seqs at all SQLite cannot make a query by an index.
        """
        if self.seqs is not None and not self.seqs:
            return False
        try:
            for text in (self.broker, self.task, self.task_id, self.reason):
                (text or "").encode()
        except UnicodeEncodeError:
            return False
        return True

    def means_path(self, source: bytes, final: bytes | None) -> bool:
        """Whether it is asked for by the paths before and after the move."""
        paths = [source] if final is None else [source, final]
        if self.asked_directory and not any(map(self.asked_directory.means, paths)):
            return False
        for asked in self.asked_paths:
            if any(map(asked.means, paths)):
                return True
        return not self.asked_paths

    def means(self, record: Record) -> bool:
        """Whether a delivery is meant."""
        return (
            self.since_ns <= record.arrived_ns <= self.until_ns
            and self.state in {None, record.state}
            and self.discarded in {None, record.word == "discarded"}
            and self.broker in {None, record.broker}
            and self.task in {None, record.task}
            and self.task_id in {None, record.task_id}
            and (self.reason is None or self.reason_part in ascii_lower(record.reason))
            and record.seq <= self.up_to
            and (self.seqs is None or record.seq in self.seqs)
            and self.means_path(os.fsencode(record.source), os.fsencode(record.final))
        )
