"""Complete files that are not known become deliveries, or are noted: routed, and in the journal."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from watchman import signals
from watchman.identity import Evidence
from watchman.journal import Journal, NewDelivery, NotedVersion
from watchman.log_batch import info_all
from watchman.model import INCOMPLETE, Move, Noted, Version, record_of
from watchman.pipeline.found import Found
from watchman.pipeline.notes import Notes, say_what_would_happen
from watchman.pipeline.task_id import TaskIds, set_id, task_id
from watchman.router import Router
from watchman.sources.tree import Root
from watchman.text import printable

if TYPE_CHECKING:  # loaded where something is asked of files
    from watchman.pipeline.partial_files import PartialFiles
    from watchman.pipeline.waiting_file import Incomplete

log = logging.getLogger("watchman.notify")


def record(
    journal: Journal,
    new: list[NewDelivery],
    noted: Iterable[NotedVersion],
    gone: Iterable[str],
    now_ns: int,
) -> list[NewDelivery]:
    """Record arrivals, as ``Journal.record`` does, and return those of them that are none before.

    What is under way is another delivery where an event proves that, or where it has left the path
    at which a file is found: then the file has an id of its own.
    """
    doubled = journal.record(new, noted, gone)
    if not doubled:
        return new
    there = [one for one, _ in doubled]
    others = [
        one._replace(task_id=task_id(one.source, one.version, now_ns))
        for one, is_moved in doubled
        if is_moved or not one.unless
    ]
    journal.record(others)
    return [one for one in new if one not in there] + others


class Recorder:
    """Records what arrived. ``wake`` is told whom it concerns: brokers by name, MOVES entries.

    ``partial`` keeps the files that do not meet their criteria; None where nothing is asked of any.
    ``quarantine`` is where incomplete ones are moved, empty for nowhere.
    """

    def __init__(
        self,
        journal: Journal,
        router: Router,
        wake: Callable[[Iterable[str | Move]], None],
        notes: Notes,
        partial: PartialFiles | None = None,
        quarantine: str = "",
    ) -> None:
        self._journal = journal
        self._router = router
        self._wake = wake
        self._notes = notes
        self._partial = partial
        self._quarantine = quarantine
        if partial is not None:
            # Not when the first is removed: watchman may be upgraded while this process runs.
            from watchman.pipeline import companion_removal

            self._remove_companion = companion_removal.remove
        self._task_ids = TaskIds()
        self.last_arrival_ns = 0

    def record(
        self, unknown: Mapping[str, Found], gone: Sequence[str], known: Collection[str] = ()
    ) -> None:
        """Record complete files, by path; the commit is on disk when this returns.

        ``known`` are those of the paths at which an earlier version is known; what is known of
        those that are ``gone`` is forgotten.
        """
        companions: list[tuple[str, Version, Noted]] = []
        if self._partial is not None:
            unknown, companions = self._partial.admit(unknown, known)
            if not unknown:
                self._journal.record((), companions, gone)
                return
        info_all(log, "Notified of %s", list(map(printable, unknown)))
        self.last_arrival_ns = now_ns = time.time_ns()
        new: list[NewDelivery] = []
        noted: list[tuple[str, Version, Noted]] = companions
        unasked: dict[Root, list[str]] = {}
        concerned: set[str | Move] = set()
        route_of, move_of = self._router.route, self._router.move
        is_dry_run, choose = self._router.is_dry_run, self._task_ids.choose
        for path, item in unknown.items():
            version = item.version
            route, (final, move) = route_of(path), move_of(path)
            if is_dry_run(path):
                asked = None if self._partial is None else self._partial.companions.criteria(path)
                task, is_asked = route and route.task, asked is not None
                say_what_would_happen(path, final, task, is_asked=is_asked)
                noted.append((path, version, Noted.DRY_RUN))
            elif route is None and final is None:
                noted.append((path, version, Noted.UNASKED))
                unasked.setdefault(item.node.root, []).append(path)
            else:
                number, unless = choose(path, version, item.evidence, now_ns)
                fields = (
                    *(number, path, final, version, now_ns, route, "files", unless, move),
                    *("", "", ""),
                )
                new.append(record_of(NewDelivery, fields))
                if move is not None:
                    concerned.add(move)
                elif route is not None:
                    concerned.add(route.broker)
        for root, paths in unasked.items():
            self._notes.unasked(root.watch, paths)
        if self._partial is not None:
            new = self._with_companions(new, unknown, self._partial, now_ns)
        self._write(new, noted, gone, now_ns, concerned)
        if self._partial is not None:
            for key, companion in self._partial.recorded([*unknown.values()]):
                self._remove_companion(key[0], companion)

    def _write(
        self,
        new: list[NewDelivery],
        noted: Sequence[tuple[str, Version, Noted]],
        gone: Sequence[str],
        now_ns: int,
        concerned: Iterable[str | Move],
    ) -> None:
        new = record(self._journal, new, noted, gone, now_ns)
        self._wake(concerned)
        signals.announce(signals.arrived, new)

    # What has criteria

    def _with_companions(
        self,
        new: Iterable[NewDelivery],
        files: Mapping[str, Found],
        partial: PartialFiles,
        now_ns: int,
    ) -> list[NewDelivery]:
        """Return the deliveries with what was told of them, each before its companions' moves."""
        found: list[NewDelivery] = []
        for one in new:
            told = partial.told(files[one.source])
            main = one._replace(told=told) if told else one
            members = partial.members(files[one.source])
            found += [main] if members is None else self._set_of(main, members, now_ns)
            for companion in partial.moved_along(files[one.source]):
                final, move = self._router.move(companion.path)
                if move is None or one.move is None:
                    continue
                number, unless = self._task_ids.choose(
                    companion.path, companion.version, Evidence.SCAN, now_ns
                )
                about = companion.path, final, companion.version, now_ns, None
                found.append(NewDelivery(number, *about, unless=unless, move=move))
        return found

    def _set_of(
        self, main: NewDelivery, members: Sequence[Found], now_ns: int
    ) -> list[NewDelivery]:
        """Return the deliveries of a set, the main file's first.

        Their ids are made of those of all: a file that is in two sets has one in each.
        """
        info_all(log, "Notified of %s", [printable(member.path) for member in members])
        ids = [(main.task_id, main.unless or main.task_id)]
        for member in members:
            about = member.path, member.version, member.evidence, now_ns
            chosen, unless = self._task_ids.choose(*about)
            ids.append((chosen, unless or chosen))
        chosen_id, plain_id = (set_id(of_files) for of_files in zip(*ids, strict=True))
        found = [main]
        for member in members:
            final, move = self._router.move(member.path)
            found.append(
                main._replace(
                    source=member.path, final=final, version=member.version, move=move, told=""
                )
            )
        return [
            one._replace(
                task_id=set_id((chosen_id, one.source)),
                unless=set_id((plain_id, one.source)),
                set_id=chosen_id,
            )
            for one in found
        ]

    def record_incomplete(self, files: Sequence[Incomplete]) -> None:
        """Record files that have not met their criteria in time: for an operator, or a task."""
        now_ns = time.time_ns()
        new = [self._incomplete(one, now_ns) for one in files]
        members = [member for one in files for member in one.members]
        noted: list[tuple[str, Version, Noted]] = []
        if self._quarantine:
            new += [self._into_quarantine(member, now_ns) for member in members]
        else:
            noted = [(member.path, member.version, Noted.MEMBER) for member in members]
        concerned: set[str | Move] = set()
        for one in new:
            if one.move is not None and not one.failed:
                concerned.add(one.move)
            elif one.route is not None and not one.failed:
                concerned.add(one.route.broker)
        self._write(new, noted, (), now_ns, concerned)
        if self._partial is not None:
            self._partial.recorded([one.found for one in files])
            self._partial.set_aside(members)

    def _incomplete(self, one: Incomplete, now_ns: int) -> NewDelivery:
        """Return the delivery of an incomplete file, and say what becomes of it."""
        found, task = one.found, one.criteria.incomplete
        number, unless = self._task_ids.choose(found.path, found.version, found.evidence, now_ns)
        reason = INCOMPLETE + one.reason
        failed, told, final, move = "", reason, None, None
        if self._quarantine:
            final, move = self._quarantined(found)
            route, then = task, f"it is moved to {final}"
        elif task is not None:
            route, then = task, f"task {task.task} is sent for it"
        else:
            route, (final, move) = self._router.route(found.path), self._router.move(found.path)
            failed, told = reason, reason if route is not None else ""
            then = "'notify retry' takes it as it is, 'notify discard' drops it"
        log.warning("%s is %s; %s", printable(found.path), printable(reason), printable(then))
        about = found.path, final, found.version, now_ns, route, "files", unless, move
        new = NewDelivery(number, *about, told, failed)
        # What `notify retry` takes as it is has all arguments that the task knows.
        return self._set_of(new, (), now_ns)[0] if failed and one.criteria.members else new

    def _into_quarantine(self, member: Found, now_ns: int) -> NewDelivery:
        """Return the delivery of a member of an incomplete set, which goes where the set goes."""
        version = member.version
        number, unless = self._task_ids.choose(member.path, version, member.evidence, now_ns)
        final, move = self._quarantined(member)
        return NewDelivery(
            number, member.path, final, version, now_ns, None, unless=unless, move=move
        )

    def _quarantined(self, found: Found) -> tuple[str, Move]:
        watch = found.node.root.watch
        final = os.path.join(self._quarantine, found.path[len(watch.prefix) :])
        return final, Move(watch.path, self._quarantine)
