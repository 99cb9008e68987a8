"""The journal's part for senders: what is ready, less what is held.

The readable rows are those that no hold keeps, and those of holds that were released since. Each of
these groups lies in an index by broker and seq; a page is their rows together, in the order of seq.
So a hold costs one write for each row that it keeps, its release none, and what is held nothing.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from watchman.journal.batches import LARGEST, Bundles, Joining
from watchman.journal.bundles import OF_BUNDLE, leave
from watchman.journal.database import Database
from watchman.journal.holds import Holds
from watchman.journal.known import KnownVersions
from watchman.journal.route_table import Routes
from watchman.model import Delivery, ReadyPage

_FREE = "INDEXED BY deliveries_ready WHERE state = 2 AND held = 0"
_HELD = "INDEXED BY deliveries_held WHERE state = 2 AND held > 0 AND held = {:d}"
_OF_BUNDLE = f"{OF_BUNDLE} AND +state = 2 ORDER BY seq"
_SEQ = itemgetter(0)
_BUNDLE = attrgetter("bundle")


class ReadyDeliveries:
    """Reads deliveries in state READY."""

    _database: Database
    _routes: Routes
    holds: Holds
    bundles: Bundles
    known: KnownVersions

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        """Return deliveries to ``broker`` that are to be sent behind ``after``, by seq.

        What no active hold has kept so far is among them: see :meth:`without_held`.
        """
        parameters = (broker, after, limit)
        where = "AND broker = ? AND seq > ? ORDER BY seq LIMIT ?"
        groups = [self._page(f"{group} {where}", parameters) for group in self._groups()]
        if len(groups) == 1:
            return groups[0]
        return list(heapq.merge(*groups, key=_SEQ))[:limit]

    def join_batches(self, page: Sequence[Delivery]) -> bool:
        """Have deliveries of a page join batches that are to be in one and are not; True if any.

        A command put them on their way. They are not where they were read any more.
        """
        if not self._routes.batched:
            return False
        alone = [
            (row, row.route)
            for row in page
            if row.route is not None and row.route.batch and not row.bundle
        ]
        if alone:

            def work(connection: sqlite3.Connection) -> None:
                number = self._routes.number
                joining = [
                    Joining(row.seq, number(connection, route), route, row.final)
                    for row, route in alone
                ]
                self.bundles.join(connection, joining)

            self._database.write(work)
        return bool(alone)

    def leave_batches(self, seqs: Sequence[int]) -> None:
        """Have READY deliveries be in no batch any more; they join others when they are read."""
        self._database.write(lambda connection: leave(connection, seqs))

    def bundled(self, page: list[Delivery], most: int) -> ReadyPage:
        """Return the deliveries of a page of leaders, each followed by the others of its bundle.

        All of one bundle have its task id. Not many more than ``most``: the page may end earlier.
        """
        if not any(map(_BUNDLE, page)):
            return ReadyPage(page, {}, page[-1].seq, cut=False)
        self.bundles.in_use = True  # a command may have made the first
        found: list[Delivery] = []
        last = 0
        bundles = self.bundles.read({row.bundle for row in page if row.bundle})
        for row in page:
            if len(found) >= most:
                return ReadyPage(found, bundles, last, cut=True)
            last = row.seq
            if not row.bundle:
                found.append(row)
                continue
            task_id = bundles[row.bundle].task_id
            rows = self._page(_OF_BUNDLE, (row.bundle,))
            found += [one._replace(task_id=task_id) for one in rows]
        return ReadyPage(found, bundles, last, cut=False)

    def without_held(self, page: list[Delivery]) -> list[Delivery]:
        """Return those of a page that no hold means; the others are kept, and not read again."""
        return self.holds.keep(page) if self.holds.sorts_out else page

    def batch_due_in(self, broker: str) -> float | None:
        """Return in how many seconds an open batch may be due; None if none is open."""
        return self.bundles.seconds_left(broker, time.time_ns())

    def complete_batches(self, broker: str, most: int, *, early: bool = False) -> int:
        """Have up to ``most`` open batches sent whose time is over; return how many there were.

        ``early``: whether it is over or not.
        """
        return self.bundles.complete_due(broker, LARGEST if early else time.time_ns(), most)

    def is_held(self, broker: str) -> bool:
        """Whether nothing is to be sent to a broker."""
        return self.holds.has_broker(broker)

    @property
    def hold_changes(self) -> int:
        """How often what is held has changed."""
        return self.holds.changes

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer version at the delivery's source has been announced."""
        directory, _, name = delivery.source.rpartition("/")
        known = self.known.lookup(directory, [name]).get(name)
        return known is not None and known.seq > delivery.seq

    def tried(self, broker: str, first: int, last: int) -> set[int]:
        """Return those from ``first`` to ``last`` that wait although they were tried before.

        They are READY with a reason: why the broker did not take them.
        """
        found: set[int] = set()
        for group in self._groups():
            query = f"""SELECT seq FROM deliveries {group} AND broker = ?
                AND seq BETWEEN ? AND ? AND reason IS NOT NULL"""  # noqa: S608 — our own words
            rows = self._database.reader.execute(query, (broker, first, last))
            found.update(seq for (seq,) in rows)
        return found

    def ready_brokers(self) -> set[str]:
        """Return the brokers that deliveries are for which are to be sent."""
        found: set[str] = set()
        for group in self._groups():
            query = f"""SELECT broker FROM deliveries {group} AND broker > ?
                ORDER BY broker LIMIT 1"""  # noqa: S608 — our own words
            row = self._database.reader.execute(query, ("",)).fetchone()
            while row is not None:
                found.add(row[0])
                row = self._database.reader.execute(query, row).fetchone()
        return found | self.bundles.brokers()

    def _groups(self) -> Iterator[str]:
        """Yield what tells the rows of each group, as SQL."""
        yield _FREE
        for number in self.holds.released:
            yield _HELD.format(number)

    def _page(self, where: str, parameters: tuple[Any, ...]) -> list[Delivery]:
        raise NotImplementedError
