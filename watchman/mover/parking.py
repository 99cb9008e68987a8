"""The rows that cannot be moved right now: when to look at each again. In memory, bounded."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Set

from watchman.filesystem import Look, Seen
from watchman.model import Delivery, Version

MOST = 10_000
"""Rows that may be parked; those beyond it stay in the journal, and are read again later."""
AT_ONCE = 1000
"""Rows that come back at a time: new ones have their turn in between."""
FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
FIRST_REREAD = 30.0
LONGEST_REREAD = 600.0
MOST_NUDGED = 100
"""Rows that a nudge brings forward: more would make each new upload costly."""

NEVER = float("inf")
CHANGED = "\0"
"""The key of rows whose source was being written or had changed."""


class _Parked:
    __slots__ = ("delay", "due", "key", "reported", "seen_at", "source")

    def __init__(self, source: str, key: str, due: float) -> None:
        self.source = source
        self.key = key
        self.due = due
        self.delay = 0.0
        self.seen_at = 0.0
        self.reported: tuple[Seen, Version | None] | None = None


class SetAside:
    """The rows that found no place in the parking: they stay in the journal until they are due.

    Eight bytes are kept of each: the journal is read often, and what is in it is not tried again
    each time. Seconds are monotonic. Used under the lane's lock.
    """

    def __init__(self) -> None:
        self._seqs = array("q")  # in order
        self._delay = FIRST_REREAD
        self.due = NEVER

    def __len__(self) -> int:
        return len(self._seqs)

    def __contains__(self, seq: int) -> bool:
        place = bisect.bisect_left(self._seqs, seq)
        return place < len(self._seqs) and self._seqs[place] == seq

    def add(self, seq: int, now: float) -> None:
        """Leave a row to a later reading."""
        bisect.insort(self._seqs, seq)
        self.due = min(self.due, now + self._delay)

    def take(self, now: float) -> int | None:
        """Return the first seq to read again; None while it is not time."""
        if not self._seqs or now < self.due:
            return None
        first = self._seqs[0]
        # Each reading costs an attempt at every row: ever less often, while it is no use.
        self._delay = min(LONGEST_REREAD, self._delay * 2)
        self._seqs, self.due = array("q"), NEVER
        return first

    def over(self, now: float) -> None:
        """Take note that rows which were waiting could be moved: the others perhaps as well."""
        self._delay = FIRST_REREAD
        if self._seqs:
            self.due = min(self.due, now + self._delay)


class Parking:
    """Times are monotonic seconds. Changed by the lane's thread only."""

    def __init__(self) -> None:
        self._rows: dict[int, _Parked] = {}
        self._taken: dict[int, _Parked] = {}
        self._by_source: dict[str, int] = {}
        self._superseded: set[int] = set()
        self.next_due = NEVER

    def __len__(self) -> int:
        return len(self._rows)

    def room(self) -> int:
        """Return how many more rows may be parked."""
        return MOST - len(self._rows)

    def add(self, row: Delivery, key: str, due: float) -> None:
        """Park a row until ``due`` because of the trouble ``key``."""
        self._put(row.seq, _Parked(row.source, key, due))

    def add_changed(self, row: Delivery, look: Look, now: float) -> bool:
        """Park a row whose source is in use or changed; say whether this should be reported.

        It is, when what was seen is new, and again each time the growing delay has passed.
        """
        parked = self._taken.get(row.seq)
        if parked is None or parked.key != CHANGED:
            parked = _Parked(row.source, CHANGED, 0.0)
        seen = (look.seen, look.version)
        # A file that is being written changes at each look: only its state is news.
        news = seen != parked.reported and not (
            look.seen is Seen.BUSY and parked.reported and parked.reported[0] is Seen.BUSY
        )
        report = news or now >= parked.seen_at + parked.delay
        if report:
            parked.delay = min(LONGEST_DELAY, parked.delay * 2 or FIRST_DELAY)
            parked.seen_at = now
        parked.reported = seen
        parked.due = max(now + FIRST_DELAY, parked.seen_at + parked.delay)
        self._put(row.seq, parked)
        return report

    def _put(self, seq: int, parked: _Parked) -> None:
        self._taken.pop(seq, None)
        self._rows[seq] = parked
        self._by_source[parked.source] = seq
        self.next_due = min(self.next_due, parked.due)

    def nudge(self, now: float) -> None:
        """Bring changed rows forward; not those that were looked at a moment ago."""
        for count, parked in enumerate(self._rows.values()):
            if count >= MOST_NUDGED:
                break
            if parked.key == CHANGED:
                parked.due = min(parked.due, now + FIRST_DELAY)
                self.next_due = min(self.next_due, parked.due)

    def release(self, keys: Set[str]) -> None:
        """Bring forward the rows that waited for the end of one of these troubles."""
        for parked in self._rows.values():
            if parked.key in keys:
                parked.due = self.next_due = 0.0

    def keys(self) -> set[str]:
        """Return the troubles that rows wait for, those being tried again included."""
        return {parked.key for rows in (self._rows, self._taken) for parked in rows.values()}

    def take_due(self, now: float) -> list[int]:
        """Return the seqs whose time has come, in order; they are no longer parked."""
        if now < self.next_due:
            return []
        due = sorted(seq for seq, parked in self._rows.items() if parked.due <= now)[:AT_ONCE]
        for seq in due:
            self._taken[seq] = self._rows.pop(seq)
        self.next_due = min((parked.due for parked in self._rows.values()), default=NEVER)
        return due

    def supersede(self, rows: Iterable[Delivery]) -> None:
        """Bring forward the rows that have a newer delivery of their source among ``rows``."""
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
            parked = self._rows.pop(seq, None) or self._taken.pop(seq, None)
            self._superseded.discard(seq)
            if parked is not None and self._by_source.get(parked.source) == seq:
                del self._by_source[parked.source]
