"""What both sources share: the directories of watches, walked, checked and put right."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from watchman import coverage
from watchman.model import Watch
from watchman.sources.at_start import Starts
from watchman.sources.listener import UnwatchedListener
from watchman.sources.roots import Roots
from watchman.sources.tree import Listing, Node, Reason, Root
from watchman.sources.walk import Walker, Walks
from watchman.sources.watch_table import WatchTable

AnyHints = TypeVar("AnyHints")


class BaseSource(abc.ABC, Generic[AnyHints]):
    """Watched directories and the walks of them. Used from one thread, but for :meth:`wake`.

    Subclasses say what the events mean. ``rules`` say which names are ignored, ``starts`` is kept
    for the next source.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        rules: coverage.Rules,
        listener: UnwatchedListener,
        starts: Starts,
        watch_table: WatchTable,
    ) -> None:
        self._instance = watch_table.instance
        self._watch_table = watch_table
        self._walker = Walker(rules, watch_table, listener)
        self._walks = Walks(self._walker)
        self._roots = Roots(watches, self._walker, self._walks, starts)
        self._roots_changed = False
        """An event came of which a root may have left its path."""
        self.overflows = 0
        """How often events were lost, and everything was scanned therefore."""

    @property
    def roots(self) -> list[Root]:
        """The watches' top directories."""
        return self._roots.all

    def start(self, reason: Callable[[Root], Reason]) -> None:
        """Read events from now on; queue the walk that has every directory watched."""
        self._instance.start()
        for root in self.roots:
            root.reason = reason(root)
            self._walks.add(root, root.reason)

    def add(self, watch: Watch, reason: Reason) -> Root:
        """Take another watch, and queue the walk that has its directories watched."""
        root = self._roots.add(watch)
        root.reason = reason
        self._walks.add(root, reason)
        return root

    def remove(self, watch: Watch) -> list[Root]:
        """Give up a watch; return what was its root."""
        return self._roots.remove(watch)

    def close(self) -> None:
        """Stop reading and give the inotify instance back."""
        self._walks.close()
        self._roots.close()
        self._instance.close()

    def wake(self) -> None:
        """Make :meth:`wait` return at once; from any thread."""
        self._instance.wake()

    @abc.abstractmethod
    def wait(self, timeout: float | None) -> AnyHints:
        """Return the next hints, waiting up to ``timeout`` seconds for the first event."""

    def rescan(self, root: Root) -> None:
        """Queue a catch-up of one watch."""
        self._walks.add(root, Reason.CATCH_UP)

    def poll(self, root: Root) -> None:
        """Queue a catch-up of what can change in a watch without an event."""
        self._roots.poll(root)

    def retry_unwatched(self) -> None:
        """Queue a catch-up of the directories that are not watched as they should be."""
        self._roots.retry_unwatched()

    def find(self, path: str) -> Node | None:
        """Return the watched directory at ``path``."""
        return self._roots.find(path)

    def covers(self, watch: Watch) -> int:
        """Return how many directories it watches of a watch at the moment; from any thread."""
        roots = [root for root in self.roots if root.watch is watch]
        return sum(root.directories for root in roots if root.identity is not None)

    @property
    def scanning(self) -> bool:
        """Whether directories are waiting to be listed."""
        return bool(self._walks)

    @property
    def has_trouble(self) -> bool:
        """Whether there are directories that are not watched, or not as they should be."""
        return bool(self._walker.troubled)

    def is_troubled(self, node: Node) -> bool:
        """Whether it has been said that a directory is not watched as it should be."""
        return node.path in self._walker.troubled

    def listings(self) -> Iterator[Listing]:
        """Yield what is waiting to be listed; may be left at any time and asked for again."""
        while (listing := self._walks.next()) is not None:
            yield listing

    def check_roots(self) -> None:
        """Walk again every root that is not the directory that was watched."""
        self._roots_changed = False
        self._roots.check()

    def _overflowed(self) -> None:
        """Have everything scanned: events were lost."""
        self.overflows += 1
        for root in self.roots:
            self.rescan(root)
