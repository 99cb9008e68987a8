"""What is asked of a file that waits, in its order: by logs, beside it, of its set, by reading.

The members of a set are asked what their own pattern or watch asks, each by itself, when all are
there; the main file comes last. What has to be read takes a verdict, and then the next is asked.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import NamedTuple

from watchman.file_access import GONE_ERRNOS, LATER_ERRNOS
from watchman.identity import is_same
from watchman.model import Criteria
from watchman.pipeline.companions import Companions
from watchman.pipeline.file_check import FileCheck
from watchman.pipeline.found import Found
from watchman.pipeline.log_criterion import LATE, NOT_LOGGED, LogCriterion
from watchman.pipeline.sets import AGAIN, FURTHER, Members, names_of
from watchman.pipeline.waiting_file import Progress, WaitingFile, WholeMember
from watchman.sources.tree import why_unreachable
from watchman.verdicts.pool import LARGE, NO_ANSWER, TAKES_LONG, Pool, lane_of
from watchman.verdicts.verdict import FileVerdict, Kind


class Said(NamedTuple):
    """What became of a question."""

    progress: Progress
    """QUEUED where there is no room for it now."""
    reason: str = ""
    """Why it is partial; empty where nobody is to be told."""
    due: float = 0.0
    """Of what only waits for a moment: until when, by the monotonic clock."""
    to_look_at: tuple[Found, ...] = ()
    """Members that are there, and of which nobody has found out whether they are complete."""
    is_changed: bool = False
    """Whether the file is not as it was."""
    error: int = 0
    """The errno that keeps it waiting; it is told where that lasts."""


_WHOLE, _ASKED, _NO_ROOM = Said(Progress.WHOLE), Said(Progress.ASKED), Said(Progress.QUEUED)


class Judge:
    """Asks about the files of one loop. Used from its thread.

    ``pool`` is None where nothing is asked that is to be read, ``logs`` where none are read.
    ``answered`` is called with each verdict, in the pool's thread.
    """

    def __init__(
        self,
        pool: Pool | None,
        companions: Companions,
        members: Members,
        logs: LogCriterion | None,
        answered: Callable[[WaitingFile, FileVerdict], None],
    ) -> None:
        self._pool = pool
        self._companions = companions
        self._members = members
        self._logs = logs
        self._answered = answered

    def ask(self, waiting: WaitingFile, directory: int) -> Said:
        """Ask about a file in its open directory, as far as that takes no verdict."""
        if directory < 0:
            return briefly(error=why_unreachable(directory))  # or gone, which an event tells
        found = waiting.found
        objection = "" if self._logs is None else self._logs.objection(found, waiting.reason)
        # Whether it is to be asked about again when a log tells more of it.
        waiting.is_unknown = bool(objection)
        if objection:
            left = LATE - waiting.age
            if objection is NOT_LOGGED and left > 0:
                return briefly(left)  # most lines come at once
            return Said(Progress.PARTIAL, objection)
        with FileCheck(found.name, found.version, directory, waiting.criteria) as check:
            try:
                reason = check.look_beside()
            except OSError as error:
                return briefly(error=error.errno or errno.EIO)  # unknown is not missing
            waiting.awaited.update(check.awaited)
            if waiting.criteria.members:
                waiting.awaited.update(names_of(waiting))
            if reason:
                return Said(Progress.PARTIAL, reason)
            waiting.companions = tuple(check.companions)
            said = self._ask_of_set(waiting, directory)
            if said is None:
                said = self._have_read(waiting, found, check) if check.is_to_be_read else _WHOLE
            return said

    def take(self, waiting: WaitingFile, verdict: FileVerdict) -> Said:
        """Say what a verdict means for a file; QUEUED where more is asked than what was read."""
        member = waiting.member_read
        if verdict.kind is not Kind.WHOLE:
            waiting.is_unknown = verdict.kind is Kind.UNKNOWN
            of_member = f"{member.name}: " if member is not None else ""
            # A reason it must have: without one it would wait for ever, and nobody be told.
            return Said(Progress.PARTIAL, of_member + (verdict.reason or "it is not whole"))
        if member is None:
            waiting.told = verdict.checksum
            return _WHOLE
        waiting.whole_members[member.name] = member
        return Said(Progress.QUEUED)

    def _ask_of_set(self, waiting: WaitingFile, directory: int) -> Said | None:
        """Say why a file waits for its set; None if it need not."""
        if not waiting.criteria.members or waiting.earlier is not None:
            return None
        found = self._members.look(waiting, directory)
        if found.reason:
            return Said(Progress.PARTIAL, found.reason, to_look_at=found.to_look_at)
        if found.error:
            return briefly(error=found.error)
        waiting.members = found.members
        for member in found.to_judge:
            asked = self._companions.criteria_of_member(member.path, waiting.found.path)
            whole = waiting.whole_members.get(member.name)
            if asked is None or (whole is not None and is_same(whole.version, member.version)):
                continue
            said = self._ask_of_member(waiting, member, asked, directory)
            if said is not None:
                return said
        if found.due > time.monotonic():
            return Said(Progress.PARTIAL, FURTHER if waiting.reason else "", found.due)
        return None

    def _ask_of_member(
        self, waiting: WaitingFile, member: Found, asked: Criteria, directory: int
    ) -> Said | None:
        """Say what of a member keeps its set waiting; None if it is whole."""
        with FileCheck(member.name, member.version, directory, asked) as check:
            try:
                reason = check.look_beside()
            except OSError as error:
                return briefly(error=error.errno or errno.EIO)
            waiting.awaited.update(check.awaited)
            if reason:
                return Said(Progress.PARTIAL, f"{member.name}: {reason}")
            if check.is_to_be_read:
                return self._have_read(waiting, member, check)
            whole = WholeMember(member.name, member.version, tuple(check.companions))
            waiting.whole_members[member.name] = whole
            return None

    def _have_read(self, waiting: WaitingFile, found: Found, check: FileCheck) -> Said:
        """Have a file, or a member of its set, read by the pool."""
        is_member = found is not waiting.found
        try:
            version = check.open()
        except OSError as error:
            if error.errno in GONE_ERRNOS:
                return briefly()  # an event follows, unless it is a companion that comes again
            if error.errno in LATER_ERRNOS:
                return briefly(error=error.errno or errno.EIO)
            waiting.is_unknown = True
            of_member = f"{found.name}: " if is_member else ""
            return Said(Progress.PARTIAL, f"{of_member}it cannot be read: {error.strerror}")
        if not is_same(found.version, version):
            if is_member:
                return briefly()._replace(to_look_at=(found,))
            return Said(Progress.PARTIAL, is_changed=True)
        waiting.is_stale, waiting.member_read = False, None
        if is_member:
            waiting.member_read = WholeMember(found.name, found.version, tuple(check.companions))

        def answered(verdict: FileVerdict) -> None:
            waiting.takes_long |= verdict is TAKES_LONG
            self._answered(waiting, NO_ANSWER if verdict is TAKES_LONG else verdict)

        assert self._pool is not None
        size = max(found.version.size, LARGE if waiting.takes_long else 0)
        if not self._pool.ask(found.path, check.asked, check.descriptors, size, answered):
            waiting.lane = lane_of(check.asked, size)
            return _NO_ROOM
        check.descriptors = []  # they are the pool's now
        return _ASKED

    def flush(self) -> None:
        """Have all files read that were asked about."""
        if self._pool is not None:
            self._pool.flush()


def briefly(seconds: float = AGAIN, error: int = 0) -> Said:
    """Say that a file only waits for a moment, of which nobody is told unless it lasts."""
    return Said(Progress.PARTIAL, due=time.monotonic() + seconds, error=error)
