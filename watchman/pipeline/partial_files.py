"""Complete files that do not meet their criteria yet: asked about, waited for, given up.

Between "is it known?" and "record it" a file with criteria takes this way. Nothing of it is a
state of a delivery: there is none yet, and what is kept here a scan would find again.

==========  ==========================================  ==================  ======================
stage       what is true                                what ends it        after a restart
==========  ==========================================  ==================  ======================
QUEUED      complete, and not known; nobody has looked  its turn            found by the scan, and
            into it                                                         queued again
ASKED       a process reads it                          a verdict           the same
WHOLE       it was whole in the version that was read   recorded, if it is  the same: asked once
                                                        still this version  more
PARTIAL     it is not, or a companion or a member of    it changes, or its  in the journal's
            its set is missing or not whole; in the     companion comes:    ``partial``: since
            journal's table ``partial``, unless it only QUEUED; its time    when is still known
            waits for a moment                          is over: recorded
                                                        as incomplete
MEMBER      complete, and not known; it goes with a     recorded with its   found by the scan: its
            main file (``sets.py``)                     main file           main file is looked at
==========  ==========================================  ==================  ======================

Removed or renamed, it is dropped in each of them. The order that must hold: what was known at the
path is forgotten before the file begins to wait, so that a crash leaves one that is not known; it
is recorded before it leaves ``partial``, and a row there about a file that is known means nothing.
A set is recorded in one commit; until then its members are not known, and each brings the others.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from watchman.directory_cache import DirectoryCache
from watchman.file_access import look
from watchman.identity import Evidence, is_same
from watchman.journal import Journal
from watchman.model import Criteria, Delivery, Noted, Version, Watch
from watchman.pipeline.companions import Companions
from watchman.pipeline.file_check import THERE, Companion
from watchman.pipeline.found import Found
from watchman.pipeline.judge import Judge, Said
from watchman.pipeline.log_criterion import NOTHING_ELSE, LogCriterion
from watchman.pipeline.partial_memory import PartialMemory
from watchman.pipeline.pending_events import Key
from watchman.pipeline.question_queue import SOME, QuestionQueue
from watchman.pipeline.sets import Members
from watchman.pipeline.unseen import Unseen
from watchman.pipeline.waiting_file import (
    Admitted,
    Incomplete,
    Judged,
    PartialByWatch,
    Progress,
    WaitingFile,
)
from watchman.router import Router
from watchman.sources.source import Source
from watchman.sources.tree import Node
from watchman.text import printable
from watchman.timers import Timers
from watchman.troubles import Troubles
from watchman.verdicts.pool import NO_ANSWER, Lane, Pool
from watchman.verdicts.verdict import FileVerdict

log = logging.getLogger("watchman.notify")


class PartialFiles:
    """The files of one loop. Used from its thread, but for what the pool calls.

    ``pool`` is None where nothing is asked that is to be read, ``logs`` where none are read.
    """

    def __init__(
        self,
        journal: Journal,
        router: Router,
        source: Source,
        pool: Pool | None,
        companions: Companions,
        troubles: Troubles,
        logs: LogCriterion | None = None,
    ) -> None:
        self._journal = journal
        self._router = router
        self._source = source
        self.companions = companions
        self._logs = logs
        self._members = Members(journal, companions, logs)
        self._judge = Judge(pool, companions, self._members, logs, self._answered)
        self._waiting: dict[Key, WaitingFile] = {}
        self._earlier: dict[Key, Delivery] = {}
        """What is to take over a file that is looked at again, as in :class:`WaitingFile`."""
        self._queue = QuestionQueue()
        self._answers: collections.deque[tuple[WaitingFile, FileVerdict]] = collections.deque()
        """Added to by the pool's thread."""
        self._awaited: dict[Key, set[Key]] = {}
        """By the companion's directory and name: the files that it tells of."""
        self._times: Timers[Key] = Timers()
        self._memory = PartialMemory(journal, source)
        self.partial = PartialByWatch(self._waiting)
        self.unread = Unseen(troubles, source, "files", "read")

    def load(self, watch: Watch) -> None:
        """Read what an earlier process has left of a watch; before its first scan."""
        self._memory.load(watch)

    def __bool__(self) -> bool:
        return bool(
            self._waiting or self._answers or self._memory or self._members or self.partial.changed
        )

    def is_remembered(self, path: str) -> bool:
        """Say whether a file waited when the process before this one ended."""
        return self._memory.before(path) is not None

    # What is found

    def admit(self, unknown: Mapping[str, Found], known: Collection[str]) -> Admitted:
        """Sort complete files that are not known, by path; those that wait are kept here.

        ``known`` are those of the paths at which an earlier version is known.
        """
        files: dict[str, Found] = {}
        noted: list[tuple[str, Version, Noted]] = []
        begun: list[str] = []
        for path, found in unknown.items():
            waiting = self._waiting.get((found.node, found.name))
            if waiting is not None and waiting.is_whole_as(found.version):
                files[path] = found
                continue
            if self.companions.tells_of_another(path):
                noted.append((path, found.version, Noted.COMPANION))
                self.companion_came((found.node, found.name))
                continue
            main_files = self.companions.main_files(path)
            if main_files:
                earlier = self._earlier_set_of(found, is_known=path in known)
                asked = self.companions.criteria_of_member(path, main_files[0])
                if asked is None and self._members.is_taken_over(earlier, found.version):
                    continue
                begun.append(path)
                if asked is not None and earlier is not None:
                    self._begin(found, asked, earlier)
                    continue
                if waiting is not None:
                    self._drop(waiting)  # the set has ended that would have taken it over
                self._memory.forget([path])
                self._member_came(found, main_files, noted)
                continue
            criteria = self._criteria(found)
            if criteria is None:
                files[path] = found
            else:
                begun.append(path)
                of_set = bool(criteria.members)
                earlier = self._earlier_set_of(found, is_known=of_set and path in known)
                self._begin(found, criteria, earlier)
        # Before anything else is done about them: see the module.
        again = set(known).intersection(begun)
        if again:
            self._journal.known.forget(again)
        return Admitted(files, noted)

    def _member_came(
        self,
        found: Found,
        main_files: Iterable[str],
        noted: list[tuple[str, Version, Noted]],
    ) -> None:
        """Keep a complete member, and have the files looked at that it goes with."""
        if all(map(self._router.is_dry_run, main_files)):
            noted.append((found.path, found.version, Noted.DRY_RUN))
            return
        is_new = self._members.add(found)
        for path in main_files:
            key = found.node, path[path.rfind("/") + 1 :]
            waiting = self._waiting.get(key)
            if waiting is None:
                if is_new:
                    self._members.look_at(key, path)
                continue
            if is_new:
                waiting.last_came = time.monotonic()
                waiting.wait_since(time.time_ns())
                self._times.set(key, waiting.due)
            self._ask_again(waiting)

    def _criteria(self, found: Found) -> Criteria | None:
        """Return what is asked of a file; nothing where it is neither moved nor announced."""
        path = found.path
        criteria = self.companions.criteria(path)
        if criteria is None and self._logs is None:
            return None  # most files, where anything is asked of others
        if not self._router.is_wanted(path) or self._router.is_dry_run(path):
            return None
        if criteria is None and self._logs is not None:
            before = self._memory.before(path)
            same = before is not None and is_same(before.version, found.version)
            if self._logs.objection(found, before.reason if before and same else ""):
                return NOTHING_ELSE
        return criteria

    def _earlier_set_of(self, found: Found, *, is_known: bool) -> Delivery | None:
        """Return the delivery that a file of a set is to be taken over by when it is whole.

        Its set has yet to be moved. ``is_known`` if an earlier version of the file is known.
        """
        key = found.node, found.name
        # What is known was forgotten when it began to wait.
        waiting, earlier = self._waiting.get(key), self._earlier.pop(key, None)
        if waiting is not None:
            earlier = waiting.earlier
        elif earlier is None and is_known:
            earlier = self._members.moving(found.path)
        if earlier is None or not self._journal.can_be_taken_over(earlier):
            return None
        return earlier

    def _begin(self, found: Found, criteria: Criteria, earlier: Delivery | None) -> None:
        """Have a file judged, unless that is being done, or was, as it is now."""
        waiting = self._waiting.get((found.node, found.name))
        if waiting is not None:
            found = found._replace(evidence=max(found.evidence, waiting.found.evidence))
            if is_same(waiting.found.version, found.version):
                waiting.found = found
                if waiting.is_unknown:
                    self._put(waiting)
                return
            self._drop(waiting)
        since_ns = time.time_ns()
        before = self._memory.take(found.path)
        new = WaitingFile(found, criteria, since_ns)
        if before is not None and is_same(before.version, found.version):
            new.wait_since(before.since_ns)
            new.reason = before.reason
        new.earlier = earlier
        self._add(new)

    def _add(self, new: WaitingFile) -> None:
        self._waiting[new.key] = new
        self._put(new)

    def _put(self, waiting: WaitingFile) -> None:
        """Have a file asked about, behind those that are asked about already."""
        waiting.progress = Progress.QUEUED
        self._queue.put(waiting.key, waiting.lane)

    def _ask_again(self, waiting: WaitingFile) -> None:
        """Have a file asked about once more, since something that it is judged by has come."""
        waiting.is_stale = True
        if waiting.progress is Progress.PARTIAL:
            self._put(waiting)

    def companion_came(self, key: Key) -> None:
        """Look again at the files that a companion tells of; most files are none."""
        for other in self._awaited.get(key, ()):
            waiting = self._waiting.get(other)
            if waiting is not None:
                self._ask_again(waiting)

    def forget(self, key: Key) -> None:
        """Wait no longer for a file that is gone."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._drop(waiting)
            self._memory.forget([waiting.found.path])
        self._earlier.pop(key, None)
        self._members.forget(key)
        self.companion_came(key)  # that it is not there is another reason to wait

    def _drop(self, waiting: WaitingFile) -> None:
        """Wait no longer for a file in this version."""
        key = waiting.key
        del self._waiting[key]
        self._queue.drop(key, waiting.lane)
        self._times.drop(key)
        self.partial.drop(waiting)
        self.unread.note(key)
        for name in waiting.awaited:
            files = self._awaited.get((key[0], name), set())
            files.discard(key)
            if not files:
                self._awaited.pop((key[0], name), None)

    def forget_left(self) -> None:
        """Wait no longer for what was in directories that left their names."""
        for key in [key for key in (*self._waiting, *self._earlier) if key[0].is_left]:
            self.forget(key)
        self._members.forget_left()

    def forget_missing(self, *unsettled: Container[Key]) -> None:
        """Drop what a scan of everything has not found again; what is ``unsettled``, it has."""
        self._memory.forget_missing(unsettled)

    # What is due

    def next_due(self) -> float | None:
        """When, by the monotonic clock, the time of a file is over."""
        return self._times.next()

    def recorded(self, files: Iterable[Found]) -> list[tuple[Key, Companion]]:
        """Take note that these are recorded; return companions that are to be removed."""
        removed: list[tuple[Key, Companion]] = []
        for found in files:
            waiting = self._waiting.get((found.node, found.name))
            if waiting is None:
                continue
            self._drop(waiting)
            self._members.drop(waiting.members)
            if waiting.progress is Progress.WHOLE:
                beside = waiting.all_companions
                removed += [(waiting.key, one) for one in beside if one.action == "remove"]
        self._memory.forget(found.path for found in files)
        return removed

    def discard(self, files: Iterable[Found]) -> None:
        """Wait no longer for these: they were whole, and turned out to be known, or not wanted."""
        for found in files:
            waiting = self._waiting.get((found.node, found.name))
            if waiting is not None and waiting.progress is Progress.WHOLE:
                self._drop(waiting)
                self._memory.forget([found.path])

    def told(self, found: Found) -> str:
        """Return what was told of a whole file: its verified checksum, if any."""
        waiting = self._waiting.get((found.node, found.name))
        return "" if waiting is None else waiting.told

    def moved_along(self, found: Found) -> list[Found]:
        """Return the companions that are moved with a file, and with the members of its set."""
        waiting = self._waiting.get((found.node, found.name))
        if waiting is None or not (waiting.companions or waiting.members):
            return []
        directory = found.path[: found.path.rfind("/") + 1]
        return [
            Found(found.node, one.name, directory + one.name, one.version, Evidence.SCAN)
            for one in waiting.all_companions
            if one.action == "move"
        ]

    def members(self, found: Found) -> tuple[Found, ...] | None:
        """Return the members that go with a whole file; None where it is of no set."""
        waiting = self._waiting.get((found.node, found.name))
        return waiting.members if waiting is not None and waiting.criteria.members else None

    def set_aside(self, members: Iterable[Found]) -> None:
        """Take note that these are recorded without their set, which is incomplete."""
        self._members.drop(members)

    # What is asked

    def step(self, directories: DirectoryCache[Node], now: float) -> Judged:
        """Take the answers that came, ask on, and give up whose time is over: some of each.

        What was judged is recorded before the next are. ``now`` is of the monotonic clock.
        """
        into = Judged([], [], [], [])
        self._members.note_old(now, self._waiting)
        self._look_at_main_files(directories)
        for _ in range(min(len(self._answers), SOME)):
            waiting, verdict = self._answers.popleft()
            if self._waiting.get(waiting.key) is not waiting:
                continue  # it is gone, or another version of it is asked about
            if not self._is_as_it_was(waiting, directories):
                self._look_again(waiting, into)
            elif (
                verdict is NO_ANSWER
                or waiting.is_stale
                or not self._members.are_as_they_were(waiting, directories.get(waiting.found.node))
            ):
                self._put(waiting)
            else:
                said = self._judge.take(waiting, verdict)
                self._is_judged(waiting, said, into)
                if said.progress is Progress.QUEUED and (
                    self._ask(waiting.key, directories, into) is not None
                ):
                    self._put(waiting)
        for key in self._times.take(now, SOME):
            self._time_is_over(self._waiting[key], now, directories, into)
        if self._queue.ask(lambda key: self._ask(key, directories, into), SOME) or self._answers:
            self._source.wake()
        self._judge.flush()
        self._keep(into.partial)
        return into

    def _look_at_main_files(self, directories: DirectoryCache[Node]) -> None:
        """Have main files that are known wait once more: members of their sets have come."""
        for found in self._members.known_main_files(directories):
            criteria = self._criteria(found)
            if criteria is not None and (found.node, found.name) not in self._waiting:
                self._journal.known.forget([found.path])
                new = WaitingFile(found, criteria, time.time_ns())
                new.is_again = True
                self._add(new)

    def _time_is_over(
        self, waiting: WaitingFile, now: float, directories: DirectoryCache[Node], into: Judged
    ) -> None:
        if waiting.progress is not Progress.PARTIAL:
            self._times.set(waiting.key, now + 1.0)  # it is being read: the verdict comes first
        elif waiting.is_brief:
            waiting.is_brief = False
            self._times.set(waiting.key, waiting.due)
            self._put(waiting)
        elif self._is_as_it_was(waiting, directories) and not waiting.is_member:
            found = self._members.look(waiting, directories.get(waiting.found.node))
            if found.error:
                self._times.set(waiting.key, now + 1.0)  # which are there cannot be told
                self.unread.note(waiting.key, found.error)
                return
            one = Incomplete(waiting.found, waiting.criteria, waiting.reason, found.members)
            into.incomplete.append(one)
        else:
            self._look_again(waiting, into)

    def _is_as_it_was(self, waiting: WaitingFile, directories: DirectoryCache[Node]) -> bool:
        descriptor = directories.get(waiting.found.node)
        if descriptor < 0:
            return False
        seen = look(waiting.found.name, descriptor)
        version = seen.version if seen.seen in THERE else None
        return version is not None and is_same(waiting.found.version, version)

    def _ask(self, key: Key, directories: DirectoryCache[Node], into: Judged) -> Lane | None:
        """Ask about a file, or say at once what can be said; return in which lane is no room."""
        waiting = self._waiting.get(key)
        if waiting is None or waiting.progress is not Progress.QUEUED:
            return None
        said = self._judge.ask(waiting, directories.get(key[0]))
        for name in waiting.awaited:
            self._awaited.setdefault((key[0], name), set()).add(key)
        self._is_judged(waiting, said, into)
        return waiting.lane if said.progress is Progress.QUEUED else None

    def _answered(self, waiting: WaitingFile, verdict: FileVerdict) -> None:
        """Take a verdict, in the pool's thread."""
        self._answers.append((waiting, verdict))
        # Where there is an earlier one it has woken the loop, which takes both.
        if len(self._answers) == 1:
            self._source.wake()

    def _is_judged(self, waiting: WaitingFile, said: Said, into: Judged) -> None:
        """Take note of what became of a question."""
        into.changed.extend(said.to_look_at)
        self.unread.note(waiting.key, said.error)
        if said.is_changed:
            self._look_again(waiting, into)
        elif said.progress is Progress.WHOLE:
            self._is_whole(waiting, into)
        else:
            waiting.progress = said.progress
            if said.reason:
                self._is_partial(waiting, said.reason, into)
            if said.due:
                # Of this nobody is told, unless it lasts.
                waiting.is_brief = True
                self._times.set(waiting.key, said.due)

    def _is_whole(self, waiting: WaitingFile, into: Judged) -> None:
        """Have a file recorded, or taken over by the set that it has been in before."""
        earlier, waiting.earlier = waiting.earlier, None
        if earlier is None:
            waiting.progress = Progress.WHOLE
            into.whole.append(waiting.found)
        elif self._members.is_taken_over(earlier, waiting.found.version, waiting.told):
            self.forget(waiting.key)
        elif waiting.criteria.members:
            self._put(waiting)  # that one has ended: now all depends on what is here
        else:
            self._look_again(waiting, into)  # the same, of a member

    def _look_again(self, waiting: WaitingFile, into: Judged) -> None:
        """Have a file looked at that is not as it was; what events have proven of it is kept."""
        self._drop(waiting)
        if waiting.earlier is not None:
            self._earlier[waiting.key] = waiting.earlier
        into.changed.append(waiting.found)

    def _is_partial(self, waiting: WaitingFile, reason: str, into: Judged) -> None:
        if waiting.reason != reason:
            into.partial.append(waiting)
        waiting.reason = reason
        if waiting.is_brief or waiting.key not in self._times:
            waiting.is_brief = False
            self._times.set(waiting.key, waiting.due)
        self.partial.add(waiting)

    def _keep(self, partial: Sequence[WaitingFile]) -> None:
        """Take note of what waits, in the journal and in the log."""
        if not partial:
            return
        self._memory.note(partial)
        for one in partial:
            log.info("%s waits: %s", printable(one.found.path), printable(one.reason))
