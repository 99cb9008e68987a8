"""A broker's ready deliveries, page by page: read, examined, and noted when they were sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from watchman.model import Delivery, State
from watchman.sender.examination import FRESH, Examined, directories_below, examine
from watchman.sender.helper import Helper
from watchman.sender.remote import RemoteFiles

PAGE = 2000
"""Deliveries read, published and noted at a time."""


class Ledger(Protocol):
    """What a sender needs of the journal."""

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        """Deliveries in state READY behind ``after``, by seq."""
        ...

    def note(
        self,
        changes: Sequence[tuple[int, State, str]],
        moved: Sequence[Delivery] = (),
        *,
        ready_for: str | None = None,
    ) -> None:
        """Note new states, (seq, state, reason) each; durable when it returns.

        ``ready_for`` is the broker that all of them are for.
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


class Page(NamedTuple):
    """Ready deliveries that have been examined."""

    found: Examined
    last: int
    """The seq of the last of them."""
    full: bool
    """Whether there may be more behind it."""
    examined: float
    """When that began, by the monotonic clock."""


class Pages:
    """The journal's part of sending to one broker.

    While there are full pages, the next one is read and examined, and the last one noted, by a
    thread of its own, so that the broker never waits for the journal. A few deliveries do not go
    that way: it would take them longer.
    """

    def __init__(self, broker: str, ledger: Ledger, root_of: Callable[[str], str]) -> None:
        self._broker = broker
        self._ledger = ledger
        self._directories = directories_below(root_of)
        self.remote = RemoteFiles(broker, root_of, self._announced_later)
        """The files at which nobody may look without a limit of time."""
        self._helper = Helper(f"sender-{broker}-journal")
        self._noting: Future[None] | None = None

    def read(self, after: int = 0) -> Generator[Page, None, None]:
        """Yield pages, from the oldest delivery behind a seq on; to be closed.

        What was sent is noted before this ends, so that the next call does not yield it again.
        Raises what the journal raises.
        """
        with self._directories:
            try:
                page = self._page(after)
                while page is not None:
                    last = page.last
                    following = self._page_ahead(last) if page.full else None
                    yield page
                    page = following.result() if following else self._page(last)
                    # Behind a slow broker it was long ago: somebody may be writing by now.
                    if page is not None and time.monotonic() - page.examined > FRESH:
                        page = self._page(last)
            finally:
                self._helper.finish()
                self._all_noted()

    def note(self, changes: Sequence[tuple[int, State, str]], *, at_once: bool) -> None:
        """Note new states; unless it has to be ``at_once``, while the next page is sent."""
        self._all_noted()
        if at_once:
            self._note(changes)
        else:
            self._noting = self._helper.submit(lambda: self._note(changes))

    def _note(self, changes: Sequence[tuple[int, State, str]]) -> None:
        self._ledger.note(changes, ready_for=self._broker)

    def give_up(self) -> None:
        """Wait for no file system any longer; from any thread."""
        self.remote.give_up()

    def stop(self) -> None:
        """End the threads."""
        self._helper.stop()
        self.remote.stop()

    def _page(self, after: int) -> Page | None:
        rows = self._ledger.page_ready(self._broker, after, PAGE)
        if not rows:
            return None
        begun = time.monotonic()
        here, apart = self.remote.split(rows)
        found = examine(here, self._directories, self._announced_later)
        if apart:
            found = self.remote.examine(apart, found)
        return Page(found, rows[-1].seq, len(rows) == PAGE, begun)

    def _announced_later(self, delivery: Delivery) -> bool:
        return self._ledger.announced_later(delivery)

    def _page_ahead(self, after: int) -> Future[Page | None]:
        return self._helper.submit(lambda: self._page(after))

    def _all_noted(self) -> None:
        noting, self._noting = self._noting, None
        if noting is not None:
            noting.result()
