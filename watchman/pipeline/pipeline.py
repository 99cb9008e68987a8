"""The pipeline: hints → arrivals → router → journal → mover → journal → senders.

One thread runs :meth:`Pipeline.run`: the loop of all watches on local file systems, and every two
seconds a look at the other parts. Whatever may hang in a file system has threads of its own:
watches there, the mover, the senders. They meet only in the journal, through wake-ups and through
hints for files that turned out to have changed. What the main thread does for all of them asks no
such file system for anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from watchman import clock, hanging, queued_logging
from watchman.config.globs import more
from watchman.errors import JournalError, WatchmanError
from watchman.journal import Archive, Journal
from watchman.journal.runs import run_of
from watchman.model import Config, Watch, WatchKind
from watchman.monitoring import Monitoring
from watchman.pipeline.destinations import Destinations
from watchman.pipeline.first_runs import CLOCK_GRAIN_NS
from watchman.pipeline.heartbeat import Heartbeat
from watchman.pipeline.lost_mounts import LostMounts
from watchman.pipeline.operator_requests import OperatorRequests
from watchman.pipeline.parts import Parts, PipelineOwner
from watchman.pipeline.schedule import CHECK
from watchman.pipeline.snapshot import Snapshots
from watchman.sources.at_start import Starts
from watchman.text import printable
from watchman.troubles import Lasting, Troubles

if TYPE_CHECKING:  # loaded where it is configured
    from watchman.mover.rename_process import RenameProcess
    from watchman.pipeline.glob_watcher import GlobWatcher

log = logging.getLogger("watchman.notify")
service_log = logging.getLogger("watchman.service")
"""For what concerns the daemon and no file."""

STARTING = 0.05
"""Seconds between two looks whether the other threads' first scans are over."""
PRUNE, PRUNE_AGAIN = 10.0, 0.2
"""Seconds between two looks whether anything is to be pruned, and between two steps of it."""
DIGEST_AGAIN = 2.0
"""Seconds between two digests while files come; while none do, as between two steps."""
WATCHER_END, MOVER_END, SENDER_END = 10.0, 10.0, 15.0
"""Seconds that each of the stages gets at the end for what it has in hand."""
_HANGS = "hangs"
"""The kind of a trouble that is a file system which does not answer."""


class Pipeline:
    """The whole way of a file, for one configuration.

    ``resumed`` says that this process has watched before (a reload), so that nothing found now
    predates it. ``apart`` are the paths of watches that get a loop of their own, whatever their
    file system is now; those that need one are added. ``starts`` remembers what was below watches
    at their start, ``lasting`` knows the troubles of the one before, ``monitoring`` tells others.

    To make one opens inotify instances and writes to the journal when each first run began; no
    thread runs before :meth:`run`.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        owner: PipelineOwner,
        *,
        resumed: bool = False,
        rename_process: RenameProcess | None = None,
        apart: set[str] | None = None,
        starts: Starts | None = None,
        lasting: Lasting | None = None,
        monitoring: Monitoring | None = None,
    ) -> None:
        self.journal = journal
        self._resumed = resumed
        self._owner = owner
        self._apart = set() if apart is None else apart
        self._stopping = False
        plain = [watch for watch in config.watches if watch.processor is None]
        journal.name_runs([*plain, *config.globs])
        journal.resume(map(run_of, plain))
        # Before a watcher asks the journal for the first runs.
        self._begin_matched(config, config.watches)
        self.troubles = Troubles()
        self._monitoring = monitoring or Monitoring()
        self.parts = Parts(
            config,
            journal,
            owner,
            self.troubles,
            resumed=resumed,
            rename_process=rename_process,
            apart=self._apart,
            starts=starts or Starts(),
            monitoring=self._monitoring,
        )
        self._local = self.parts.local
        self._destinations = Destinations(config.all_moves, self.troubles)
        lasting = lasting or Lasting()
        lasting.start()
        self.snapshots = Snapshots(
            config.state_dir, journal, self.parts, self.troubles, lasting, self._monitoring
        )
        self._heartbeat = Heartbeat(
            config.state_dir, self._local.source, self.snapshots, self.troubles
        )
        self._lost_mounts = LostMounts(lasting.mount_points, self.troubles)
        self._requests = OperatorRequests(config.state_dir, journal, self.parts, self._heartbeat)
        self._archive = Archive(journal)
        self._next_prune = 0.0
        self._pruning = False
        """Whether there is more to prune than one step does."""
        self._sending: set[str] = set()
        """The brokers whose senders have been started."""
        # Stays until the next pipeline's: between two of them somebody may wait for the journal.
        journal.write_retry.on_wait = self._heartbeat.renew

    @property
    def config(self) -> Config:
        """The configuration, with the watches that were added since."""
        return self.parts.config

    # The life of a pipeline

    def run(self) -> None:
        """Watch until :meth:`stop`. Raises whatever ended one of the threads."""
        self.journal.write_retry.give_up = lambda: self._stopping
        self.journal.when_damaged(self._local.check_soon)
        self.journal.when_failed(self.parts.failed)
        try:
            self._start()
            while not self._stopping:
                self._turn()
            self._local.end()
        except JournalError as error:
            # Only who was told to stop gives up waiting for a full disk.
            if not self._stopping:
                raise
            log.warning("%s", error)
        finally:
            self._shut_down()
            self._heartbeat.last_word()

    def stop(self) -> None:
        """End :meth:`run` after what is in hand; may be called from a signal handler."""
        self._stopping = True
        self._local.source.wake()

    def rescan(self) -> None:
        """Catch up on every watch now; may be called from a signal handler."""
        self.parts.rescan()

    def _start(self) -> None:
        parts = self.parts
        self._heartbeat.start()
        if not self._resumed:
            self._local.source.start_prescan(self.journal.known)
        # The last fork has been made: only now may there be threads.
        queued_logging.start()
        self._monitoring.begin(self.config, self.journal)
        # The first word of this process: whoever asks is told that it starts.
        self._heartbeat.write()
        self._requests.start()
        parts.processors.start()
        # Before anything looks at a destination, or sends.
        self._tell_where_it_may_hang()
        parts.orphans.look()
        self._destinations.check()
        if parts.globs is not None:
            parts.globs.start()
        if parts.pool is not None:
            parts.pool.start()
        if parts.log_reader is not None:
            parts.log_reader.start()
        self._local.start()
        for loop in parts.loops:
            loop.start()
        parts.mover.start()
        self._start_senders()

    def _turn(self) -> None:
        """Handle what came, then do what is due."""
        orphans = self.parts.orphans
        pauses = self._archive.pause, orphans.pause, self._heartbeat.pause
        self._local.turn(min(*pauses, self._longest_wait()))
        self._archive.step(time.monotonic(), idle=self._is_quiet)
        orphans.step(time.monotonic())
        self._heartbeat.answer()
        if self._requests.step():
            self._after_orders()
        now = time.monotonic()
        if now >= self._next_prune:
            self._prune(now)
        if not self.parts.watching:
            self._look_whether_all_is_watched(now)
        if self._local.is_check_due(now) and not self._is_to_be_set_apart():
            self._local.check(now)
            self._check(now)

    def _shut_down(self) -> None:
        """Stop in the order of the way: nothing new, then what is under way.

        Who hangs is left behind: nobody can end it, and what it does later has no effect.
        """
        parts = self.parts
        if parts.pool is not None:
            # Before what it wakes.
            parts.pool.stop()
        self._requests.close()
        self._local.source.close()
        self._archive.close()
        parts.mount_changes.close()
        self._lost_mounts.close()
        if parts.globs is not None:
            parts.globs.stop()
        # All at once, so that those who hang are found to hang at the same time.
        hanging.ask(point for station in parts.stations() for point in station.where)
        for loop in parts.loops:
            loop.stop()
        for loop in parts.loops:
            if not loop.join(WATCHER_END):
                _say_left(loop.station.subjects)
        parts.processors.stop()
        _say_left(parts.mover.stop(MOVER_END))
        # After the mover: what it has moved is still sent.
        for sender in parts.senders.values():
            sender.stop()
        for sender in parts.senders.values():
            if not sender.join(timeout=SENDER_END):
                log.warning("Broker %s does not answer; what is unsent is kept", sender.broker)
        # After the senders, which ask it.
        if parts.log_reader is not None:
            parts.log_reader.stop()

    # The end of the start

    def _look_whether_all_is_watched(self, now: float) -> None:
        """End the start, unless the first scan is still under way somewhere that answers."""
        parts = self.parts
        if not self._local.watching:
            return
        loops = [loop for loop in parts.loops if not loop.watcher.watching]
        if all(loop.station.hangs(now) for loop in loops) and not parts.processors.starting(now):
            self._first_scan_is_over()

    def _first_scan_is_over(self) -> None:
        if self.journal.damage:
            return
        self.parts.watching = True
        count = sum(map(self.parts.covers, self.config.watches))
        service_log.info("Watching %d director%s", count, "y" if count == 1 else "ies")
        # Before anybody is told: who asks for the status then finds it.
        self._heartbeat.write()
        self._owner.now_watching(self.config)
        for sender in self.parts.senders.values():
            sender.warm_up()

    # Every two seconds

    def _check(self, now: float) -> None:
        if self.journal.damage:
            self.stop()  # no part has died: all can go on with one that is opened again
            return
        for stage in self.parts.stages:
            error = stage.error
            if error is not None:
                raise WatchmanError(f"a part of the daemon died: {error!r}") from error
        self.snapshots.sample(now)
        self._say_what_hangs(self.parts.hanging(now))
        self._destinations.check()
        self._lost_mounts.check(self.config.watches)
        if self.parts.globs is not None and self.parts.watching:
            self._take_matched(self.parts.globs)
        if self._heartbeat.beat(now):
            self._after_beat()

    def _after_beat(self) -> None:
        """Do what is due every ten seconds."""
        if not self.journal.in_place:
            service_log.warning(
                "The journal %s was removed or replaced while it is in use: it is closed and "
                "opened again",
                self.journal.path,
            )
            self.stop()
            return
        self._requests.obey()
        self._after_orders()

    def _after_orders(self) -> None:
        """Have what is ready by now sent, also for a broker that had nothing to send before."""
        self.parts.orphans.look()
        self._start_senders()

    def _start_senders(self) -> None:
        """Start those that have something to send, or can come to have."""
        wanted = {route.broker for _, route in self.config.patterns}
        wanted |= self.journal.ready_brokers()
        for name, sender in self.parts.senders.items():
            if name in wanted and name not in self._sending:
                self._sending.add(name)
                sender.start()

    # File systems that may hang

    def _is_to_be_set_apart(self) -> bool:
        """Whether something that may hang was mounted in a watch of the main loop; ends that.

        The next pipeline gives it a loop of its own, before anybody looks at what was mounted.
        """
        if not self.parts.mount_changes.any():
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
        for station in self.parts.stations():
            station.look_at_mounts()
        self._destinations.look_at_mounts()
        places = [watch.path for watch in self.config.watches]
        may_hang = hanging.prefixes([*places, *(root for _, root in self.config.all_moves)])
        for sender in self.parts.senders.values():
            sender.may_hang(may_hang)

    def _say_what_hangs(self, found: dict[str, str]) -> None:
        """Say what waits → the mount point that it waits for, and what does not any more."""
        for subject in self.troubles.of_kind(_HANGS) - found.keys():
            self.troubles.end(subject, _HANGS, line="%s: the file system answers again")
        for subject, point in found.items():
            if (subject, _HANGS) not in self.troubles:
                self.troubles.begin(subject, hanging.describe(point), _HANGS)

    # Watches that are added

    def _begin_matched(self, config: Config, watches: Iterable[Watch]) -> None:
        """Have the first run of what matches a pattern begin when that of the pattern began.

        What came into such a directory since then is an arrival: it is noticed later only.
        """
        now_ns = time.time_ns() - CLOCK_GRAIN_NS
        begun = self.journal.begin_first_runs({run_of(glob) for glob in config.globs}, now_ns)
        for pattern, began_ns in begun.items():
            runs = [
                run_of(watch)
                for watch in watches
                if watch.pattern and run_of(watch, watch.pattern) == pattern
            ]
            self.journal.begin_first_runs(self.journal.first_runs(runs), began_ns)

    def _take_matched(self, globs: GlobWatcher) -> None:
        """Watch the directories that have begun to match a pattern, and not those that are gone.

        Where one needs a part of its own the pipeline ends as for a reload; the next has it.
        """
        found = globs.take()
        if found is None:
            return
        before = self.config.watches
        new, gone = more(found.watches, before), more(before, found.watches)
        self.parts.config = found
        self._begin_matched(found, new)
        for watch in gone:
            service_log.info("%s is gone, and watched no more", printable(watch.path))
        lost_processor = any(watch.processor is not None for watch in gone)
        if lost_processor or any(map(self._needs_another_pipeline, (*new, *gone))):
            self.stop()
            return
        for watch in gone:
            self._local.remove(watch)
        for watch in new:
            service_log.info("%s is there, and watched from now on", printable(watch.path))
            if watch.processor is not None:
                self.parts.processors.add(watch)
            else:
                self._local.add(watch)

    def _needs_another_pipeline(self, watch: Watch) -> bool:
        if hanging.points(watch.path):
            return True
        # The mover has no way from it into the quarantine.
        plain = watch.kind is WatchKind.FILES and not self.config.quarantine
        return watch.processor is None and not plain

    # The history

    def _longest_wait(self) -> float:
        if not self.parts.watching:
            return STARTING
        return PRUNE_AGAIN if self._pruning else CHECK

    def _is_quiet(self) -> bool:
        """Say whether nothing has come for a second."""
        return not clock.is_recent(self.parts.last_arrival_ns, time.time_ns(), 1.0)

    def _prune(self, now: float) -> None:
        """Drop a little of the history: so little that no file notices."""
        before_ns = time.time_ns() - int(self.config.retention * 1e9)
        found = self.journal.prune(before_ns)
        self._archive.check(before_ns, now)
        undigested = self.journal.digests.step(self.journal.last_seq())
        self._pruning = found.more or (undigested and self._is_quiet())
        pause = DIGEST_AGAIN if undigested else PRUNE
        self._next_prune = now + (PRUNE_AGAIN if self._pruning else pause)


def _say_left(subjects: Iterable[str]) -> None:
    for subject in subjects:
        log.warning(
            "%s: the file system does not answer, and what was begun there is left; nothing is "
            "lost",
            printable(subject),
        )
