"""Watches for files: the loop, with what files have besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchman.journal import Journal
from watchman.model import Watch
from watchman.pipeline.files import Files
from watchman.pipeline.first_runs import FirstRuns
from watchman.pipeline.notes import LONG
from watchman.pipeline.parts_listener import PartsListener
from watchman.pipeline.watch_scan import Scanner
from watchman.pipeline.watcher import Watcher
from watchman.router import Router
from watchman.sources.source import Hints, Source
from watchman.sources.tree import Root
from watchman.troubles import Troubles

if TYPE_CHECKING:  # loaded where something is asked of files
    from watchman.pipeline.partial_files import PartialFiles

COUNT = 10.0
"""Seconds between two looks for files that have been open for long."""


class FileWatcher(Watcher[Hints]):
    """Watches for files that share a source."""

    source: Source
    scanner: Scanner

    def __init__(
        self,
        source: Source,
        journal: Journal,
        router: Router,
        listener: PartsListener,
        troubles: Troubles,
        partial: PartialFiles | None,
        *,
        quarantine: str,
        resumed: bool,
    ) -> None:
        first_runs = FirstRuns(journal, [root.watch for root in source.roots], resumed=resumed)
        self.files = Files(journal, router, source, listener.wake, troubles, partial, quarantine)
        self.partial = partial
        self._next_count = 0.0
        scanner = Scanner(journal, source, self.files, first_runs)
        super().__init__(source, self.files, scanner, first_runs, resumed=resumed)

    def start(self) -> None:
        """Read events from now on; have everything scanned."""
        self.files.load_partial()
        super().start()

    def check(self, now: float) -> None:
        """Look what has left, and what is open for long; have done what is due for any watch."""
        super().check(now)
        self.files.forget_vanished()
        self.files.unseen.check(now)
        if self.partial is not None:
            self.partial.unread.check(now)
        if now >= self._next_count:
            self._next_count = now + COUNT
            self._look_for_long_open(now)

    def _look_for_long_open(self, now: float) -> None:
        """Say which files have been open for writing for long."""
        found: dict[Root, list[str]] = {root: [] for root in self.source.roots}
        for node, name in self.files.incomplete.open_since(now - LONG):
            if node.root in found and (node, name) not in self.files.unseen:
                found[node.root].append(node.join(name))
        for root, paths in found.items():
            self.files.notes.long_open(root.watch, paths)

    def add(self, watch: Watch) -> None:
        """Take another watch while it runs."""
        if self.partial is not None:
            self.partial.companions.add(watch)
        super().add(watch)

    def remove(self, watch: Watch) -> None:
        """Give up a watch whose directory is gone."""
        super().remove(watch)
        if self.partial is not None:
            self.partial.companions.remove(watch)
        self.files.notes.left(watch)

    def end(self) -> None:
        """Forget what is not there."""
        self.files.close()

    def being_written(self, now: float, most: int) -> list[tuple[str, float]]:
        """Return some of the files that are being written, and for how many seconds; the oldest.

        ``now`` is of the monotonic clock. From any thread.
        """
        found = self.files.incomplete.oldest(most, self.files.unseen)
        return [(node.join(name), now - since) for (node, name), since in found]
