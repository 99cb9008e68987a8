"""The journal's part for stages that tell what became of deliveries."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from watchman.journal import bundles, counters, states, tallies
from watchman.journal.batches import Bundles, Joining
from watchman.journal.bundles import Left
from watchman.journal.database import Database
from watchman.journal.known import KnownVersions
from watchman.journal.route_table import Routes
from watchman.model import Delivery, Route, State, Version
from watchman.text import PATHS, printable, remedy_for_part

log = logging.getLogger("watchman.notify")

_TO_BE_MOVED = """seq = ? AND state = 1
    AND bundle IN (SELECT id FROM bundles WHERE kind = 'set' AND reason IS NULL)"""
_TAKE_OVER = f"""UPDATE deliveries SET device = ?, inode = ?, size = ?, mtime_ns = ?,
    changed_ns = ?, told = ? WHERE {_TO_BE_MOVED}"""  # noqa: S608 — our own words
# Plain integers: sqlite3 converts an enum's member several times slower.
_MOVING, _READY = int(State.MOVING), int(State.READY)
NOTHING: Mapping[int, int] = MappingProxyType({})
Change = tuple[int, State, str]
"""(seq, state, reason)."""


class NotedDeliveries:
    """Notes new states of deliveries."""

    _database: Database
    _routes: Routes
    known: KnownVersions
    bundles: Bundles
    _page: Callable[[str, tuple[Any, ...]], list[Delivery]]
    _when_failed: Callable[[list[Delivery]], None] = staticmethod(lambda _: None)

    def note(
        self,
        changes: Sequence[Change],
        moved: Sequence[Delivery] = (),
        *,
        ready_for: str | None = None,
        sent: Mapping[int, int] = NOTHING,
    ) -> None:
        """Note the new state of deliveries, (seq, state, reason) each, in one commit.

        ``moved`` are MOVING, and their files at their final paths: they become READY, or MOVED
        where there is no route. Nor is their version known any more: whatever is at the source
        from now on is another upload, however much it is alike. The same is true of a version that
        vanished: should the file come back just as it was (a share mounted again, a rename there
        and back), it is an arrival. ``ready_for`` is the broker that all the others are for, where
        that is known: it saves a look at each. ``sent`` are those that the broker has just taken,
        counted by time of arrival in ns: it is remembered how long that took.
        """
        now = time.time_ns()
        alike: dict[tuple[State, str, int, str | None], list[int]] = {}
        bucket: list[int] = []
        # Nearly all are like the one before.
        last: tuple[State, str] | None = None
        for seq, state, reason in changes:
            if last is None or state is not last[0] or reason != last[1]:
                last = state, reason
                bucket = alike.setdefault((state, reason, _READY, ready_for), [])
            bucket.append(seq)
        route: Route | None = None
        for row in moved:
            if row.route is not route or row.told or row is moved[0]:
                route = None if row.told else row.route  # the next one need not be alike
                broker = "" if row.route is None else row.route.broker
                reason = row.told if row.once_moved is State.FAILED else ""
                bucket = alike.setdefault((row.once_moved, reason, _MOVING, broker), [])
            bucket.append(row.seq)

        def work(connection: sqlite3.Connection) -> None:
            for (state, reason, before, broker), seqs in alike.items():
                key = None if broker is None else tallies.TallyKey(broker, before)
                states.change(connection, seqs, state, reason, key, now)
                if state is State.VANISHED:
                    self._unlearn(connection, seqs)
            self.known.unlearn_at(connection, [(row.source, row.seq) for row in moved])
            if sent:
                counters.add(connection, counters.latencies(ready_for or "", sent, now))
            gone[:] = self._bundle(connection, changes, moved, now)

        gone: list[Left] = []
        self._database.write(work)
        for left in gone:
            self._say_left(left)

    def _bundle(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[Change],
        moved: Sequence[Delivery],
        now: int,
    ) -> list[Left]:
        """Do what new states mean for bundles, within the transaction that notes them.

        Return what is left of broken sets.
        """
        joining = [
            Joining(row.seq, self._routes.number(connection, row.route), row.route, row.final)
            for row in moved
            if row.route is not None and row.route.batch and not row.bundle
        ]
        self.bundles.join(connection, joining)
        if not self.bundles.in_use:
            return []
        states.share_task_id(connection, [seq for seq, state, _ in changes if state is State.SENT])
        vanished = [(seq, reason) for seq, state, reason in changes if state is State.VANISHED]
        seqs = [seq for seq, _, _ in changes] + [row.seq for row in moved]
        concerned = bundles.of_rows(connection, seqs)
        gone = states.settle_bundles(connection, concerned, vanished, now)
        self._unlearn(connection, [seq for left in gone for seq in left.in_place])
        return gone

    def _say_left(self, left: Left) -> None:
        """Say of a set that it gets no task, and tell of what has failed therefore."""
        if left.is_discarded or not left.moved:
            return
        failed = self._at(left.moved)
        others = len(failed) - 1
        log.error(
            "Not sent: %s%s: %s; %s",
            printable(failed[0].final),
            f" (and {others} more)" if others else "",
            left.reason,
            remedy_for_part(left.reason),
        )
        self._when_failed(failed)

    def when_failed(self, call: Callable[[list[Delivery]], None]) -> None:
        """Have ``call`` told, by whichever thread writes it, of what fails without being noted so.

        Rows of broken sets, and what is recorded as FAILED: nobody else knows their seqs.
        """
        self._when_failed = call

    def _at(self, seqs: Sequence[int]) -> list[Delivery]:
        """Return deliveries, some hundreds at the most, as they are by now, by seq."""
        return self._page(f"WHERE seq IN ({','.join('?' * len(seqs))}) ORDER BY seq", tuple(seqs))

    def take_over(self, delivery: Delivery, version: Version, told: str = "") -> bool:
        """Have a delivery be about a newer version at its source; False if it is too late for that.

        For a file of a set that has not been moved yet: the set that is on its way has the newer
        one then, and there is no other. The version becomes known; ``told`` is as in ``Delivery``.
        """

        def work(connection: sqlite3.Connection) -> bool:
            row = (*version, told or None, delivery.seq)
            taken = connection.execute(_TAKE_OVER, row).rowcount > 0
            if taken:
                source = delivery.source.encode(*PATHS)
                self.known.remember(connection, [(source, version, delivery.seq)])
            return taken

        return self._database.write(work)

    def can_be_taken_over(self, delivery: Delivery) -> bool:
        """Say whether :meth:`take_over` would be in time now."""
        query = f"SELECT 1 FROM deliveries WHERE {_TO_BE_MOVED}"  # noqa: S608 — our own words
        return self._database.reader.execute(query, (delivery.seq,)).fetchone() is not None

    def _unlearn(self, connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        for start in range(0, len(seqs), states.TOGETHER):
            self.known.unlearn(connection, seqs[start : start + states.TOGETHER])

    def unlearn(self, seqs: Sequence[int]) -> None:
        """Forget the versions that these deliveries announced: to be found again is to arrive."""
        self._database.write(lambda connection: self.known.unlearn(connection, seqs))
