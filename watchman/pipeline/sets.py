"""The members of sets: which of them are complete, and whether a set may go.

A member gives no task of its own. From when it is complete until it is recorded together with its
main file it is kept here, and is not known: a scan finds it again, and what it goes with waits.

A set goes when all its files are complete, but for two cases in which it waits until ``set_after``
seconds have passed since the last of them came: an optional member is missing, or some of its files
are those of an earlier set, as is so when one of them is uploaded again. So re-uploads of several
files give one task, if each comes within that time of the one before. Where an earlier set has yet
to be moved, it takes over what comes again: there is no other then, and none of it is left behind.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Container, Iterable
from typing import NamedTuple

from watchman.directory_cache import DirectoryCache
from watchman.file_access import Seen, look
from watchman.identity import Evidence, is_same, is_same_content
from watchman.journal import Journal
from watchman.model import Delivery, Noted, Version
from watchman.pipeline.companions import Companions, name_for
from watchman.pipeline.file_check import THERE, are_missing
from watchman.pipeline.found import Found
from watchman.pipeline.log_criterion import (
    CALLED_INCOMPLETE,
    LATE,
    LOGGED,
    NOT_LOGGED,
    LogCriterion,
)
from watchman.pipeline.pending_events import Key
from watchman.pipeline.waiting_file import WaitingFile
from watchman.sources.tree import Node

FURTHER = "further files of its set may come"
"""Why a set waits that could go."""
AGAIN = 1.0
"""Seconds until a member is looked at again of which nothing could be told."""
KEPT = 3600.0
"""Seconds for which a member is kept whose main file does not come; then it becomes known."""
_TOGETHER = 1000
"""Members that become known in one commit."""


class SetState(NamedTuple):
    """What a look at the members of a set has found."""

    members: tuple[Found, ...]
    """Those that are there and complete, in the order of ``with``."""
    reason: str = ""
    """Why the set cannot go; empty if only time has to pass, or nothing."""
    due: float = 0.0
    """When it may go, by the monotonic clock, if nothing else comes."""
    to_look_at: tuple[Found, ...] = ()
    """Members that are there, and of which nobody has found out whether they are complete."""
    to_judge: tuple[Found, ...] = ()
    """Those of ``members`` that have not been in a set that was recorded."""
    error: int = 0
    """The errno with which a look at one failed: nothing can be told of the set then."""


class _Kept(NamedTuple):
    """A member that is complete and not recorded."""

    found: Found
    since: float
    """By the monotonic clock."""
    logged: str = ""
    """LOGGED where logs have let it pass, as it is; empty where they have not been asked."""


class Members:
    """The members of one loop that are complete and not recorded. Used from its thread."""

    def __init__(self, journal: Journal, companions: Companions, logs: LogCriterion | None) -> None:
        self._journal = journal
        self._companions = companions
        self._logs = logs
        self._complete: dict[Key, _Kept] = {}
        """The one that came first is the first."""
        self._main_files: dict[Key, str] = {}
        """Those that do not wait, and with which new members go; with their paths."""

    def __bool__(self) -> bool:
        return bool(self._complete or self._main_files)

    def add(self, found: Found) -> bool:
        """Keep a complete member; False where it is kept already, as it is."""
        key = found.node, found.name
        before = self._complete.get(key)
        if before is not None and is_same(before.found.version, found.version):
            return False
        self._complete.pop(key, None)
        self._complete[key] = _Kept(found, time.monotonic())
        return True

    def drop(self, members: Iterable[Found]) -> None:
        """Let go of members that are recorded."""
        for member in members:
            self._complete.pop((member.node, member.name), None)

    def forget(self, key: Key) -> None:
        """Let go of a member that is gone; it need not be one."""
        self._complete.pop(key, None)

    def forget_left(self) -> None:
        """Let go of what was in directories that left their names."""
        for key in [key for key in self._complete if key[0].is_left]:
            del self._complete[key]

    def note_old(self, now: float, waiting: Container[Key]) -> None:
        """Make known what has waited for long for a main file that is not ``waiting`` either.

        However much comes without a main file, it does not pile up; where that comes after all, it
        goes with what is there. ``now`` is of the monotonic clock.
        """
        old: list[Found] = []
        for found, since, _ in itertools.islice(self._complete.values(), _TOGETHER):
            if now - since < KEPT:
                break
            old.append(found)
        for found in old:
            kept = self._complete.pop((found.node, found.name))
            names = map(os.path.basename, self._companions.main_files(found.path))
            if any((found.node, name) in waiting for name in names):
                self._complete[found.node, found.name] = kept._replace(since=now)
        noted = [one for one in old if (one.node, one.name) not in self._complete]
        if noted:
            rows = [(one.path, one.version, Noted.MEMBER) for one in noted]
            self._journal.record((), rows)

    def look_at(self, main_file: Key, path: str) -> None:
        """Have a main file looked at that does not wait: a member of its set has come."""
        self._main_files[main_file] = path

    def known_main_files(self, directories: DirectoryCache[Node]) -> list[Found]:
        """Return those that are there, and known just as they are.

        One that is not there comes later, and one that is not known is found by itself. One that
        is being moved will not be there any more.
        """
        keys, self._main_files = self._main_files, {}
        known = self._journal.known.versions(keys.values()) if keys else {}
        found: list[Found] = []
        for (node, name), path in keys.items():
            before = known.get(path)
            if before is None or node.is_left or self.moving(path) is not None:
                continue
            descriptor = directories.get(node)
            if descriptor < 0:
                self._main_files[node, name] = path  # out of reach: nobody can tell
                continue
            version = look(name, descriptor).version
            if version is not None and is_same_content(before, version):
                found.append(Found(node, name, path, version, Evidence.SCAN))
        return found

    def moving(self, path: str) -> Delivery | None:
        """Return the delivery of an earlier version at a path, if its set has yet to be moved."""
        directory, _, name = path.rpartition("/")
        known = self._journal.known.lookup(directory, [name]).get(name)
        row = self._journal.moving(known.seq) if known is not None and known.seq > 0 else None
        return row if row is not None and row.bundle else None

    def is_taken_over(self, earlier: Delivery | None, version: Version, told: str = "") -> bool:
        """Have an earlier delivery, if there is one, be about this version; whether it is now."""
        return earlier is not None and self._journal.take_over(earlier, version, told)

    def look(self, waiting: WaitingFile, directory: int) -> SetState:
        """Look at the members of the set of a main file, in its open directory."""
        above = waiting.found.path[: waiting.found.path.rfind("/")]
        names = names_of(waiting)
        known = self._journal.known.lookup(above, names)
        into = _Seen(waiting)
        for name, optional in names.items():
            seen = look(name, directory)
            if seen.error:
                return SetState((), error=seen.error)
            node, path = waiting.found.node, f"{above}/{name}"
            if seen.version is None or seen.seen not in THERE:
                if seen.seen is Seen.BUSY and self._companions.is_ignored(path):
                    into.take_ignored(name, optional=optional)
                else:
                    into.take_absent(name, seen.seen, optional=optional)
                continue
            found = Found(node, name, path, seen.version, Evidence.SCAN)
            kept = self._complete.get((node, name))
            if kept is not None and is_same(kept.found.version, found.version):
                into.take(kept.found)
                if self._logs is not None:
                    before = into.before(name) or kept.logged
                    objection = self._logs.objection(kept.found, before)
                    if not objection:
                        self._complete[node, name] = kept._replace(logged=LOGGED)
                    into.take_objection(name, objection)
            elif name in known and is_same_content(known[name].version, found.version):
                if known[name].seq > 0 and self._journal.moving(known[name].seq) is not None:
                    # With a set that is broken, say: this one would lose it.
                    into.take_leaving(name, optional=optional)
                    continue
                into.take(found, is_judged=known[name].seq > 0)
                into.is_again = True
            elif self._companions.is_ignored(path):
                into.take_ignored(name, optional=optional)
            else:
                into.unsure.append(found)
                into.reasons.append(f"{name} is not complete yet")
        return into.state()

    def are_as_they_were(self, waiting: WaitingFile, directory: int) -> bool:
        """Whether the members that were to go with a main file still are as they were seen."""
        return all(
            (seen := look(member.name, directory)).seen in THERE
            and seen.version is not None
            and is_same(member.version, seen.version)
            for member in waiting.members
        )


class _Seen:
    """What is seen of the members of one set."""

    def __init__(self, waiting: WaitingFile) -> None:
        self._waiting = waiting
        self.members: list[Found] = []
        self.unsure: list[Found] = []
        self.reasons: list[str] = []
        self.is_again = waiting.is_again
        """Whether one of the files is that of an earlier set."""
        self._to_judge: list[Found] = []
        self._missing: list[str] = []
        self._is_without = False
        """Whether an optional member is missing."""
        self._due = 0.0

    def take(self, member: Found, *, is_judged: bool = False) -> None:
        """Take note of a member that is complete; ``is_judged`` if an earlier set was sent so."""
        self.members.append(member)
        if not is_judged:
            self._to_judge.append(member)

    def before(self, name: str) -> str:
        """Return what a log was said to have told of a member, before a restart maybe."""
        told = f"{name}: {CALLED_INCOMPLETE}" in self._waiting.reason
        return CALLED_INCOMPLETE if told else ""

    def take_absent(self, name: str, seen: Seen, *, optional: bool) -> None:
        """Take note of a member that is not there, or that somebody writes."""
        if seen is Seen.BUSY:
            self.reasons.append(f"{name} is being written")
        elif optional:
            self._is_without = True
        else:
            self._missing.append(name)

    def take_leaving(self, name: str, *, optional: bool) -> None:
        """Take note of a member that is moved for another delivery."""
        if optional:
            self._is_without = True
        else:
            self.reasons.append(f"{name} is being moved")

    def take_ignored(self, name: str, *, optional: bool) -> None:
        """Take note of a member that is never looked at."""
        if optional:
            self._is_without = True
        else:
            self.reasons.append(f"{name} is left out by IGNORE")

    def take_objection(self, name: str, objection: str) -> None:
        """Take note of why a member waits for a transfer log; most lines come at once."""
        late = self._waiting.last_came + LATE
        if objection is NOT_LOGGED and time.monotonic() < late:
            self._due = late
        elif objection:
            self.reasons.append(f"{name}: {objection}")

    def state(self) -> SetState:
        """Return what comes of it."""
        if self._missing:
            self.reasons.insert(0, are_missing(self._missing))
        if self._is_without or self.is_again:
            waiting = self._waiting
            self._due = max(self._due, waiting.last_came + waiting.criteria.set_after)
        reason, unsure = "; ".join(self.reasons), tuple(self.unsure)
        return SetState(tuple(self.members), reason, self._due, unsure, tuple(self._to_judge))


def names_of(waiting: WaitingFile) -> dict[str, bool]:
    """Return how the members of a set are called, and whether each is optional."""
    main = waiting.found.name
    return {name_for(one.template, main): one.optional for one in waiting.criteria.members}
