"""What a pipeline consists of, and how its parts meet: in the journal, and by being woken.

Each part with a thread of its own is a :class:`Stage`. What they tell each other passes through
here: whom a new delivery concerns, which files turned out to have changed, what has been moved.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from watchman import clock, hanging, mounts, signals
from watchman.journal import Journal
from watchman.model import Config, Delivery, Move, Publisher, State, Watch, WatchKind
from watchman.monitoring import Monitoring
from watchman.mover import OWN, DestinationStatus, Mover
from watchman.pipeline.file_watcher import FileWatcher
from watchman.pipeline.orphans import Orphans
from watchman.pipeline.unwatched import Unwatched
from watchman.pipeline.watcher import Watcher, WatcherThread
from watchman.processors.dispatch import ProcessorWatches
from watchman.router import Router
from watchman.sender import Sender
from watchman.sources.at_start import Starts
from watchman.sources.source import Source
from watchman.status import ShownPartial, ShownScan
from watchman.troubles import Trouble, Troubles

if TYPE_CHECKING:  # loaded where it is configured: a start takes a fifth longer with all of it
    from watchman.mover.rename_process import RenameProcess
    from watchman.pipeline.directories import DirectoryWatcher
    from watchman.pipeline.glob_watcher import GlobWatcher
    from watchman.pipeline.log_reader import TransferLogReader
    from watchman.pipeline.partial_files import PartialFiles
    from watchman.pipeline.waiting_file import PartialByWatch
    from watchman.verdicts.pool import Pool, Reading


class Stage(Protocol):
    """A part with threads of its own, none of which runs before :meth:`start`."""

    @property
    def error(self) -> BaseException | None:
        """What ended a thread that was not told to end; the process cannot go on then."""
        ...

    def start(self) -> None:
        """Start the threads."""
        ...


class PipelineOwner(Protocol):
    """Who runs a pipeline."""

    def open_publisher(self, config: Config, broker: str) -> Publisher:
        """Return what hands messages to a broker of the configuration; in its sender's thread."""
        ...

    def now_watching(self, config: Config) -> None:
        """Every directory is watched, and what was there has been dealt with.

        But for watches that hang.
        """
        ...


class Parts:
    """Makes all parts for one configuration. What has been opened is given back if one fails.

    ``apart`` are the paths of watches that get a loop of their own, whatever their file system is
    now; those that need one are added. The other parameters are those of the pipeline.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        owner: PipelineOwner,
        troubles: Troubles,
        *,
        resumed: bool,
        rename_process: RenameProcess | None,
        apart: set[str],
        starts: Starts,
        monitoring: Monitoring,
    ) -> None:
        self.config = config
        """As it is now: directories that begin to match a pattern are added to its watches."""
        self.watching = False
        """Whether the first scan is over: every directory is watched, but for those that hang."""
        self._journal = journal
        self._resumed = resumed
        self._starts = starts
        self._monitoring = monitoring
        self._troubles = troubles
        self._unwatched = Unwatched(troubles)
        ignore = [*config.ignore, OWN]
        self.router = Router(config.patterns, config.moves, ignore, config.dry_run, config.criteria)
        self.pool: Pool | None = None
        """Reads files, where something is asked that has to be read."""
        kinds = _criteria_kinds(config)
        if kinds - {"marker"}:
            from watchman.verdicts.pool import Pool

            self.pool = Pool(troubles, config.path if "callable" in kinds else "")
        self.log_reader = self._log_reader(troubles)
        with contextlib.ExitStack() as undo:
            self._make_watchers(apart, undo)
            self.mover = Mover(journal, config.all_moves, self, rename_process=rename_process)
            self.senders = {
                name: Sender(
                    name,
                    journal,
                    partial(owner.open_publisher, config, name),
                    self.top_of,
                    self,
                    self.log_reader,
                )
                for name in config.brokers
            }
            undo.pop_all()
        self.orphans = Orphans(journal, self.senders, self)

    def _make_watchers(self, apart: set[str], undo: contextlib.ExitStack) -> None:
        """Make what finds files and directories; ``undo`` gives it back."""
        config = self.config
        # First of all: what is mounted from now on is seen as a change.
        self.mount_changes = mounts.Changes()
        undo.callback(self.mount_changes.close)
        apart.update(watch.path for watch in config.watches if hanging.points(watch.path))
        self._starts.keep(config.watches)
        own = [watch for watch in config.watches if watch.processor is not None]
        rest = [watch for watch in config.watches if watch.processor is None]
        files = [watch for watch in rest if watch.kind is WatchKind.FILES]
        directories = [watch for watch in rest if watch.kind is WatchKind.DIRECTORIES]
        local, *groups = _groups(files, apart)
        self.local = self._file_watcher(local, undo)
        self._file_watchers = [self.local, *(self._file_watcher(group, undo) for group in groups)]
        self.processors = ProcessorWatches(own, self._unwatched, apart, self._starts)
        undo.callback(self.processors.stop)
        groups = [group for group in _groups(directories, apart) if group]
        self._watchers: list[Watcher[Any]] = [
            *self._file_watchers,
            *(self._directory_watcher(group, undo) for group in groups),
        ]
        self.loops = [WatcherThread(watcher, self._journal) for watcher in self._watchers[1:]]
        self.globs: GlobWatcher | None = None
        if config.globs:
            from watchman.pipeline.glob_watcher import GlobWatcher

            self.globs = GlobWatcher(config, self._unwatched, self.local)

    def _file_watcher(self, watches: Sequence[Watch], undo: contextlib.ExitStack) -> FileWatcher:
        source = Source(watches, self.router, self._unwatched, self._starts)
        undo.callback(source.close)
        return FileWatcher(
            source,
            self._journal,
            self.router,
            self,
            self._troubles,
            self._partial_files(watches, source),
            quarantine=self.config.quarantine,
            resumed=self._resumed,
        )

    def _partial_files(self, watches: Sequence[Watch], source: Source) -> PartialFiles | None:
        """Return what keeps the files of a source that do not meet their criteria, if they have."""
        config = self.config
        if not config.has_criteria and self.log_reader is None:
            return None
        from watchman.pipeline.companions import Companions
        from watchman.pipeline.log_criterion import LogCriterion
        from watchman.pipeline.partial_files import PartialFiles

        patterns = [pattern for pattern, _ in config.patterns]
        companions = Companions(patterns, config.criteria, watches, self.router)
        logs = None if self.log_reader is None else LogCriterion(self.log_reader)
        return PartialFiles(
            *(self._journal, self.router, source, self.pool, companions, self._troubles, logs)
        )

    def _directory_watcher(
        self, watches: Sequence[Watch], undo: contextlib.ExitStack
    ) -> DirectoryWatcher:
        from watchman.pipeline.directories import DirectoryWatcher
        from watchman.sources.directory_source import DirectorySource

        source = DirectorySource(watches, self.router, self._unwatched, self._starts)
        undo.callback(source.close)
        return DirectoryWatcher(
            source, self._journal, self.router, self, self._troubles, resumed=self._resumed
        )

    def _log_reader(self, troubles: Troubles) -> TransferLogReader | None:
        if not self.config.transfer_logs:
            return None
        from watchman.pipeline.log_reader import TransferLogReader

        logs = self.config.transfer_logs
        return TransferLogReader(logs, self._journal, troubles, self)

    # What holds for all of them

    @property
    def stages(self) -> list[Stage]:
        """All parts with threads."""
        stages: list[Stage] = [*self.loops, self.processors, self.mover, *self.senders.values()]
        if self.pool is not None:
            stages.append(self.pool)
        if self.globs is not None:
            stages.append(self.globs)
        if self.log_reader is not None:
            stages.append(self.log_reader)
        return stages

    def stations(self) -> Iterator[hanging.Station]:
        """Yield where the threads work that may hang, but for the senders'."""
        for loop in self.loops:
            yield loop.station
        yield from self.processors.stations
        yield from self.mover.stations()

    def hanging(self, now: float) -> dict[str, str]:
        """Return what waits for a file system that does not answer → the mount point of that."""
        found: dict[str, str] = {}
        for station in self.stations():
            point = station.hangs(now)
            if point:
                found |= dict.fromkeys(station.subjects, point)
        for sender in self.senders.values():
            if sender.held_up_by:
                found[f"tasks for broker {sender.broker}"] = sender.held_up_by
        return found

    def covers(self, watch: Watch) -> int:
        """Return how many directories a watch covers at the moment."""
        if watch.processor is not None:
            return self.processors.directories(watch)
        return sum(watcher.source.covers(watch) for watcher in self._watchers)

    def notes(self) -> list[Trouble]:
        """Return what there is to be said of files that get no task, or get it late, by watch."""
        return [note for watcher in self._watchers for note in watcher.handler.notes.all()]

    @property
    def incomplete(self) -> int:
        """How many files are being written, or have not settled."""
        return sum(len(watcher.files.incomplete) for watcher in self._file_watchers)

    def being_written(self, now: float, most: int) -> list[tuple[str, float]]:
        """Return the oldest files that are being written, and for how many seconds."""
        found = [one for watcher in self._file_watchers for one in watcher.being_written(now, most)]
        return sorted(found, key=itemgetter(1), reverse=True)[:most]

    @property
    def partial(self) -> int:
        """How many files do not meet their criteria."""
        return sum(one.count for one in self._partial_by_watch())

    @property
    def unjudged(self) -> int:
        """How many files wait for a first word whether they meet their criteria."""
        return sum(one.unjudged for one in self._partial_by_watch())

    def being_read(self, least: float) -> list[Reading]:
        """Return the files that are being read for so many seconds, to tell if they are whole."""
        return [] if self.pool is None else self.pool.reading(least)

    def oldest_partial(self, most: int) -> list[ShownPartial]:
        """Return some of those files, of those that have waited for longest."""
        found = [one for partial in self._partial_by_watch() for one in partial.oldest(most)]
        return sorted(found, key=itemgetter("since_ns"))[:most]

    def _partial_by_watch(self) -> list[PartialByWatch]:
        return [one.partial.partial for one in self._file_watchers if one.partial is not None]

    def scans(self) -> list[ShownScan]:
        """Return how far the scans of some length are that are under way."""
        shown = [watcher.scanner.progress.shown() for watcher in self._file_watchers]
        return [one for one in shown if one is not None]

    def totals(self, moves: Iterable[DestinationStatus]) -> dict[str, int]:
        """Return what was counted so far, by name: what came, what went, and where."""
        brokers = {f"broker {name}": one.sent_count for name, one in self.senders.items()}
        there = {f"{move.source} {move.root}": move.moved for move in moves}
        out = sum(brokers.values()) + sum(move.moved_only for move in moves)
        return {"in": self._journal.last_seq(), "out": out, **brokers, **there}

    @property
    def last_arrival_ns(self) -> int:
        """When the last file or finished directory was recorded; 0 for never."""
        times = (watcher.handler.last_arrival_ns for watcher in self._watchers)
        return clock.latest(times, time.time_ns())

    @property
    def overflows(self) -> int:
        """How often events were lost, and everything was scanned therefore."""
        return sum(watcher.source.overflows for watcher in self._watchers)

    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""
        for watcher in self._watchers:
            watcher.rescan()

    # Called by the parts, from threads of their own: this is the listener of all of them

    def wake(self, concerned: Iterable[str | Move]) -> None:
        """Wake whom new deliveries concern: brokers' senders by name, and MOVES entries."""
        for one in concerned:
            if isinstance(one, Move):
                self.mover.wake(one)
            elif one in self.senders:
                self.senders[one].wake()
            else:
                self.orphans.look()
                self.local.source.wake()

    def changed(self, paths: Sequence[str]) -> None:
        """Have files and directories looked at that the mover or a sender found changed."""
        for watcher in self._watchers:
            watcher.look_again(paths)

    def moved(self, rows: list[Delivery]) -> None:
        """Have the tasks of what the mover has moved sent; what is in QUARANTINE has failed."""
        self.wake({row.route.broker for row in rows if row.route is not None})
        signals.announce(signals.moved, (row._replace(state=row.once_moved) for row in rows))
        failed = [row for row in rows if row.once_moved is State.FAILED]
        self.failed([row._replace(state=State.FAILED) for row in failed])

    def ended(self, rows: list[tuple[Delivery, State]]) -> None:
        """Announce what the mover gave up, and look for what vanished."""
        self.failed([row for row, state in rows if state is State.FAILED])
        # What has vanished may have been away for a moment only, and is an arrival then.
        self.changed([row.source for row, state in rows if state is State.VANISHED])

    def sent(self, deliveries: list[Delivery]) -> None:
        """Announce what a broker has taken."""
        signals.announce(signals.sent, deliveries)

    def failed(self, deliveries: list[Delivery]) -> None:
        """Announce what no retry can help."""
        self._monitoring.failed(deliveries)
        signals.announce(signals.failed, deliveries)

    def watch_of(self, path: str) -> Watch | None:
        """Return the innermost watch that ``path`` is in."""
        around = [watch for watch in self.config.watches if path.startswith(watch.prefix)]
        return max(around, key=lambda watch: len(watch.path), default=None)

    def top_of(self, path: str) -> str:
        """Return the directory below which no symlink is followed on the way to ``path``.

        It is the innermost one of the configuration, be it a watch's or a destination; the file's
        own where none leads to it.
        """
        tops = [root for _, root in self.config.all_moves if mounts.leads_to(root, path)]
        watch = self.watch_of(path)
        if watch is not None:
            tops.append(watch.top)
        return max(tops, key=len, default=os.path.dirname(path))


def _criteria_kinds(config: Config) -> set[str]:
    """Return the kinds of what is asked of files: ``format``, ``marker`` …."""
    watches = (*config.watches, *config.globs)
    asked = [*config.criteria, *(watch.criteria for watch in watches)]
    return {one.kind for criteria in asked if criteria is not None for one in criteria.each}


def _groups(watches: Iterable[Watch], apart: set[str]) -> list[list[Watch]]:
    """Return the watches on local file systems, then those that hang together, if they do."""
    groups: dict[frozenset[str], list[Watch]] = {frozenset(): []}
    for watch in watches:
        where = hanging.points(watch.path)
        if watch.path in apart and not where:
            where = frozenset({watch.path})  # it could hang before, and may again
        groups.setdefault(where, []).append(watch)
    return list(groups.values())
