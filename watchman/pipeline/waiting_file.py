"""A file that has criteria, and is not recorded yet; those of a loop that do not meet them."""

from __future__ import annotations

import contextlib
import enum
import itertools
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from watchman.identity import is_same
from watchman.model import Criteria, Delivery, Noted, Version
from watchman.pipeline.file_check import Companion
from watchman.pipeline.found import Found
from watchman.pipeline.pending_events import Key
from watchman.sources.tree import Root
from watchman.status import ShownPartial
from watchman.verdicts.pool import Lane, lane_of


class Progress(enum.Enum):
    """How far it is with a file; see ``partial_files``."""

    QUEUED = "queued"
    ASKED = "asked"
    WHOLE = "whole"
    PARTIAL = "partial"


class WholeMember(NamedTuple):
    """A member of a set that is what its own pattern or watch asks, and what stands beside it."""

    name: str
    version: Version
    companions: tuple[Companion, ...]


class WaitingFile:
    """A file that waits."""

    def __init__(self, found: Found, criteria: Criteria, since_ns: int) -> None:
        self.found = found
        self.key: Key = (found.node, found.name)
        """What it is found by."""
        self.criteria = criteria
        self.wait_since(since_ns)
        self.progress = Progress.QUEUED
        self.reason = ""
        self.is_unknown = False
        """Whether nobody could say; asked again when it is found again."""
        self.told = ""
        self.companions: tuple[Companion, ...] = ()
        self.awaited: set[str] = set()
        """Names of companions that may bring another answer when they come."""
        self.lane: Lane = lane_of(criteria.each, 0)
        """Where it waits to be asked about: by its functions, until there is no room in another."""
        self.takes_long = False
        """Whether it is asked about as a large file is, whatever its size."""
        self.is_stale = False
        """Whether something that it was judged by has come again since it was asked about."""
        self.is_brief = False
        """Whether it only waits for a moment, of which nobody is told."""
        self.last_came = time.monotonic()
        """When the last file of its set was found complete, by the monotonic clock."""
        self.is_again = False
        """Whether it is the main file of an earlier set, one member of which has come again."""
        self.members: tuple[Found, ...] = ()
        """The members that go with it."""
        self.whole_members: dict[str, WholeMember] = {}
        """Those of whose criteria nothing is left to be asked, by name."""
        self.member_read: WholeMember | None = None
        """The one that is asked about, if it is not the file itself."""
        self.earlier: Delivery | None = None
        """Of a file of a set: the delivery that takes it over, as its set has yet to be moved."""

    def is_whole_as(self, version: Version) -> bool:
        """Say whether it is whole in this version."""
        return self.progress is Progress.WHOLE and is_same(self.found.version, version)

    @property
    def is_member(self) -> bool:
        """Whether it goes with a main file: then it is judged alone only to be taken over."""
        return self.earlier is not None and not self.criteria.members

    @property
    def all_companions(self) -> list[Companion]:
        """What stands beside it, and beside the members that go with it."""
        found = list(self.companions)
        for member in self.members:
            whole = self.whole_members.get(member.name)
            found += whole.companions if whole is not None else ()
        return found

    def wait_since(self, since_ns: int) -> None:
        """Say since when it is as it is; from now on it does not matter how the clock is set.

        A time from the future was told by a clock that has been set back since: it waits anew.
        """
        now_ns = time.time_ns()
        self.since_ns = min(since_ns, now_ns)
        self._since = time.monotonic() - (now_ns - self.since_ns) / 1e9

    @property
    def age(self) -> float:
        """Seconds for which it has been as it is."""
        return time.monotonic() - self._since

    @property
    def due(self) -> float:
        """When, by the monotonic clock, its time is over."""
        return self._since + self.criteria.incomplete_after


class Admitted(NamedTuple):
    """What may be recorded of complete files that are not known."""

    files: dict[str, Found]
    noted: list[tuple[str, Version, Noted]]
    """Companions: they become known, and no more."""


class Incomplete(NamedTuple):
    """A file whose time is over."""

    found: Found
    criteria: Criteria
    reason: str
    members: tuple[Found, ...] = ()
    """Those of its set that are there."""


class Judged(NamedTuple):
    """What came of a look at what is asked."""

    whole: list[Found]
    """They may be recorded now: ``PartialFiles.admit`` lets them pass."""
    changed: list[Found]
    """They are not as they were, and have to be looked at again."""
    partial: list[WaitingFile]
    incomplete: list[Incomplete]
    """Their time is over. They wait until ``PartialFiles.recorded``."""


class PartialByWatch:
    """The files of one loop that are partial, by watch. Changed from its thread alone.

    ``waiting`` are all that the loop keeps.
    """

    def __init__(self, waiting: Mapping[Key, WaitingFile]) -> None:
        self._waiting = waiting
        self._files: dict[Root, dict[Key, WaitingFile]] = {}
        self.changed: set[Root] = set()
        """Watches whose partial files are others than before."""

    def add(self, waiting: WaitingFile) -> None:
        """Count a file in; it may be there already, and keeps its place then."""
        root = waiting.found.node.root
        self._files.setdefault(root, {})[waiting.key] = waiting
        self.changed.add(root)

    def drop(self, waiting: WaitingFile) -> None:
        """Count a file out; it need not be there."""
        root = waiting.found.node.root
        if self._files.get(root, {}).pop(waiting.key, None) is not None:
            self.changed.add(root)

    def take_changed(self) -> Iterator[tuple[Root, int, str, str]]:
        """Yield the watches with other partial files than before: how many, and one of them.

        With its path and the reason; empty where there are none any more.
        """
        while self.changed:
            root = self.changed.pop()
            files = self._files.get(root, {})
            one = next(iter(files.values()), None)
            path, reason = ("", "") if one is None else (one.found.path, one.reason)
            yield root, len(files), path, reason

    @property
    def count(self) -> int:
        """How many there are; from any thread."""
        return sum(map(len, list(self._files.values())))

    @property
    def unjudged(self) -> int:
        """How many wait for their first verdict, or for a moment; from any thread."""
        return max(0, len(self._waiting) - self.count)

    def oldest(self, most: int) -> list[ShownPartial]:
        """Return some, of those that were found to be partial first; from any thread."""
        found: list[WaitingFile] = []
        for files in list(self._files.values()):
            # Another thread may add one meanwhile.
            with contextlib.suppress(RuntimeError):
                found += list(itertools.islice(files.values(), most))
        found.sort(key=lambda one: one.since_ns)
        return [
            {"path": one.found.path, "since_ns": one.since_ns, "reason": one.reason}
            for one in found[:most]
        ]
