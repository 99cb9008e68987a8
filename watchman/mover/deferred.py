"""The rows that cannot be moved right now, and when each is to be tried again.

Up to ``MOST`` are kept in memory (:class:`DeferredRows`). Of those beyond it only the seqs are kept
(:class:`Backlog`): the rows are read again from the journal, ever less often. Times are monotonic
seconds, and passed in.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Set

from watchman.backoff import Backoff
from watchman.file_access import Look, Seen
from watchman.model import Delivery, Version

MOST = 10_000
"""Rows that may be deferred in memory."""
AT_ONCE = 1000
"""Rows that are tried again at a time: new ones have their turn in between."""
FIRST_DELAY = 0.2
"""Seconds until a changed row is looked at again at the soonest."""
LONGEST_DELAY = 30.0
"""Seconds between two reports of a row that stays changed, at the most."""
FIRST_REREAD = 30.0
LONGEST_REREAD = 600.0
"""Seconds until the backlog is read again."""
MOST_RETRIED_SOON = 100
"""Rows that a new upload brings forward: more would make each of them costly."""

NEVER = float("inf")
CHANGED = "\0"
"""The key of rows whose source was being written or had changed."""


class _DeferredRow:
    """A row, by what its next attempt needs. The delivery itself is read again then."""

    __slots__ = ("backoff", "due", "key", "report_at", "reported", "source")

    def __init__(self, source: str, key: str, due: float) -> None:
        self.source = source
        self.key = key
        """The obstacle that it waits for, or CHANGED."""
        self.due = due
        self.backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self.report_at = 0.0
        """When to report it again if it stays changed."""
        self.reported: tuple[Seen, Version | None] | None = None
        """What was at the source at the last look."""


class Backlog:
    """The rows for which there was no room in memory: they stay in the journal until they are due.

    Eight bytes are kept of each, so that a page that is read meanwhile leaves them out. Used under
    the destination's lock.
    """

    def __init__(self) -> None:
        self._seqs = array("q")
        """In ascending order."""
        self._backoff = Backoff(FIRST_REREAD, LONGEST_REREAD)
        self.due = NEVER

    def __len__(self) -> int:
        return len(self._seqs)

    def __contains__(self, seq: int) -> bool:
        index = bisect.bisect_left(self._seqs, seq)
        return index < len(self._seqs) and self._seqs[index] == seq

    def add(self, seq: int, now: float) -> None:
        """Leave a row in the journal until :attr:`due`."""
        if not self._seqs:
            # Each reading costs an attempt at every row: ever less often, while it is no use.
            self.due = now + self._backoff.next()
        bisect.insort(self._seqs, seq)

    def take(self, now: float) -> int | None:
        """Return the seq to read again from, and forget all; None while it is not time."""
        if not self._seqs or now < self.due:
            return None
        first = self._seqs[0]
        self._seqs, self.due = array("q"), NEVER
        return first

    def retry_soon(self, now: float) -> None:
        """Take note that an obstacle is gone: the rows can perhaps be moved."""
        self._backoff.reset()
        if self._seqs:
            self.due = min(self.due, now + self._backoff.next())


class DeferredRows:
    """The rows that are deferred in memory, by seq. Changed by the destination's thread only."""

    def __init__(self) -> None:
        self._rows: dict[int, _DeferredRow] = {}
        self._taken: dict[int, _DeferredRow] = {}
        """Those that are being tried again: what was reported of them is not forgotten."""
        self._by_source: dict[str, int] = {}
        """The seq of the last row that was deferred, by source."""
        self._superseded: set[int] = set()
        """Rows of which a newer delivery of the same source has been seen."""
        self.next_due = NEVER

    def __len__(self) -> int:
        return len(self._rows)

    def room(self) -> int:
        """Return how many more rows may be deferred; it may be less than none."""
        return MOST - len(self._rows)

    def add(self, row: Delivery, key: str, due: float) -> None:
        """Defer a row until ``due`` because of the obstacle ``key``."""
        self._put(row.seq, _DeferredRow(row.source, key, due))

    def add_changed(self, row: Delivery, look: Look, now: float) -> bool:
        """Defer a row whose source is in use or changed; say whether that is to be reported.

        It is when what was seen is news, and again each time a growing delay has passed.
        """
        deferred = self._taken.get(row.seq)
        if deferred is None or deferred.key != CHANGED:
            deferred = _DeferredRow(row.source, CHANGED, 0.0)
        seen = (look.seen, look.version)
        # A file that is being written changes at each look: only its state is news.
        news = seen != deferred.reported and not (
            look.seen is Seen.BUSY and deferred.reported and deferred.reported[0] is Seen.BUSY
        )
        report = news or now >= deferred.report_at
        if report:
            deferred.report_at = now + deferred.backoff.next()
        deferred.reported = seen
        deferred.due = max(now + FIRST_DELAY, deferred.report_at)
        self._put(row.seq, deferred)
        return report

    def _put(self, seq: int, deferred: _DeferredRow) -> None:
        self._taken.pop(seq, None)
        self._rows[seq] = deferred
        self._by_source[deferred.source] = seq
        self.next_due = min(self.next_due, deferred.due)

    def retry_soon(self, now: float) -> None:
        """Have changed rows looked at soon, after a new upload."""
        for count, deferred in enumerate(self._rows.values()):
            if count >= MOST_RETRIED_SOON:
                break
            if deferred.key == CHANGED:
                deferred.due = min(deferred.due, now + FIRST_DELAY)
                self.next_due = min(self.next_due, deferred.due)

    def release(self, keys: Set[str]) -> None:
        """Have the rows tried now that waited for the end of one of these obstacles."""
        for deferred in self._rows.values():
            if deferred.key in keys:
                deferred.due = self.next_due = 0.0

    def keys(self) -> set[str]:
        """Return the obstacles that rows wait for, those being tried again included."""
        return {deferred.key for rows in (self._rows, self._taken) for deferred in rows.values()}

    def take_due(self, now: float) -> list[int]:
        """Return the seqs whose time has come, in order; they are being tried from now on."""
        if now < self.next_due:
            return []
        due = sorted(seq for seq, deferred in self._rows.items() if deferred.due <= now)[:AT_ONCE]
        for seq in due:
            self._taken[seq] = self._rows.pop(seq)
        self.next_due = min((deferred.due for deferred in self._rows.values()), default=NEVER)
        return due

    def supersede(self, rows: Iterable[Delivery]) -> None:
        """Have the rows tried now that have a newer delivery of their source among ``rows``."""
        if not self._rows:
            return
        for row in rows:
            seq = self._by_source.get(row.source)
            if seq is not None and seq < row.seq and seq in self._rows:
                self._superseded.add(seq)
                self._rows[seq].due = self.next_due = 0.0

    def note_newest(self, row: Delivery, newest: int) -> None:
        """Remember that a row has a newer delivery of the same source."""
        if newest > row.seq:
            self._superseded.add(row.seq)

    def is_superseded(self, seq: int) -> bool:
        """Say whether a newer delivery of the same source has been seen."""
        return seq in self._superseded

    def forget(self, seqs: Iterable[int]) -> None:
        """Forget rows that are done with."""
        if not (self._rows or self._taken or self._superseded):
            return
        for seq in seqs:
            deferred = self._rows.pop(seq, None) or self._taken.pop(seq, None)
            self._superseded.discard(seq)
            if deferred is not None and self._by_source.get(deferred.source) == seq:
                del self._by_source[deferred.source]
