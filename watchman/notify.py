"""The pipeline: hints → arrivals → router → journal → mover → journal → senders.

One thread runs :meth:`Pipeline.run`: it owns the source, the arrivals and the router. The mover
and the senders have threads of their own and meet it only in the journal, through wake-ups and
through hints for files that turned out to have changed.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from watchman.arrivals import Arrivals
from watchman.errors import WatchmanError
from watchman.filesystem import GONE, Look, Seen, look, version_of
from watchman.journal import Journal, NewDelivery, Scan
from watchman.model import Config, Delivery, Publisher, Version, Watch
from watchman.logs import info_all
from watchman.mover import Mover
from watchman.router import Router
from watchman.sender import Sender
from watchman.sources.inotify import ATTRIB, CLOSED, CONTENT, Hints, Source
from watchman.sources.tree import Listing, Node, Reason
from watchman.text import printable

log = logging.getLogger("watchman.notify")

SLICE = 500
"""Hints handled, recorded and committed at a time."""
SCAN_TIME = 0.05
"""Seconds of scanning between two looks at live events."""
BACKLOG = 50_000
"""Files found by a scan that are sorted by age at a time."""
ROOT_CHECK = 2.0
"""Seconds between two checks that each watch root is still the directory that is watched."""
CLOCK_GRAIN_NS = 10_000_000
"""A ctime comes from the kernel's coarse clock, up to 10 ms behind (CONFIG_HZ=100)."""
TASK_NAMESPACE = bytes.fromhex("5f0a4b0e7d6c5d5f9a3c2f1e8b7d6a54")


def task_id(source: str, version: Version) -> str:
    """Return the uuid5 (RFC 9562) of a source path and version.

    The same as ``str(uuid.uuid5(namespace, name))``, several times faster.
    """
    name = b"%s\0%d\0%d\0%d\0%d" % (os.fsencode(source), *version)
    digest = hashlib.sha1(TASK_NAMESPACE + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return (
        f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
    )


class _Found(NamedTuple):
    """A complete file that is not known yet."""

    node: Node
    name: str
    path: str
    version: Version


class _Directories:
    """Directories that are open while a slice of hints is handled."""

    LIMIT = 200

    def __init__(self) -> None:
        self._open: dict[Node, tuple[int, str]] = {}

    def __enter__(self) -> _Directories:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor, _path in self._open.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()

    def get(self, node: Node) -> tuple[int, str]:
        """Return (descriptor or -1 if it is gone, path with a slash behind it)."""
        found = self._open.get(node)
        if found is None:
            if len(self._open) >= self.LIMIT:
                self.__exit__()
            try:
                descriptor = node.open()
            except OSError:
                descriptor = -1
            found = self._open[node] = (descriptor, node.path.rstrip("/") + "/")
        return found


class Pipeline:
    """The whole way of a file, for one configuration.

    ``open_publisher(broker name)`` is called in each sender's thread. ``resumed`` says that this
    process has watched before (a reload), so that nothing found now predates it.
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
        self.router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
        self._arrivals: Arrivals[tuple[Node, str]] = Arrivals()
        self._changed: collections.deque[str] = collections.deque()
        self._backlog: list[tuple[int, Node, str]] = []
        self._sorted: list[tuple[int, Node, str]] = []
        """The part of the backlog that is being handled: the oldest is last."""
        self._first_runs = journal.first_runs(w.path for w in config.watches)
        self._started_ns = time.time_ns() - CLOCK_GRAIN_NS
        self._resumed = resumed
        self._ready = ready
        self._stopping = False
        self._next_root_check = 0.0
        self._scanned: Scan | None = None
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        self.troubles: dict[str, str] = {}
        """What is not being watched, and why."""
        self.last_arrival_ns = 0
        self.source = Source(
            [(watch, watch.method == "poll") for watch in config.watches],
            self._ignored,
            self._trouble,
        )
        self._next_scan = {root: 0.0 for root in self.source.roots}
        self.senders = {
            name: Sender(
                name,
                journal,
                lambda name=name: open_publisher(name),  # type: ignore[misc]  # — binds the name now
                self._root_of,
                self._look_again,
                self._sent,
            )
            for name in config.brokers
        }
        self.mover = Mover(
            journal, config.moves, self._root_of, self._moved, self._look_again
        )

    # Running

    def run(self) -> None:
        """Watch until :meth:`stop`. Raises whatever ended one of the threads."""
        self.source.start(Reason.CATCH_UP if self._resumed else Reason.START)
        self.mover.start()
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._shut_down()

    def stop(self) -> None:
        """End :meth:`run` after what is in hand; may be called from a signal handler."""
        self._stopping = True
        self.source.wake()

    def _turn(self) -> None:
        """Handle the live events first, then a bounded piece of whatever else there is to do."""
        busy = self.source.scanning or self._backlog or self._sorted or self._changed
        self._handle(self.source.wait(0 if busy else self._next_timer()))
        self._look_at_changed()
        now = time.monotonic()
        due = self._arrivals.due(now)
        if due:
            self._handle(dict.fromkeys(due, 0))
        if self.source.scanning:
            self._scan()
        if self._backlog or self._sorted:
            self._drain_backlog()
        if not self.watching and not (self.source.scanning or self._backlog or self._sorted):
            self._now_watching()
        if now >= self._next_root_check:
            self._check_roots(now)

    def _next_timer(self) -> float:
        now = time.monotonic()
        due = self._arrivals.next_due()
        soonest = self._next_root_check if due is None else min(due, self._next_root_check)
        return max(0.0, soonest - now)

    def _check_roots(self, now: float) -> None:
        self._next_root_check = now + ROOT_CHECK
        self.source.check_roots()
        for root, due in self._next_scan.items():
            if now >= due > 0:
                self.source.rescan(root)
                self._schedule_scan(root)
        parts: list[Mover | Sender] = [self.mover, *self.senders.values()]
        for part in parts:
            if part.error is not None:
                raise WatchmanError(f"a part of the daemon died: {part.error!r}") from part.error

    def _now_watching(self) -> None:
        self.watching = True
        self.journal.note_first_run(self._first_runs)
        self._first_runs = set()
        for root in self._next_scan:
            self._schedule_scan(root)
        for sender in self.senders.values():
            sender.start()
        log.info("Watching %d directories", self.source.directories)
        self._ready()

    def _schedule_scan(self, root: Node) -> None:
        watch = root.root.watch
        period = watch.interval if root.root.polled else watch.rescan
        self._next_scan[root.root] = time.monotonic() + period if period else 0.0

    def _shut_down(self) -> None:
        """Stop in the order of the way: nothing new, then what is under way, then the journal."""
        self.source.close()
        self.mover.stop(timeout=10.0)
        for sender in self.senders.values():
            sender.stop()
        for sender in self.senders.values():
            if self.watching and not sender.join(timeout=15.0):
                log.warning("Broker %s does not answer; what is unsent is kept", sender.broker)

    # Called by other stages, from their threads

    def _look_again(self, paths: list[str]) -> None:
        self._changed.extend(paths)
        self.source.wake()

    def _moved(self, deliveries: list[Delivery]) -> None:
        for broker in {d.route.broker for d in deliveries if d.route is not None}:
            self._wake_sender(broker)

    def _sent(self, deliveries: list[Delivery]) -> None:
        pass

    def _wake_sender(self, broker: str) -> None:
        if self.watching:
            self.senders[broker].wake()

    def _trouble(self, path: str, error: OSError | None) -> None:
        if error is None:
            log.warning("Watching %s again", printable(path))
            self.troubles.pop(path, None)
        else:
            log.warning("Not watching %s: %s", printable(path), error.strerror)
            self.troubles[path] = str(error.strerror)

    # Hints

    def _ignored(self, name: str, directory: str) -> bool:
        return self.router.ignored(name, f"{directory}/{name}")

    def _root_of(self, path: str) -> str:
        """Return the watch root that ``path`` is in; the path's directory if there is none."""
        roots = [w.path for w in self.config.watches if path.startswith(w.prefix)]
        return max(roots, key=len, default=os.path.dirname(path))

    def _look_at_changed(self) -> None:
        hints: Hints = {}
        while self._changed:
            directory, name = os.path.split(self._changed.popleft())
            node = self.source.find(directory)
            if node is not None:
                hints[node, name] = 0
        self._handle(hints)

    def _handle(self, hints: Hints) -> None:
        """Handle hints in slices; attribute changes after all that happened before they are seen."""
        self._forget_vanished()
        while hints:
            refreshed: dict[tuple[Node, str], tuple[str, Version]] = {}
            items = list(hints.items())
            for start in range(0, len(items), SLICE):
                self._handle_slice(items[start : start + SLICE], refreshed)
            hints = self.source.drain() if refreshed else {}
            # A file that is free now was closed before its event was drained: an attribute
            # change with a write behind it is an arrival, one without is none.
            fresh = [value for key, value in refreshed.items() if not hints.get(key, 0) & CONTENT]
            if fresh:
                self.journal.known.refresh(fresh)

    def _forget_vanished(self) -> None:
        """Forget what was in directories that left, before their names are used again."""
        for path in self.source.vanished():
            self.journal.known.forget_below(path)

    def _handle_slice(
        self,
        items: Sequence[tuple[tuple[Node, str], int]],
        refreshed: dict[tuple[Node, str], tuple[str, Version]],
    ) -> None:
        ignored = self.router.ignored
        found: list[_Found] = []
        gone: list[str] = []
        touched: list[_Found] = []
        with _Directories() as directories:
            for key, mask in items:
                node, name = key
                descriptor, prefix = directories.get(node)
                path = prefix + name
                if ignored(name, path) or not self._wanted(node.root.watch, mask):
                    continue
                seen = look(name, descriptor) if descriptor >= 0 else GONE
                if seen.seen is Seen.GONE:
                    self._arrivals.forget(key)
                    gone.append(path)
                elif mask & ATTRIB and not mask & CONTENT:
                    # While somebody writes, or may be writing, the write's own hint will follow.
                    if seen.seen is Seen.COMPLETE and seen.version is not None:
                        touched.append(_Found(node, name, path, seen.version))
                elif self._complete(key, seen, mask):
                    assert seen.version is not None
                    found.append(_Found(node, name, path, seen.version))
        if touched:
            self._touched(touched, found, refreshed)
        if found:
            self._arrived(found)
        if gone:
            self.journal.known.forget(gone)

    @staticmethod
    def _wanted(watch: Watch, mask: int) -> bool:
        """Whether the watch's own mask lets the hint through; scans and endings always pass."""
        return watch.mask is None or not mask & CONTENT or bool(mask & watch.mask)

    def _complete(self, key: tuple[Node, str], seen: Look, mask: int) -> bool:
        settle = key[0].root.watch.settle
        if key[0].root.polled and settle is None:
            settle = 10.0
        return self._arrivals.complete(
            key,
            seen,
            time.monotonic(),
            time.time_ns(),
            closed=bool(mask & CLOSED),
            settle=settle,
        )

    def _touched(
        self,
        touched: Sequence[_Found],
        found: list[_Found],
        refreshed: dict[tuple[Node, str], tuple[str, Version]],
    ) -> None:
        """Sort attribute changes: nothing new, other times, or another content."""
        known = self._known(touched)
        for item in touched:
            before = known.get(item.path)
            if before is None or before.same_content(item.version):
                continue
            if (before.inode, before.size) == (item.version.inode, item.version.size):
                refreshed[item.node, item.name] = (item.path, item.version)
            else:
                found.append(item)

    def _known(self, items: Iterable[_Found]) -> dict[str, Version]:
        names = collections.defaultdict(list)
        for item in items:
            names[item.path.rpartition("/")[0]].append(item.name)
        return {
            f"{directory}/{name}": known.version
            for directory, wanted in names.items()
            for name, known in self.journal.known.lookup(directory, wanted).items()
        }

    # Arrivals

    def _arrived(self, found: Sequence[_Found]) -> None:
        """Record complete files that are not known; the commit is on disk when this returns."""
        known = self._known(found)
        route, destination = self.router.route, self.router.destination
        is_dry_run = self.router.is_dry_run
        now_ns = time.time_ns()
        new: list[NewDelivery] = []
        noted: list[tuple[str, Version]] = []
        brokers = set()
        moving = False
        unknown = [
            item
            for item in found
            if (before := known.get(item.path)) is None
            or not before.same_content(item.version)
        ]
        info_all(log, "Notified of %s", [printable(item.path) for item in unknown])
        for item in unknown:
            path = item.path
            chosen = route(path)
            final = destination(path)
            if is_dry_run(path):
                self._say_what_would_happen(path, final, chosen and chosen.task)
                noted.append((path, item.version))
            elif chosen is None and final is None:
                noted.append((path, item.version))
            else:
                identity = task_id(path, item.version)
                new.append(NewDelivery(identity, path, final, item.version, now_ns, chosen))
                if final is not None:
                    moving = True
                elif chosen is not None:
                    brokers.add(chosen.broker)
        if new or noted:
            self.last_arrival_ns = now_ns
            self.journal.record(new, noted)
        if moving:
            self.mover.wake()
        for broker in brokers:
            self._wake_sender(broker)

    @staticmethod
    def _say_what_would_happen(path: str, final: str | None, task: str | None) -> None:
        if final is not None:
            log.info("Dry run: would move %s to %s", printable(path), printable(final))
        if task is not None:
            log.info("Dry run: would send task %s", task)

    # Scans

    def _scan(self) -> None:
        """List directories for a moment; live events come next."""
        until = time.monotonic() + SCAN_TIME
        for listing in self.source.listings():
            self._listed(listing)
            if time.monotonic() > until:
                return

    def _listed(self, listing: Listing) -> None:
        self._forget_vanished()
        node = listing.node
        if listing.reason is Reason.NEW:
            self._handle({(node, entry.name): 0 for entry in listing.entries})
            return
        if self._scanned is None:
            self._scanned = self.journal.known.scan(node.path.rstrip("/"))
        found: dict[str, os.stat_result] = {}
        for entry in listing.entries:
            # What is gone since has an event of its own.
            with contextlib.suppress(OSError):
                found[entry.name] = entry.stat(follow_symlinks=False)
        old = []
        for name in self._scanned.changed(found):
            status = found[name]
            if self._predates(listing, status.st_ctime_ns):
                old.append(name)
            else:
                self._backlog.append((status.st_mtime_ns, node, name))
        if old:
            self._note_existing(listing, old)
        if listing.last:
            self._forget_missing(listing, self._scanned)
            self._scanned = None

    def _predates(self, listing: Listing, changed_ns: int) -> bool:
        """Whether what is there is only to be noted: it was there before the run that notes."""
        watch = listing.node.root.watch
        if listing.reason is not Reason.START or watch.existing == "all":
            return False
        first = watch.existing == "none" or watch.path in self._first_runs
        return first and changed_ns < self._started_ns

    def _note_existing(self, listing: Listing, names: Sequence[str]) -> None:
        """Make known what was there before the first run, unless somebody is writing it."""
        noted = []
        path = listing.node.path.rstrip("/")
        for name in names:
            seen = look(name, listing.descriptor)
            if seen.seen is Seen.BUSY:
                self._complete((listing.node, name), seen, 0)
            elif seen.version is not None:
                noted.append((f"{path}/{name}", seen.version))
        self.journal.record((), noted)

    def _forget_missing(self, listing: Listing, scanned: Scan) -> None:
        """Forget the known names that a directory no longer has."""
        missing = [
            f"{scanned.directory}/{name}"
            for name in scanned.maybe_missing()
            if look(name, listing.descriptor).seen is Seen.GONE
        ]
        if missing:
            self.journal.known.forget(missing)

    def _drain_backlog(self) -> None:
        """Handle a slice of what scans found, oldest first, once a scan is over or much is held."""
        if not self._sorted and (not self.source.scanning or len(self._backlog) >= BACKLOG):
            self._sorted, self._backlog = self._backlog, []
            self._sorted.sort(key=_age, reverse=True)
        part = self._sorted[-SLICE:]
        del self._sorted[-SLICE:]
        self._handle({(node, name): 0 for _, node, name in reversed(part)})


def _age(item: tuple[int, Node, str]) -> int:
    return item[0]
