"""What is asked of the history: which deliveries are meant."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from functools import cached_property

from watchman.journal.record import Record
from watchman.model import State

LARGEST = (1 << 63) - 1
SMALLEST = -(1 << 63)
"""SQLite's integers."""
_WILD = re.compile(r"[*?\[]")
_APART = re.compile(r"[*?/]")


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory of a path with the slash behind it, and the name."""
    cut = path.rfind(b"/") + 1
    return path[:cut], path[cut:]


def behind(prefix: bytes) -> bytes | None:
    """Return the first of all bytes that come behind those with a prefix; None if none do."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _unsure(pattern: str) -> str:
    """Return a pattern without the directories that it begins with, and up to its brackets."""
    wild = _WILD.search(pattern)
    start = pattern.rfind("/", 0, wild.start()) + 1 if wild else 0
    return pattern[start:].partition("[")[0]


class Place:
    """One path, a directory with all below it, or an fnmatch pattern, as the file system's bytes.

    ``text`` is all of them at once: what has a bracket in it may be the name of a file.
    """

    def __init__(self, text: str) -> None:
        self.path = os.fsencode(text)
        self.directory, self.name = split(self.path)
        self.below = self.path.rstrip(b"/") + b"/"
        wild = _WILD.search(text)
        self.pattern = re.compile(fnmatch.translate(text)).match if wild else None
        self.prefix = os.fsencode(text[: wild.start()]) if wild else b""
        """What each path that matches begins with."""
        tail = text.rpartition("/")[2] if wild else ""
        self.tail = None if not tail or re.search(r"[*?\[\]]", tail) else os.fsencode(tail)
        """The whole name of each path that matches, where the pattern tells it."""
        self.run = max(map(os.fsencode, _APART.split(_unsure(text))), key=len)
        """What stands in each path that matches, within its directory or within its name."""

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

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The paths, understood."""
        return tuple(map(Place, self.paths))

    @property
    def has_time(self) -> bool:
        """Whether not every time is meant."""
        return (self.since_ns, self.until_ns) != (SMALLEST, LARGEST)

    @cached_property
    def has_patterns(self) -> bool:
        """Whether SQL alone cannot tell."""
        return any(place.pattern for place in self.places)

    @cached_property
    def can_be_met(self) -> bool:
        """Whether anything can have these names: what is no UTF-8 has never been written down."""
        try:
            for text in (self.broker, self.task, self.task_id):
                (text or "").encode()
        except UnicodeEncodeError:
            return False
        return True

    def means_path(self, source: bytes, final: bytes | None) -> bool:
        """Whether it is asked for by the paths before and after the move."""
        for place in self.places:
            if place.means(source) or (final is not None and place.means(final)):
                return True
        return not self.places

    def means(self, record: Record) -> bool:
        """Whether a delivery is meant."""
        return (
            self.since_ns <= record.arrived_ns <= self.until_ns
            and self.state in {None, record.state}
            and self.discarded in {None, record.word == "discarded"}
            and self.broker in {None, record.broker}
            and self.task in {None, record.task}
            and self.task_id in {None, record.task_id}
            and self.means_path(os.fsencode(record.source), os.fsencode(record.final))
        )
