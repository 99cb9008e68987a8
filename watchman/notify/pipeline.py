"""The pipeline: hints → arrivals → router → journal → mover → journal → senders.

One thread runs :meth:`Pipeline.run`: it owns the source, the arrivals and the router. The mover
and the senders have threads of their own and meet it only in the journal, through wake-ups and
through hints for files that turned out to have changed.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

from watchman import queued_logging, signals, status
from watchman.errors import JournalError, WatchmanError
from watchman.journal import Journal
from watchman.model import Config, Delivery, Publisher, State, Watch
from watchman.mounts import is_polled
from watchman.mover import OWN, Hand, Mover
from watchman.notify.catchup import CLOCK_GRAIN_NS, CatchUp
from watchman.notify.directories import DirectoryWatcher
from watchman.notify.health import Health
from watchman.notify.intake import Intake
from watchman.notify.looking import hints_at, watch_root
from watchman.notify.schedule import Schedule
from watchman.notify.unserved import fail_unserved
from watchman.router import Router
from watchman.sender import Sender
from watchman.sources.dispatch import ProcessorWatches
from watchman.sources.inotify import Source
from watchman.sources.nodes import Reason, Root
from watchman.text import printable

log = logging.getLogger("watchman.notify")
service_log = logging.getLogger("watchman.service")
"""For what concerns the daemon and no file."""


class Pipeline:
    """The whole way of a file, for one configuration.

    ``open_publisher(broker name)`` is called in each sender's thread. ``resumed`` says that this
    process has watched before (a reload), so that nothing found now predates it. ``ready`` is
    called when every directory is watched and what was there has been dealt with.
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
    ) -> None:
        self.config = config
        self.journal = journal
        self._resumed = resumed
        self._ready = ready
        self._stopping = False
        self._next_check = 0.0
        self._changed: collections.deque[str] = collections.deque()
        journal.resume(watch.path for watch in config.watches)
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        ignore = [*config.ignore, OWN]
        self.router = Router(config.patterns, config.moves, ignore, config.dry_run)
        with contextlib.ExitStack() as undo:
            # The process lives on where it is the journal that cannot be used.
            self._open_sources(undo, resumed=resumed)
            self._first_runs = journal.first_runs(root.watch.path for root in self.source.roots)
            self.intake = Intake(journal, self.router, self.source, self._wake)
            self._catch_up = CatchUp(journal, self.source, self.intake, set(self._first_runs))
            undo.pop_all()
        self._schedule = Schedule(self.source)
        root_of = partial(watch_root, config.watches)
        self.mover = Mover(
            journal,
            config.moves,
            root_of,
            self._moved,
            self._look_again,
            on_ended=self._not_moved,
            hand=hand,
        )
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

    def _open_sources(self, undo: contextlib.ExitStack, *, resumed: bool) -> None:
        """Make what finds files and directories; ``undo`` gives it back."""
        config = self.config
        own = [watch for watch in config.watches if watch.processor is not None]
        rest = [(watch, is_polled(watch)) for watch in config.watches if watch not in own]
        files = [watch for watch, _ in rest if watch.kind == "files"]
        self.source = Source(files, self._ignored, self._trouble, self._left)
        undo.callback(self.source.close)
        self.health = Health(config.state_dir, self.source, self.journal)
        self.processors = ProcessorWatches(own, self._trouble)
        undo.callback(self.processors.stop)
        self.directories = DirectoryWatcher(
            [(watch, polled) for watch, polled in rest if watch.kind == "directories"],
            self.journal,
            self.router,
            self._wake,
            self._trouble,
            started_ns=time.time_ns() - CLOCK_GRAIN_NS,
            resumed=resumed,
        )
        undo.callback(self.directories.stop)

    # Running

    def run(self) -> None:
        """Watch until :meth:`stop`. Raises whatever ended one of the threads."""
        self.journal.patience.give_up = lambda: self._stopping
        for root in self.source.roots:
            handler = status.handler(root.watch)
            log.debug("Adding watch on %s, processed by %s", printable(root.watch.path), handler)
        self.journal.when_damaged(self._look_at_parts)
        try:
            self._start()
            while not self._stopping:
                self._turn()
            self.intake.close()
        except JournalError as error:
            # Only who was told to stop gives up waiting for a full disk.
            if not self._stopping:
                raise
            log.warning("%s", error)
        finally:
            self._shut_down()

    def _start(self) -> None:
        if not self._resumed:
            self.source.send_scout(self.journal.known.knows)
        # The last fork has been made.
        queued_logging.start()
        self.health.write(self)
        self.processors.start()
        fail_unserved(self.journal, self.senders)
        self.source.start(self._first_reason)
        self.directories.start()
        self.mover.start()
        for sender in self.senders.values():
            sender.start()

    def stop(self) -> None:
        """End :meth:`run` after what is in hand; may be called from a signal handler."""
        self._stopping = True
        self.source.wake()

    def rescan(self) -> None:
        """Catch up on every watch now; may be called from a signal handler."""
        self._schedule.ask()
        self.directories.rescan()
        self._look_at_parts()

    def _turn(self) -> None:
        """Handle the live events first, then a bounded piece of whatever else there is to do."""
        busy = self._catch_up.pending or bool(self._changed)
        self.intake.handle(self.source.wait(0 if busy else self._time_left()))
        self._look_at_changed()
        self.intake.look_at_due(time.monotonic())
        self._catch_up.step()
        if not self.watching and not self._catch_up.pending:
            self._first_scan_is_over()
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + self._schedule.pace
            self._check(now)

    def _time_left(self) -> float:
        """Seconds until something is due."""
        due = self.intake.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic())

    def _check(self, now: float) -> None:
        self.source.check_roots()
        busy, unwatched = self._catch_up.pending, self.source.has_trouble
        self._schedule.check(now, busy=busy, unwatched=unwatched)
        if self.journal.damage:
            self.stop()  # no part has died: all can go on with one that is opened again
            return
        for part in (self.processors, self.directories, self.mover, *self.senders.values()):
            error: BaseException | None = part.error  # type: ignore[attr-defined]  # — each has one
            if error is not None:
                raise WatchmanError(f"a part of the daemon died: {error!r}") from error
        if self.health.check(now, self):
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
            for sender in self.senders.values():
                sender.wake()
            self.journal.prune(time.time_ns() - int(self.config.retention * 1e9))

    def _first_scan_is_over(self) -> None:
        while not self.directories.watching.wait(1.0):
            if self._stopping or self.directories.error is not None:
                return
        if self.journal.damage:
            return
        self.watching = True
        self._schedule.begin(time.monotonic())
        count = sum(map(self.covers, self.config.watches))
        service_log.info("Watching %d director%s", count, "y" if count == 1 else "ies")
        self.health.write(self)
        self._ready()
        for sender in self.senders.values():
            sender.warm_up()

    def _shut_down(self) -> None:
        """Stop in the order of the way: nothing new, then what is under way."""
        self.source.close()
        self.directories.stop()
        self.processors.stop()
        self.mover.stop(timeout=10.0)
        for sender in self.senders.values():
            sender.stop()
        for sender in self.senders.values():
            if not sender.join(timeout=15.0):
                log.warning("Broker %s does not answer; what is unsent is kept", sender.broker)

    def covers(self, watch: Watch) -> int:
        """Return how many directories a watch covers at the moment."""
        if watch.processor is not None:
            return self.processors.directories(watch)
        if watch.kind == "directories":
            return self.directories.directories(watch)
        return next(root.count() for root in self.source.roots if root.watch is watch)

    def _look_at_changed(self) -> None:
        if self._changed:
            paths = [self._changed.popleft() for _ in range(len(self._changed))]
            self.intake.handle(hints_at(paths, self.source.find))

    def _look_at_parts(self) -> None:
        """Look at once what the parts have met; called by any thread."""
        self._next_check = 0.0
        self.source.wake()

    # Called by the stages; all but the first three from threads of their own

    def _ignored(self, name: str, directory: str) -> bool:
        return self.router.ignored(name, f"{directory}/{name}")

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

    def _first_reason(self, root: Root) -> Reason:
        """Return what the first walk of a root is for: what it finds may predate this run."""
        first = root.watch.path in self._first_runs
        return Reason.CATCH_UP if self._resumed and not first else Reason.START

    def _look_again(self, paths: list[str]) -> None:
        self._changed.extend(paths)
        self.directories.look_again(paths)
        self.source.wake()

    def _moved(self, deliveries: list[Delivery]) -> None:
        self._wake({d.route.broker for d in deliveries if d.route is not None})
        signals.announce(signals.moved, deliveries)

    def _not_moved(self, ended: list[tuple[Delivery, State]]) -> None:
        failed = [row for row, state in ended if state is State.FAILED]
        signals.announce(signals.failed, failed)
        # What has vanished may have been away for a moment only, and is an arrival then.
        self._look_again([row.source for row, state in ended if state is State.VANISHED])
