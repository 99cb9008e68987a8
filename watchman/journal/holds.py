"""The table ``holds``: what an operator has ordered to wait, and what each has kept.

A hold of a broker is a word to its sender, which reads nothing then. Those of tasks and
directories mark each row that they mean, once, when the sender comes to it (``deliveries.held``).
Holds are made and released by commands (:mod:`watchman.journal.hold_orders`); the daemon takes a
change up by :meth:`Holds.refresh`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from watchman.journal.database import Database
from watchman.journal.held import ALL, HeldNames, keeping, read_hold
from watchman.model import Delivery, Hold, HoldKind

# Not for one that was released meanwhile: what it has kept is only read anew with the next refresh.
# Those that go with a leader stay with it.
_KEEP = """UPDATE deliveries SET held = ? WHERE state = 2 AND held <> ? AND held >= 0
    AND EXISTS (SELECT 1 FROM holds WHERE id = ?) AND seq IN"""
_COUNT = """INSERT INTO held VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET count = count + excluded.count"""
_TOGETHER = 500


class Holds:
    """The holds of now, as of the last refresh. For any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.active: tuple[Hold, ...] = ()
        self.changes = 0
        """How often what is held has changed: who compares it sees that a page is out of date."""
        self.released: tuple[int, ...] = ()
        """The numbers of those that are gone and have kept what is still to be sent."""
        self._brokers: frozenset[str] = frozenset()
        self._names = HeldNames()

    def refresh(self) -> bool:
        """Take up what was ordered since the last time; True if anything was.

        Raises JournalError.
        """
        reader = self._database.reader
        try:
            active = tuple(map(read_hold, reader.execute(ALL)))
        except (ValueError, TypeError) as error:
            self._database.found_damage(ValueError(f"a hold in it is none: {error}"))
        numbers = {one.id for one in active}
        released = tuple(number for number in keeping(reader.execute) if number not in numbers)
        changed = active != self.active or released != self.released
        self._brokers = frozenset(one.name for one in active if one.kind is HoldKind.BROKER)
        self._names = HeldNames(active)
        self.active, self.released = active, released
        self.changes += changed
        return changed

    @property
    def sorts_out(self) -> bool:
        """Whether there are holds of tasks or directories."""
        return bool(self._names)

    def has_broker(self, broker: str) -> bool:
        """Whether all that is for a broker is to wait."""
        return broker in self._brokers

    def of(self, delivery: Delivery) -> Hold | None:
        """Return a hold of a task or a directory that means a delivery."""
        task = None if delivery.route is None else delivery.route.task
        return self._names.of(task, delivery.source, delivery.final)

    def keep(self, page: Sequence[Delivery]) -> list[Delivery]:
        """Mark those of ready deliveries that are to wait, in one commit; return the others.

        All of them are for one broker. Raises JournalError.
        """
        free: list[Delivery] = []
        kept: dict[Hold, list[Delivery]] = {}
        # What means one of its files means the task.
        of_bundle: dict[int, Hold] = {}
        for delivery in page:
            hold = self.of(delivery) if delivery.bundle else None
            if hold is not None:
                of_bundle.setdefault(delivery.bundle, hold)
        for delivery in page:
            hold = of_bundle.get(delivery.bundle) if delivery.bundle else self.of(delivery)
            (free if hold is None else kept.setdefault(hold, [])).append(delivery)
        if kept:
            self._database.write(lambda connection: _keep(connection, kept))
        return free


def _keep(connection: sqlite3.Connection, kept: dict[Hold, list[Delivery]]) -> None:
    for hold, deliveries in kept.items():
        number = 0
        for start in range(0, len(deliveries), _TOGETHER):
            seqs = [delivery.seq for delivery in deliveries[start : start + _TOGETHER]]
            query = f"{_KEEP} ({','.join('?' * len(seqs))})"
            number += connection.execute(query, (hold.id, hold.id, hold.id, *seqs)).rowcount
        route = deliveries[0].route
        if number and route is not None:
            bundled = [delivery.bundle for delivery in deliveries if delivery.bundle]
            number += len(bundled) - len(set(bundled))
            # The first that is kept has arrived first: they are read in that order.
            values = (hold.id, route.broker, number, deliveries[0].arrived_ns)
            connection.execute(_COUNT, values)
