"""The pipeline: hints → arrivals → router → journal → mover → journal → senders.

One thread runs :meth:`Pipeline.run`: the loop of all watches on local file systems, and every two
seconds a look at the other parts. Whatever may hang in a file system has threads of its own:
watches there, the mover, the senders. They meet only in the journal, through wake-ups and through
hints for files that turned out to have changed. What the main thread does for all of them asks no
such file system for anything.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from watchman import hanging, mounts, queued_logging, signals
from watchman.errors import JournalError, WatchmanError
from watchman.journal import Archive, Journal
from watchman.model import Config, Delivery, Publisher, State, Watch
from watchman.mover import OWN, Hand, Mover
from watchman.notify.catchup import CLOCK_GRAIN_NS
from watchman.notify.destinations import Destinations
from watchman.notify.directories import DirectoryWatcher
from watchman.notify.globs import Globs
from watchman.notify.health import Health
from watchman.notify.lasting import Lasting
from watchman.notify.looking import watch_root
from watchman.notify.schedule import CHECK
from watchman.notify.unserved import fail_unserved
from watchman.notify.watcher import Watcher, WatcherThread
from watchman.router import Router
from watchman.sender import Sender
from watchman.sources.at_start import Starts
from watchman.sources.dispatch import ProcessorWatches
from watchman.sources.inotify import Source
from watchman.text import printable

log = logging.getLogger("watchman.notify")
service_log = logging.getLogger("watchman.service")
"""For what concerns the daemon and no file."""

STARTING = 0.05
"""Seconds between two looks whether the other threads' first scans are over."""
PRUNE, PRUNE_AGAIN = 10.0, 0.2
"""Seconds between two looks whether anything is to be pruned, and between two steps of it."""
WATCHER_END, MOVER_END, SENDER_END = 10.0, 10.0, 15.0
"""Seconds that each of the stages gets at the end for what it has in hand."""


class Pipeline:
    """The whole way of a file, for one configuration.

    ``open_publisher(broker name)`` is called in each sender's thread. ``resumed`` says that this
    process has watched before (a reload), so that nothing found now predates it. ``ready`` is
    called when every directory is watched and what was there has been dealt with, but for watches
    that hang. ``apart`` are the paths of watches that get a loop of their own, whatever their file
    system is now; those that need one are added. ``starts`` remembers what was below watches at
    their start, ``lasting`` knows the troubles of the one before.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        open_publisher: Callable[[str], Publisher],
        *,
        resumed: bool = False,
        ready: Callable[[], None] = lambda: None,
        hand: Hand | None = None,
        apart: set[str] | None = None,
        starts: Starts | None = None,
        lasting: Lasting | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self._resumed = resumed
        self._ready = ready
        self._stopping = False
        self._next_prune = 0.0
        self._pruning = False
        """Whether there is more to prune than one step does."""
        self._apart = set() if apart is None else apart
        self._starts = starts or Starts()
        self._lasting = lasting
        journal.resume(watch.path for watch in config.watches)
        self._begin_matched(config.watches)
        self.watching = False
        """Whether the first scan is over: every directory is watched, but for those that hang."""
        ignore = [*config.ignore, OWN]
        self.router = Router(config.patterns, config.moves, ignore, config.dry_run)
        with contextlib.ExitStack() as undo:
            # The process lives on where it is the journal that cannot be used.
            self._open_sources(undo)
            undo.pop_all()
        self._loops: list[WatcherThread | DirectoryWatcher] = [*self.threads, *self.directories]
        self._archive = Archive(journal)

        def root_of(path: str) -> str:
            return watch_root(self.config.watches, path)  # as they are by then

        self.mover = Mover(
            journal,
            config.moves,
            root_of,
            self._moved,
            self._look_again,
            on_ended=self._not_moved,
            hand=hand,
        )
        self._sending: set[str] = set()
        """The brokers whose senders have been started."""
        self.senders = {
            name: Sender(
                name,
                journal,
                lambda name=name: open_publisher(name),  # type: ignore[misc]  # — binds the name
                root_of,
                self._look_again,
                partial(signals.announce, signals.sent),
                partial(signals.announce, signals.failed),
            )
            for name in config.brokers
        }

    def _open_sources(self, undo: contextlib.ExitStack) -> None:
        """Make what finds files and directories; ``undo`` gives it back."""
        config = self.config
        # First of all: what is mounted from now on is seen as a change.
        self._mount_changes = mounts.Changes()
        undo.callback(self._mount_changes.close)
        self._apart |= {watch.path for watch in config.watches if hanging.points(watch.path)}
        own = [watch for watch in config.watches if watch.processor is not None]
        rest = [watch for watch in config.watches if watch not in own]
        local, *groups = self._groups(watch for watch in rest if watch.kind == "files")
        self.local = self._watcher(local, undo)
        self.source, self.intake = self.local.source, self.local.intake
        self.threads = [
            WatcherThread(group, self._watcher(group, undo), self.journal) for group in groups
        ]
        self.health = Health(config.state_dir, self.source, self.journal, self._lasting)
        self.processors = ProcessorWatches(own, self._trouble, self._apart, self._starts)
        undo.callback(self.processors.stop)
        units = self._groups(watch for watch in rest if watch.kind == "directories")
        self.directories = [self._directory_watcher(group, undo) for group in units if group]
        self.destinations = Destinations(config.moves, self.health.say)
        self.globs = Globs(config, self._trouble, self._look_at_parts) if config.globs else None

    def _begin_matched(self, watches: Iterable[Watch]) -> None:
        """Have the first run of what matches a pattern begin when that of the pattern began.

        What came into such a directory since then is an arrival: it is noticed later only.
        """
        now_ns = time.time_ns() - CLOCK_GRAIN_NS
        patterns = {glob.path for glob in self.config.globs}
        begun = self.journal.begin_first_runs(patterns, now_ns)
        for pattern in patterns:
            paths = [watch.path for watch in watches if watch.pattern == pattern]
            self.journal.begin_first_runs(self.journal.first_runs(paths), begun[pattern])

    def _groups(self, watches: Iterable[Watch]) -> list[list[Watch]]:
        """Return the watches on local file systems, then those that hang together, if they do."""
        groups: dict[frozenset[str], list[Watch]] = {frozenset(): []}
        for watch in watches:
            where = hanging.points(watch.path)
            if watch.path in self._apart and not where:
                where = frozenset({watch.path})  # it could hang before, and may again
            groups.setdefault(where, []).append(watch)
        return list(groups.values())

    def _watcher(self, watches: Sequence[Watch], undo: contextlib.ExitStack) -> Watcher:
        source = Source(watches, self._ignored, self._trouble, self._left, self._starts)
        undo.callback(source.close)
        return Watcher(source, self.journal, self.router, self._wake, resumed=self._resumed)

    def _directory_watcher(
        self, watches: Sequence[Watch], undo: contextlib.ExitStack
    ) -> DirectoryWatcher:
        made = DirectoryWatcher(
            [(watch, mounts.is_polled(watch)) for watch in watches],
            self.journal,
            self.router,
            self._wake,
            self._trouble,
            started_ns=time.time_ns() - CLOCK_GRAIN_NS,
            resumed=self._resumed,
        )
        undo.callback(made.join, 0.0)
        return made

    # Running

    def run(self) -> None:
        """Watch until :meth:`stop`. Raises whatever ended one of the threads."""
        self.journal.patience.give_up = lambda: self._stopping
        self.journal.when_damaged(self._look_at_parts)
        try:
            self._start()
            while not self._stopping:
                self.local.turn(min(self._archive.pause, self._longest_wait()))
                self._archive.step(time.monotonic(), idle=self._is_quiet)
                self.health.answer(self)
                now = time.monotonic()
                if now >= self._next_prune:
                    self._prune(now)
                if not self.watching:
                    self._look_whether_all_is_watched(now)
                if self.local.is_check_due(now) and not self._is_to_be_set_apart():
                    self.local.check(now)
                    self._check(now)
            self.local.intake.close()
        except JournalError as error:
            # Only who was told to stop gives up waiting for a full disk.
            if not self._stopping:
                raise
            log.warning("%s", error)
        finally:
            self._shut_down()
            self.health.last_word()

    def _start(self) -> None:
        if not self._resumed:
            self.source.send_scout(self.journal.known.knows)
        # The last fork has been made.
        queued_logging.start()
        self.health.write(self)
        self.processors.start()
        self._tell_where_it_may_hang()
        fail_unserved(self.journal, self.senders)
        self.destinations.check()
        if self.globs is not None:
            self.globs.start()
        self.local.start()
        for loop in self._loops:
            loop.start()
        self.mover.start()
        self._start_senders()

    def _start_senders(self) -> None:
        """Start those that have something to send, or can come to have."""
        wanted = {route.broker for _, route in self.config.patterns}
        wanted |= self.journal.ready_brokers()
        for name, sender in self.senders.items():
            if name in wanted and name not in self._sending:
                self._sending.add(name)
                sender.start()

    def stop(self) -> None:
        """End :meth:`run` after what is in hand; may be called from a signal handler."""
        self._stopping = True
        self.source.wake()

    def rescan(self) -> None:
        """Catch up on every watch now; may be called from a signal handler."""
        for loop in (self.local, *self._loops):
            loop.rescan()

    def _is_to_be_set_apart(self) -> bool:
        """Whether something that may hang was mounted in a watch of the main loop; ends that.

        The next pipeline gives it a loop of its own, before anybody looks at what was mounted.
        """
        if not self._mount_changes.any():
            return False
        self._tell_where_it_may_hang()
        for watch in self.config.watches:
            if watch.path not in self._apart and hanging.points(watch.path):
                service_log.info(
                    "In %s something is mounted that may hang: it is watched apart from the others",
                    printable(watch.path),
                )
                self.stop()
                return True
        return False

    def _tell_where_it_may_hang(self) -> None:
        """Say where files are at which nobody may look without a limit of time."""
        for station in self._stations():
            station.look_at_mounts()
        self.destinations.look_at_mounts()
        places = [watch.path for watch in self.config.watches]
        may_hang = hanging.prefixes([*places, *(root for _, root in self.config.moves)])
        for sender in self.senders.values():
            sender.may_hang(may_hang)

    def _check(self, now: float) -> None:
        if self.journal.damage:
            self.stop()  # no part has died: all can go on with one that is opened again
            return
        parts = [*self._loops, self.processors, self.mover, *self.senders.values()]
        for part in [*parts, self.globs] if self.globs is not None else parts:
            error: BaseException | None = part.error
            if error is not None:
                raise WatchmanError(f"a part of the daemon died: {error!r}") from error
        self._look_for_hangs(now)
        self.destinations.check()
        if self.globs is not None and self.watching:
            self._take_matched(self.globs)
        if self.health.check(now):
            if not self.journal.in_place:
                service_log.warning(
                    "The journal %s was removed or replaced while it is in use: it is closed and "
                    "opened again",
                    self.journal.path,
                )
                self.stop()
                return
            # An operator may have had failed deliveries retried.
            fail_unserved(self.journal, self.senders)
            self.mover.rescan()
            self._start_senders()
            for sender in self.senders.values():
                sender.wake()

    def _longest_wait(self) -> float:
        if not self.watching:
            return STARTING
        return PRUNE_AGAIN if self._pruning else CHECK

    def _prune(self, now: float) -> None:
        """Drop a little of the history: so little that no file notices."""
        before_ns = time.time_ns() - int(self.config.retention * 1e9)
        found = self.journal.prune(before_ns)
        self._archive.check(before_ns, now)
        self._pruning = found.more
        self._next_prune = now + (PRUNE_AGAIN if found.more else PRUNE)

    def _take_matched(self, globs: Globs) -> None:
        """Watch the directories that have begun to match a pattern.

        Where one needs a part of its own the pipeline ends as for a reload; the next has it.
        """
        found = globs.take()
        if found is None:
            return
        new = found.watches[len(self.config.watches) :]
        self.config = found
        self._begin_matched(new)
        for watch in new:
            local = watch.processor is None and watch.kind == "files"
            if not local or hanging.points(watch.path):
                self.stop()
                return
        for watch in new:
            service_log.info("%s is there, and watched from now on", printable(watch.path))
            self.local.add(watch)

    def _look_for_hangs(self, now: float) -> None:
        """Say what waits for a file system that does not answer."""
        found: dict[str, str] = {}
        for station in self._stations():
            point = station.hangs(now)
            if point:
                found |= dict.fromkeys(station.subjects, point)
        for sender in self.senders.values():
            if sender.held_up_by:
                found[f"tasks for broker {sender.broker}"] = sender.held_up_by
        self.health.hanging(found)

    def _stations(self) -> Iterator[hanging.Station]:
        for loop in self._loops:
            yield loop.station
        yield from self.processors.stations
        yield from self.mover.stations()

    def _look_whether_all_is_watched(self, now: float) -> None:
        """End the start, unless the first scan is still under way somewhere that answers."""
        if not self.local.watching:
            return
        loops = [loop for loop in self._loops if not loop.watching]
        if all(loop.station.hangs(now) for loop in loops) and not self.processors.starting(now):
            self._first_scan_is_over()

    def _first_scan_is_over(self) -> None:
        if self.journal.damage:
            return
        self.watching = True
        count = sum(map(self.covers, self.config.watches))
        service_log.info("Watching %d director%s", count, "y" if count == 1 else "ies")
        self.health.write(self)
        self._ready()
        for sender in self.senders.values():
            sender.warm_up()

    def _shut_down(self) -> None:
        """Stop in the order of the way: nothing new, then what is under way.

        Who hangs is left behind: nobody can end it, and what it does later has no effect.
        """
        self.source.close()
        self._archive.close()
        self._mount_changes.close()
        if self.globs is not None:
            self.globs.stop()
        # All at once, so that those who hang are found to hang at the same time.
        hanging.ask(point for station in self._stations() for point in station.where)
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            if not loop.join(WATCHER_END):
                self._say_left(loop.station.subjects)
        self.processors.stop()
        self._say_left(self.mover.stop(MOVER_END))
        for sender in self.senders.values():
            sender.stop()
        for sender in self.senders.values():
            if not sender.join(timeout=SENDER_END):
                log.warning("Broker %s does not answer; what is unsent is kept", sender.broker)

    @staticmethod
    def _say_left(subjects: Iterable[str]) -> None:
        for subject in subjects:
            log.warning(
                "%s: the file system does not answer, and what was begun there is left; nothing is "
                "lost",
                printable(subject),
            )

    def _is_quiet(self) -> bool:
        """Say whether nothing has come for a second."""
        return time.time_ns() - self.last_arrival_ns > 1_000_000_000

    def covers(self, watch: Watch) -> int:
        """Return how many directories a watch covers at the moment."""
        if watch.processor is not None:
            return self.processors.directories(watch)
        if watch.kind == "directories":
            return sum(part.directories(watch) for part in self.directories)
        return sum(part.covers(watch) for part in self._watchers)

    @property
    def _watchers(self) -> list[Watcher]:
        return [self.local, *(thread.watcher for thread in self.threads)]

    def remarks(self) -> list[tuple[str, str, int]]:
        """Return (watch, what, since when in ns) for files that get no task, or get it late."""
        parts = [watcher.intake.remarks for watcher in self._watchers]
        parts += [part.remarks for part in self.directories]
        return [one for part in parts for one in part.all()]

    @property
    def last_arrival_ns(self) -> int:
        """When the last file or finished directory was recorded; 0 for never."""
        files = [watcher.intake.last_arrival_ns for watcher in self._watchers]
        return max([*files, *(part.last_arrival_ns for part in self.directories)])

    @property
    def overflows(self) -> int:
        """How often events were lost, and everything was scanned therefore."""
        files = [watcher.source.overflows for watcher in self._watchers]
        return sum((*files, *(part.overflows for part in self.directories)))

    # Called by the stages; all but the first from threads of their own

    def _ignored(self, name: str, above: str, directory: bool) -> bool:
        return self.router.ignored(name, f"{above}/{name}", directory=directory)

    def _look_at_parts(self) -> None:
        """Look at once what the parts have met."""
        self.local.check_soon()

    def _wake(self, concerned: Iterable[str | None]) -> None:
        for broker in concerned:
            if broker is None:
                self.mover.wake()
            elif broker in self.senders:
                self.senders[broker].wake()
            else:
                fail_unserved(self.journal, self.senders)

    def _trouble(self, path: str, error: OSError | None) -> None:
        self.health.trouble(path, error)

    def _left(self, path: str) -> None:
        self.health.left(path)

    def _look_again(self, paths: list[str]) -> None:
        for loop in (self.local, *self._loops):
            loop.look_again(paths)

    def _moved(self, deliveries: list[Delivery]) -> None:
        self._wake({d.route.broker for d in deliveries if d.route is not None})
        signals.announce(signals.moved, deliveries)

    def _not_moved(self, ended: list[tuple[Delivery, State]]) -> None:
        failed = [row for row, state in ended if state is State.FAILED]
        signals.announce(signals.failed, failed)
        # What has vanished may have been away for a moment only, and is an arrival then.
        self._look_again([row.source for row, state in ended if state is State.VANISHED])
