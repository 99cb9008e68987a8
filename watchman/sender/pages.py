"""A broker's ready deliveries, page by page: read, prechecked, and noted when they were sent."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from watchman.model import Bundle, Delivery, ReadyPage, State
from watchman.sender.bundled_tasks import Kept, as_bundles
from watchman.sender.call_thread import CallThread
from watchman.sender.precheck import FRESH, Prechecked, RemoteFiles, directories_below, precheck

PAGE = 2000
"""Deliveries read, published and noted at a time."""
FEW = 50
"""The same where a broker is in trouble, or has taken nothing yet. To look at a whole page and to
encode it takes the interpreter from all others for 50 ms, each time that it is tried in vain."""

BATCHES = 500
"""Open batches that are completed at a time: some ms of the journal's writer."""


class ReadyStore(Protocol):
    """What a sender needs of the journal."""

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        """Deliveries in state READY behind ``after``, by seq."""
        ...

    def without_held(self, page: list[Delivery]) -> list[Delivery]:
        """Those of a page that no hold means; the others are not read again while it lasts."""
        ...

    def join_batches(self, page: Sequence[Delivery]) -> bool:
        """Have those of a page join batches that are to be in one and are not; True if any."""
        ...

    def bundled(self, page: list[Delivery], most: int) -> ReadyPage:
        """A page, each delivery followed by the others of its bundle; about ``most`` in all."""
        ...

    def leave_batches(self, seqs: Sequence[int]) -> None:
        """Have deliveries go without the batches that they are in, and join others."""
        ...

    def batch_due_in(self, broker: str) -> float | None:
        """In how many seconds an open batch may be due; None if none is open."""
        ...

    def complete_batches(self, broker: str, most: int) -> int:
        """Have up to ``most`` open batches sent whose time is over; how many there were."""
        ...

    def is_held(self, broker: str) -> bool:
        """Whether nothing is to be sent to a broker."""
        ...

    @property
    def hold_changes(self) -> int:
        """How often what is held has changed."""
        ...

    def note(
        self,
        changes: Sequence[tuple[int, State, str]],
        moved: Sequence[Delivery] = (),
        *,
        ready_for: str | None = None,
        sent: Mapping[int, int] = ...,
    ) -> None:
        """Note new states, (seq, state, reason) each; durable when it returns.

        ``ready_for`` is the broker that all of them are for. ``sent`` counts those that it has
        just taken, by their time of arrival.
        """
        ...

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer delivery of the same path is recorded."""
        ...

    def last_seq(self) -> int:
        """The seq of the last delivery that was recorded."""
        ...

    def tried(self, broker: str, first: int, last: int) -> set[int]:
        """Those from ``first`` to ``last`` that are READY and have a reason."""
        ...

    def shut_out(self, thread: threading.Thread) -> None:
        """Let a thread that was left write no more."""
        ...


class PrecheckedPage(NamedTuple):
    """Ready deliveries, and what the precheck has found of them."""

    found: Prechecked
    last: int
    """The seq of the last of them."""
    full: bool
    """Whether there may be more behind it."""
    begun: float
    """When the precheck began, by the monotonic clock."""
    bundles: Mapping[int, Bundle]
    """Those that deliveries in it belong to, by number."""
    kept: list[Kept]
    """Batches that cannot be sent because of some of their files."""


class Pages:
    """The journal's part of sending to one broker.

    While there are full pages, the next one is read and prechecked, and the last one noted, by a
    thread of its own, so that the broker never waits for the journal. A few deliveries do not go
    that way: it would take them longer.
    """

    def __init__(self, broker: str, store: ReadyStore, root_of: Callable[[str], str]) -> None:
        self._broker = broker
        self._store = store
        self._directories = directories_below(root_of)
        self.remote = RemoteFiles(broker, root_of, self._announced_later)
        """The files at which nobody may look without a limit of time."""
        self._thread = CallThread(f"sender-{broker}-journal")
        self._noting: Future[None] | None = None

    def read(self, after: int = 0, *, first: int = 0) -> Generator[PrecheckedPage, None, None]:
        """Yield pages, from the oldest delivery behind a seq on; to be closed.

        ``first`` is how many deliveries the first page has at most, where that is less than usual.
        What was sent is noted before this ends, so that the next call does not yield it again.
        Raises what the journal raises.
        """
        with self._directories:
            try:
                page = self._page(after, first)
                # The open directories are for one thread at a time: the page ahead is waited for
                # before another is read here, and before they are closed.
                while page is not None:
                    last = page.last
                    following = self._page_ahead(last) if page.full else None
                    yield page
                    page = following.result() if following else self._page(last)
                    # Behind a slow broker it was long ago: somebody may be writing by now.
                    if page is not None and time.monotonic() - page.begun > FRESH:
                        page = self._page(last)
            finally:
                self._thread.finish()
                self._all_noted()

    def note(
        self,
        changes: Sequence[tuple[int, State, str]],
        sent: Sequence[Delivery] = (),
        *,
        at_once: bool,
    ) -> None:
        """Note new states; unless it has to be ``at_once``, while the next page is sent.

        ``sent`` are those that the broker has just taken.
        """
        self._all_noted()
        # All of a burst's slice have arrived at one time.
        arrived = Counter(delivery.arrived_ns for delivery in sent)
        if at_once:
            self._note(changes, arrived)
        else:
            self._noting = self._thread.submit(lambda: self._note(changes, arrived))

    def _note(self, changes: Sequence[tuple[int, State, str]], sent: Mapping[int, int]) -> None:
        self._store.note(changes, ready_for=self._broker, sent=sent)

    def complete_batches(self, most: int) -> None:
        """Let no further files join batches whose time is over, ``most`` at the most."""
        if self._store.batch_due_in(self._broker) == 0:
            self._store.complete_batches(self._broker, most)

    def leave(self, kept: Iterable[Kept], tried: set[int], inherited: int) -> bool:
        """Have files that cannot be sent now keep no others of their batches; True if any did.

        The parameters are those of :meth:`Kept.to_leave`.
        """
        seqs = [seq for one in kept for seq in one.to_leave(tried, inherited)]
        if seqs:
            self._store.leave_batches(seqs)
        return bool(seqs)

    def next_due(self, *others: float | None) -> float | None:
        """Return for how many seconds no open batch is due, nor any of the others.

        None where there is none. While all is held nothing is due: a release wakes the sender.
        """
        if self._store.is_held(self._broker):
            return None
        left = self._store.batch_due_in(self._broker)
        batch = None if left is None else max(0.01, left)
        return min((seconds for seconds in (batch, *others) if seconds), default=None)

    def give_up(self) -> None:
        """Wait for no file system any longer; from any thread."""
        self.remote.give_up()

    def join(self, sender: threading.Thread, timeout: float) -> bool:
        """Wait for the sender's thread, in seconds; one that is still busy notes nothing more.

        The next one goes on from the journal meanwhile, and may have sent it all.
        """
        if sender.ident is not None:
            sender.join(timeout)
        if not sender.is_alive():
            return True
        for thread in (sender, self._thread.thread):
            if thread is not None:
                self._store.shut_out(thread)
        return False

    def stop(self) -> None:
        """End the threads."""
        self._thread.stop()
        self.remote.stop()

    def _page(self, after: int, limit: int = 0) -> PrecheckedPage | None:
        rows = self._rows(after, limit or PAGE)
        if not rows:
            return None
        begun = time.monotonic()
        page = self._store.bundled(rows, PAGE)
        free = self._store.without_held(page.rows)
        here, apart = self.remote.split(free)
        found = precheck(here, self._directories, self._announced_later)
        if apart:
            found = self.remote.precheck(apart, found)
        kept: list[Kept] = []
        if page.bundles:
            found, kept = as_bundles(found, free, page.bundles)
        full = len(rows) == PAGE or page.cut
        return PrecheckedPage(found, page.last, full, begun, page.bundles, kept)

    def _rows(self, after: int, limit: int) -> list[Delivery]:
        """Return rows that senders read, none of which has yet to join a batch."""
        rows = self._store.page_ready(self._broker, after, limit)
        while self._store.join_batches(rows):
            rows = self._store.page_ready(self._broker, after, limit)
        return rows

    def _announced_later(self, delivery: Delivery) -> bool:
        return self._store.announced_later(delivery)

    def _page_ahead(self, after: int) -> Future[PrecheckedPage | None]:
        return self._thread.submit(lambda: self._page(after))

    def _all_noted(self) -> None:
        noting, self._noting = self._noting, None
        if noting is not None:
            noting.result()
