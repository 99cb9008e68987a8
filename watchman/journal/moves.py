"""The table ``moves``: each MOVES entry once, by a number that deliveries refer to."""

from __future__ import annotations

import os
import sqlite3

from watchman.journal.database import Database
from watchman.model import Move


class Moves:
    """Numbers for MOVES entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[Move, int] = {}
        database.on_rollback.append(self._numbers.clear)

    def number(self, connection: sqlite3.Connection, move: Move) -> int:
        """Return the entry's number, made within a transaction where it has none yet."""
        number = self._numbers.get(move)
        if number is None:
            key = tuple(map(os.fsencode, move))
            connection.execute("INSERT OR IGNORE INTO moves (source, root) VALUES (?,?)", key)
            number = self._numbers[move] = self._find(connection.execute(_NUMBER, key).fetchone())
        return number

    def known(self, move: Move) -> int:
        """Return the entry's number; 0 where nothing was ever recorded for it."""
        number = self._numbers.get(move)
        if number is None:
            key = tuple(map(os.fsencode, move))
            number = self._find(self._database.reader.execute(_NUMBER, key).fetchone())
            if number:
                self._numbers[move] = number
        return number

    @staticmethod
    def _find(row: tuple[int] | None) -> int:
        return 0 if row is None else int(row[0])


_NUMBER = "SELECT id FROM moves WHERE source = ? AND root = ?"
