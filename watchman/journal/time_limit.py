"""For how long the journal and its archive may be read for one question."""

from __future__ import annotations

import math
import sqlite3
import time

_STEPS = 20_000
"""Instructions of SQLite's machine between two looks at the clock: a few ms."""


class TimeLimit:
    """What is read for a question ends with an error of SQLite's when its time is over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def check(self) -> None:
        """Raise sqlite3.OperationalError if the time is over: between statements that are short."""
        if self.is_over:
            raise sqlite3.OperationalError("interrupted")

    def hold(self, connection: sqlite3.Connection) -> None:
        """Have a connection's statements end when the time is over: sqlite3.OperationalError."""
        if self.seconds < math.inf:
            connection.set_progress_handler(lambda: self.is_over, _STEPS)


FOREVER = TimeLimit(math.inf)
