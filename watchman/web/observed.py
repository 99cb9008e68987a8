"""What is read for the pages, and how often: nobody who asks costs the daemon anything."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from watchman import metrics, timelimit
from watchman.commands.narrowing import task_id_of
from watchman.commands.status_screen import of_now
from watchman.errors import JournalError
from watchman.journal import acts
from watchman.journal.activity import Minute
from watchman.journal.acts import Act
from watchman.journal.answers import Matches, ask
from watchman.journal.bundles import Membership
from watchman.journal.failed_deliveries import failed
from watchman.journal.held import HoldCounts
from watchman.journal.journal_reader import JournalReader, open_reader
from watchman.journal.partial import PartialFile
from watchman.journal.question import Question
from watchman.journal.record import Record
from watchman.journal.tallies import Summary
from watchman.journal.time_limit import TimeLimit
from watchman.model import MOST_BATCHED, Config, Hold, Noted, Upload
from watchman.status.overview import Status
from watchman.text import normal_path
from watchman.web.queries import WebQuery

T = TypeVar("T")

SECONDS = 5.0
"""How long the journal is read for one question."""
FRESH = 3.0
"""Seconds for which what was read is shown to others as well."""
PAGE = 50
"""Files on a page."""
SHOWN_FAILED = 5
_LOOKED_AT = 50
"""Deliveries read at once, among which the next upload at a path is looked for."""
_WORK, _LOOK = 0.2, 1.0
"""Seconds of work, and by the clock, for that: later ones may be many, and any of them tells."""
_AT_ONCE = 2
"""Questions to the history that are answered at a time."""
_PATIENCE = 3.0
"""Seconds that a question waits for its turn."""
_NOTHING = Summary({}, {}, (0, 0))


class Busy(Exception):  # noqa: N818 — a state, not a mistake
    """So many ask at once that this one has to ask again."""


class Overview(NamedTuple):
    """All that the first page shows."""

    now_ns: int
    status: Status
    minutes: Sequence[Minute]
    latest: Sequence[Record]
    failed: Sequence[Record]
    """The first few."""
    journal_trouble: str
    """Why the journal cannot be read; empty where it can."""


class FoundDeliveries(NamedTuple):
    """A page of what was found, the newest first."""

    records: Sequence[Record]
    more: bool
    by_part: bool
    """Whether nothing has the name, and these have it as a part of their path."""
    noted: Noted | None
    """Why what is known at that path has no delivery, where that is so."""
    partial: Sequence[PartialFile]
    """Files of that name that are not whole yet, where there is no delivery of any."""
    unreadable: Sequence[str]
    """A line for each part of the history that cannot be read."""


class Told(NamedTuple):
    """A delivery, and what else is known of it."""

    record: Record
    acts: Sequence[Act]
    """What operators did to it, or by what they made it."""
    later: Record | None
    """The next upload at its path."""
    upload: Upload | None
    """What a transfer log tells of it."""
    incomplete: str
    """Why its file was not whole in time; empty where it was."""
    together: Membership | None
    """With which others it is announced."""
    holds: tuple[Hold, ...]
    """What operators have ordered to wait."""


class Observer:
    """Reads for all who ask. Used from any thread."""

    def __init__(self, config: Config, max_age: float = metrics.MAX_AGE) -> None:
        """``max_age``: seconds after which what waits is no longer healthy."""
        self._config = config
        self._overview = _Shared(self._look)
        self._health = _Shared(lambda: metrics.health(config, max_age=max_age))
        self._exposition = _Shared(lambda: metrics.exposition(config))
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def overview(self) -> Overview:
        """Return how it stands, at most some seconds ago. Raises WatchmanError."""
        return self._overview.get()

    def _look(self) -> Overview:
        summary, held, trouble = _NOTHING, list[HoldCounts](), ""
        minutes: Sequence[Minute] = ()
        latest: Sequence[Record] = ()
        failures: Sequence[Record] = ()
        try:
            # Before the snapshot: that must not tell of a copy which is over by the journal's word.
            with self._journal() as journal:
                summary, held = journal.summary(), journal.holds()
                minutes = journal.activity(time.time_ns())
                failures = list(itertools.islice(failed(journal), SHOWN_FAILED))
                latest = ask(journal, Question(), PAGE).records
        except JournalError as error:
            trouble = str(error)
        found, now_ns = of_now(self._config, summary, held)
        found = replace(found, counted=not trouble)
        return Overview(now_ns, found, minutes, latest, failures, trouble)

    def health(self) -> metrics.Health:
        """Return the judgement of some seconds ago at most."""
        return self._health.get()

    def exposition(self) -> bytes:
        """Return the metrics of some seconds ago at most. Raises WatchmanError."""
        return self._exposition.get()

    def find(self, asked: WebQuery) -> FoundDeliveries:
        """Return a page of what is asked for. Raises BadQuestion, Busy, JournalError."""
        question = asked.question()
        ways = asked.ways()
        with self._turn(), self._journal() as journal:
            named = _by_number_or_id(journal, asked, question)
            way, matches = 0, Matches([], [])
            for way, paths in enumerate(ways):  # noqa: B007 — the last one is meant
                matches = ask(journal, replace(question, paths=paths), PAGE + 1)
                if matches.records:
                    break
            noted, partial = None, list[PartialFile]()
            if not matches.records and asked.q.startswith("/"):
                noted = journal.noted(ways[0][0])
            if not matches.records and noted is None:
                partial = _partial(journal, asked.q)
        records = named if named and not asked.before else []
        records += [one for one in matches.records[:PAGE] if one not in named]
        more = len(matches.records) > PAGE
        by_part = way > 0 and bool(records) and not named
        return FoundDeliveries(records, more, by_part, noted, partial, matches.unreadable)

    def one(self, seq: int) -> Told | None:
        """Return the delivery with a number; None if there is none. Raises Busy, JournalError."""
        with self._turn(), self._journal() as journal:
            for record in _numbered(journal, seq):
                return Told(
                    record,
                    acts.about(journal.connection, [seq]),
                    _later(journal, record),
                    journal.uploads([seq]).get(seq),
                    journal.incomplete([seq]).get(seq, ""),
                    journal.memberships([seq]).get(seq),
                    tuple(one.hold for one in journal.holds()),
                )
        return None

    def _journal(self) -> contextlib.AbstractContextManager[JournalReader]:
        return open_reader(self._config.state_dir, TimeLimit(SECONDS))

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=_PATIENCE):
            raise Busy
        try:
            yield
        finally:
            self._turns.release()


def _later(journal: JournalReader, record: Record) -> Record | None:
    """Return the upload at a delivery's path that came after it; None if none did."""
    effort, later = timelimit.Effort(_WORK, _LOOK), list[Record]()
    page = ask(journal, Question((record.source,)), _LOOKED_AT).records
    while True:
        later += [one for one in page if one.source == record.source and one.seq > record.seq]
        if len(page) < _LOOKED_AT or page[-1].seq <= record.seq or effort.spent:
            break
        question = Question((record.source,), up_to=page[-1].seq - 1)
        page = ask(journal, question, _LOOKED_AT).records
    again = {act.other for act in acts.about(journal.connection, [one.seq for one in later])}
    return min((one for one in later if one.seq not in again), default=None)


def _by_number_or_id(journal: JournalReader, asked: WebQuery, question: Question) -> list[Record]:
    """Return the delivery with the number that is asked for, or what a task will announce.

    Until it does, each file of it has another id than the task.
    """
    task_id = task_id_of(asked.q)
    seqs = [] if asked.number is None else [asked.number]
    seqs += journal.under_way_as(task_id, MOST_BATCHED) if task_id else []
    meant = replace(question, task_id=None, seqs=frozenset(seqs))
    return ask(journal, meant, MOST_BATCHED).records if seqs else []


def _partial(journal: JournalReader, name: str) -> list[PartialFile]:
    """Return the files of a name, or at a path, that are not whole yet."""
    if not name.startswith("/"):
        return journal.partial_with_name(name, PAGE) if name else []
    found = journal.partial(normal_path(name))
    return [] if found is None else [found]


def _numbered(journal: JournalReader, seq: int) -> list[Record]:
    return ask(journal, Question(seqs=frozenset({seq})), 1).records


class _Shared(Generic[T]):
    """What one has read, others are given for a while; meanwhile nobody else reads it."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self) -> T:
        last = self._last
        if last is not None and time.monotonic() < last[0] + FRESH:
            return last[1]
        # While another one reads, what there was is shown, unless it is much too old.
        if not self._lock.acquire(blocking=last is None or time.monotonic() > last[0] + 4 * FRESH):
            assert last is not None
            return last[1]
        try:
            if self._last is None or self._last is last:
                self._last = (time.monotonic(), self._read())
            return self._last[1]
        finally:
            self._lock.release()
