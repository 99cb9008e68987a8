"""Dropping what is finished for longer than HISTORY_DAYS, a little at a time."""

from __future__ import annotations

import sqlite3
import time
from typing import NamedTuple

from watchman.journal import tallies
from watchman.journal.database import Database
from watchman.model import State

ROWS = 250
"""Deliveries looked at, and dropped at the most, in one step: 1 ms of the writer's lock."""
_AGAIN = 3600.0
"""Seconds after which all is gone through from the beginning, in such steps: what was under way,
or had failed, when it was passed may be finished by now."""
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_FINISHED = frozenset(map(int, (State.SENT, State.VANISHED, State.MOVED)))
QUERY = f"""SELECT seq, coalesce(broker, ''), state, {tallies.IS_DISCARDED}, arrived_ns, noted_ns
    FROM deliveries WHERE seq > ? ORDER BY seq LIMIT {ROWS}"""  # noqa: S608 — our own words and numbers

ACTS = f"SELECT id, at_ns FROM acts WHERE id > ? ORDER BY id LIMIT {ROWS}"  # noqa: S608 — a number
UPLOADS = f"SELECT seq, noted_ns FROM uploads WHERE seq > ? ORDER BY seq LIMIT {ROWS}"  # noqa: S608 — a number


class Pruned(NamedTuple):
    """What one step did."""

    dropped: int
    more: bool
    """Whether the next step would go on where this one ended."""


class _Page(NamedTuple):
    """What is told of some deliveries, a step further."""

    old: list[tuple[int]]
    after: int
    more: bool


class Pruner:
    """Goes through the deliveries in the order of their arrival, and what is told of them.

    What came after a delivery that arrived within the time that is kept need not be looked at: a
    step goes on where the last one ended, and reads ROWS deliveries however long the history is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after_act = self._after_upload = 0
        self._after = 0
        """The seq up to which all has been looked at."""
        self._begun = time.monotonic()

    def step(self, before_ns: int, last_seq: int) -> Pruned:
        """Drop finished deliveries noted before a time, but not the one with ``last_seq``.

        That one tells which seqs have been given out.
        """
        before_ns = min(max(before_ns, _LEAST), _MOST)
        now, now_ns = time.monotonic(), time.time_ns()
        if now - self._begun > _AGAIN:
            self._after = self._after_act = self._after_upload = 0
            self._begun = now
        rows = self._database.reader.execute(QUERY, (self._after,))
        after = self._after
        dropped: list[tallies.Dropped] = []
        if any(type(time_ns) is not int for row in rows for time_ns in row[4:]):
            self._database.found_damage(ValueError("a delivery in it has no time"))
        for seq, broker, state, discarded, arrived_ns, noted_ns in rows:
            # One from the future, by a clock that was wrong, says nothing of those behind it.
            if before_ns <= arrived_ns <= now_ns or seq >= last_seq:
                break
            if state in _FINISHED and noted_ns < before_ns:
                key = tallies.TallyKey(broker, state, bool(discarded))
                dropped.append(tallies.Dropped(seq, key, arrived_ns))
            after = seq
        more = len(rows) == ROWS and after == rows[-1][0]
        acts = self._page(ACTS, self._after_act, before_ns, now_ns)
        uploads = self._page(UPLOADS, self._after_upload, before_ns, now_ns)
        if dropped or acts.old or uploads.old:
            # A finished delivery never changes again: what was read is still so.
            def work(connection: sqlite3.Connection) -> None:
                tallies.drop(connection, dropped)
                connection.executemany("DELETE FROM acts WHERE id = ?", acts.old)
                connection.executemany("DELETE FROM uploads WHERE seq = ?", uploads.old)

            self._database.write(work)
        self._after, self._after_act, self._after_upload = after, acts.after, uploads.after
        return Pruned(len(dropped), more or acts.more or uploads.more)

    def _page(self, query: str, after: int, before_ns: int, now_ns: int) -> _Page:
        rows = self._database.reader.execute(query, (after,))
        old = []
        for number, time_ns in rows:
            if before_ns <= time_ns <= now_ns:
                break
            if time_ns < before_ns:
                old.append((number,))
            after = number
        return _Page(old, after, more=len(rows) == ROWS and after == rows[-1][0])
