"""The pipeline: hints → arrivals → router → journal → mover → journal → senders.

One thread runs :meth:`Pipeline.run`: it owns the source, the arrivals and the router. The mover
and the senders have threads of their own and meet it only in the journal, through wake-ups and
through hints for files that turned out to have changed.
"""

from __future__ import annotations

import collections
import logging
import os
import time
from collections.abc import Callable, Iterable

from watchman import signals
from watchman.errors import WatchmanError
from watchman.journal import Journal
from watchman.model import Config, Delivery, Publisher, Watch
from watchman.mounts import REMOTE, filesystem_type
from watchman.mover import OWN, Mover
from watchman.notify.catchup import CatchUp
from watchman.notify.health import RETRY_UNWATCHED, Health
from watchman.notify.intake import Intake
from watchman.router import Router
from watchman.sender import Sender
from watchman.sources.inotify import Hints, Source
from watchman.sources.tree import Reason, Root

log = logging.getLogger("watchman.notify")

CHECK = 2.0
"""Seconds between two checks that each watch root is still the directory that is watched, and
that every part is alive."""


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
    ) -> None:
        self.config = config
        self.journal = journal
        self._resumed = resumed
        self._ready = ready
        self._stopping = False
        self._next_check = 0.0
        self._next_retry = 0.0
        self._changed: collections.deque[str] = collections.deque()
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        ignore = [*config.ignore, OWN]
        self.router = Router(config.patterns, config.moves, ignore, config.dry_run)
        self.source = Source(
            [(watch, _is_polled(watch)) for watch in config.watches], self._ignored, self._trouble
        )
        self.health = Health(config.state_dir, self.source)
        self._next_scan: dict[Root, float] = {}
        self.intake = Intake(journal, self.router, self.source, self._wake)
        first_runs = journal.first_runs(watch.path for watch in config.watches)
        self._catch_up = CatchUp(journal, self.source, self.intake, first_runs)
        self.mover = Mover(journal, config.moves, self._root_of, self._moved, self._look_again)
        self.senders = {
            name: Sender(
                name,
                journal,
                lambda name=name: open_publisher(name),  # type: ignore[misc]  # — binds the name
                self._root_of,
                self._look_again,
                self._sent,
            )
            for name in config.brokers
        }

    # Running

    def run(self) -> None:
        """Watch until :meth:`stop`. Raises whatever ended one of the threads."""
        self.source.start(Reason.CATCH_UP if self._resumed else Reason.START)
        self.mover.start()
        for sender in self.senders.values():
            sender.start()
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._shut_down()

    def stop(self) -> None:
        """End :meth:`run` after what is in hand; may be called from a signal handler."""
        self._stopping = True
        self.source.wake()

    def rescan(self) -> None:
        """Catch up on every watch now; may be called from a signal handler."""
        self._next_scan = dict.fromkeys(self._next_scan, 1.0)
        self._next_check = 0.0
        self.source.wake()

    def _turn(self) -> None:
        """Handle the live events first, then a bounded piece of whatever else there is to do."""
        busy = self._catch_up.pending or bool(self._changed)
        self.intake.handle(self.source.wait(0 if busy else self._time_left()))
        self._look_at_changed()
        self.intake.look_at_due(time.monotonic())
        self._catch_up.step()
        if not self.watching and not self._catch_up.pending:
            self._now_watching()
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK
            self._check(now)

    def _time_left(self) -> float:
        """Seconds until something is due."""
        due = self.intake.next_due()
        soonest = self._next_check if due is None else min(due, self._next_check)
        return max(0.0, soonest - time.monotonic())

    def _check(self, now: float) -> None:
        self.source.check_roots()
        for root, due in self._next_scan.items():
            if now >= due > 0 or (self.health.unwatched and now >= self._next_retry):
                self.source.rescan(root)
                self._next_scan[root] = _next_scan(root, now)
        if now >= self._next_retry:
            self._next_retry = now + RETRY_UNWATCHED
        parts: list[Mover | Sender] = [self.mover, *self.senders.values()]
        for part in parts:
            if part.error is not None:
                raise WatchmanError(f"a part of the daemon died: {part.error!r}") from part.error
        if self.health.check(now, self):
            # An operator may have had failed deliveries retried.
            self.mover.rescan()
            for sender in self.senders.values():
                sender.wake()
            self._prune()

    def _prune(self) -> None:
        """Drop a bounded part of the history that is older than it is to be kept."""
        self.journal.prune(time.time_ns() - int(self.config.retention * 1e9))

    def _now_watching(self) -> None:
        self.watching = True
        self._catch_up.first_scan_is_over()
        now = time.monotonic()
        self._next_scan = {root: _next_scan(root, now) for root in self.source.roots}
        log.info("Watching %d directories", self.source.directories)
        self._ready()

    def _shut_down(self) -> None:
        """Stop in the order of the way: nothing new, then what is under way."""
        self.source.close()
        self.mover.stop(timeout=10.0)
        for sender in self.senders.values():
            sender.stop()
        for sender in self.senders.values():
            if not sender.join(timeout=15.0):
                log.warning("Broker %s does not answer; what is unsent is kept", sender.broker)

    def _look_at_changed(self) -> None:
        hints: Hints = {}
        while self._changed:
            directory, name = os.path.split(self._changed.popleft())
            node = self.source.find(directory)
            if node is not None:
                hints[node, name] = 0
        if hints:
            self.intake.handle(hints)

    # Called by the stages; all but the first three from threads of their own

    def _ignored(self, name: str, directory: str) -> bool:
        return self.router.ignored(name, f"{directory}/{name}")

    def _wake(self, concerned: Iterable[str | None]) -> None:
        for broker in concerned:
            (self.mover if broker is None else self.senders[broker]).wake()

    def _trouble(self, path: str, error: OSError | None) -> None:
        self.health.trouble(path, error)

    def _root_of(self, path: str) -> str:
        """Return the watch root that ``path`` is in; the path's directory if there is none."""
        roots = [w.path for w in self.config.watches if path.startswith(w.prefix)]
        return max(roots, key=len, default=os.path.dirname(path))

    def _look_again(self, paths: list[str]) -> None:
        self._changed.extend(paths)
        self.source.wake()

    def _moved(self, deliveries: list[Delivery]) -> None:
        self._wake({d.route.broker for d in deliveries if d.route is not None})
        signals.announce(signals.moved, deliveries)

    def _sent(self, deliveries: list[Delivery]) -> None:
        signals.announce(signals.sent, deliveries)


def _is_polled(watch: Watch) -> bool:
    if watch.method == "auto":
        return filesystem_type(watch.path) in REMOTE
    return watch.method == "poll"


def _next_scan(root: Root, now: float) -> float:
    """Return when a watch is to be scanned again; 0 for never."""
    period = root.watch.interval if root.polled else root.watch.rescan
    return now + period if period else 0.0
