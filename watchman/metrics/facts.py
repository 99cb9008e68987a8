"""What is so at the moment: the daemon's own word, the journal's numbers, the machine's limits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from watchman import limits, record_locks, status
from watchman.errors import JournalError
from watchman.journal import measures
from watchman.journal.journal_reader import open_reader
from watchman.journal.measures import Measures
from watchman.model import Config
from watchman.status import Snapshot
from watchman.status.asking import StatusAnswer, ask
from watchman.status.overview import Now, compose

Process = tuple[int, int]
"""(process id, since when in ns) of the daemon."""


class Facts(NamedTuple):
    """One look at watchman."""

    now_ns: int
    state: str
    """As ``notify status`` has it: active, waiting, starting, hung, inactive."""
    since_ns: int | None
    """Since when the daemon runs; None where none does."""
    snapshot: Snapshot | None
    """The word of the daemon that runs; None where it has said nothing yet, or none runs."""
    silent_s: float
    """Seconds for which the daemon has not said that events come; 0 where it said so when asked."""
    measures: Measures
    journal_trouble: str
    """Why the journal cannot be read; empty where it can."""
    journal_bytes: int
    """The journal with its log."""
    free_bytes: int | None
    """Room for the daemon's user on the file system of STATE_DIR; None where it cannot be told."""
    watch_limit: int | None
    """How many directories one user may watch; None where the kernel does not tell."""

    def age(self, since_ns: int) -> float:
        """Return the seconds since a time; one from the future is of before the clock was set."""
        if since_ns > self.now_ns and self.snapshot is not None:
            since_ns += self.snapshot["clock_set_ns"]
        return max(0.0, (self.now_ns - since_ns) / 1e9)


def of_now(config: Config) -> Facts:
    """Ask the running daemon, for two seconds at most, and look at the journal.

    Only ``config.state_dir`` is needed. Raises WatchmanError where this user may not know.
    """

    def read_journal() -> Measures:
        with open_reader(config.state_dir) as journal:
            return journal.measures()

    process = record_locks.watchman_of(config.state_dir)
    return _facts(config, process, read_journal, lambda: ask(config))


def of_this_process(
    config: Config, process: Process, read_journal: Callable[[], Measures]
) -> Facts:
    """Look from within the daemon: nobody is asked, its lock and its journal's file are left alone.

    A process that closes any descriptor of a file that it has locked loses the locks, those that
    SQLite holds on the journal among them. ``read_journal()`` may raise JournalError.
    """

    def read_status() -> StatusAnswer:
        return StatusAnswer(status.read(config.state_dir), age_s=None, live=False)

    return _facts(config, process, read_journal, read_status)


def _facts(
    config: Config,
    process: Process | None,
    read_journal: Callable[[], Measures],
    read_status: Callable[[], StatusAnswer],
) -> Facts:
    found, trouble = measures.NONE, ""
    try:
        # Before the daemon is asked: its word is of a later moment then, never of an earlier.
        found = read_journal()
    except JournalError as error:
        trouble = str(error)
    answer = StatusAnswer(None, None, live=False) if process is None else read_status()
    now = Now(time.time_ns(), time.monotonic_ns(), status.run_of(config.state_dir), answer.live)
    composed = compose(process, answer.snapshot, {}, (0, 0), now)
    snapshot = composed.snapshot
    silent_ns = 0
    if snapshot is not None and not answer.live:
        silent_ns = max(0, now.monotonic_ns - snapshot["beat_monotonic_ns"])
    limit = limits.watch_limit()
    return Facts(
        now.ns,
        composed.state,
        composed.since_ns,
        snapshot,
        silent_ns / 1e9,
        found,
        trouble,
        _size(config.state_dir),
        _free(config.state_dir),
        None if limit is None else limit.number,
    )


def _size(state_dir: str) -> int:
    total = 0
    for name in ("journal.db", "journal.db-wal"):
        try:
            total += os.stat(os.path.join(state_dir, name)).st_size
        except OSError:
            continue
    return total


def _free(state_dir: str) -> int | None:
    try:
        found = os.statvfs(state_dir)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
