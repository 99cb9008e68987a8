"""The table ``routes``: each route once, by a number that deliveries refer to."""

from __future__ import annotations

import sqlite3

from watchman.journal import arguments
from watchman.journal.database import Database
from watchman.model import Route

KEPT = 10_000
"""Numbers kept in memory: each configuration that is read has routes of its own."""


class Routes:
    """Numbers for routes, and routes for numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._routes: dict[int, Route] = {}
        self._numbers: dict[int, tuple[Route, int]] = {}
        self.batched = False
        """Whether files of any route that was read are announced together."""
        database.on_rollback.append(self._numbers.clear)

    def number(self, connection: sqlite3.Connection, route: Route) -> int:
        """Return the route's number, made within a transaction where it has none yet."""
        cached = self._numbers.get(id(route))
        if cached is not None:
            return cached[1]
        key = (route.broker, route.task, arguments.encode(route))
        connection.execute(
            "INSERT OR IGNORE INTO routes (broker, task, arguments) VALUES (?,?,?)", key
        )
        (number,) = connection.execute(
            "SELECT id FROM routes WHERE broker = ? AND task = ? AND arguments = ?", key
        ).fetchone()
        if len(self._numbers) >= KEPT:
            self._numbers.clear()
        # The route is kept beside its number, so that no other object can get the same id().
        self._numbers[id(route)] = (route, number)
        return int(number)

    def get(self, number: int) -> Route:
        """Return the route with that number."""
        route = self._routes.get(number)
        if route is None:
            row = self._database.reader.execute(
                "SELECT broker, task, arguments FROM routes WHERE id = ?", (number,)
            ).fetchone()
            try:
                route = self._routes[number] = arguments.decode(*row)
                self.batched |= route.batch is not None
            except (ValueError, TypeError, KeyError) as error:
                strange = ValueError(f"route {number} in it cannot be understood: {error!r}")
                self._database.found_damage(strange)
        return route
