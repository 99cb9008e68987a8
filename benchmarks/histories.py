"""Journals with a long past, made in minutes through the product's own schema."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
from report import say

DAY_NS = 86_400 * 10**9
PART = 200_000
"""Rows of one transaction."""
ROOT = "/srv/ftp/uploads"
CUSTOMERS = 400
BROKER, AWAY = "b", "away"
_SENT, _READY, _FAILED = 3, 2, 4


class Past(NamedTuple):
    """What a journal remembers."""

    finished: int
    failed: int
    unsent: int
    """To a broker that is down."""
    known: int
    days: float
    """Over how many days, up to now, they have arrived."""


def path_of(number: int) -> str:
    """Return a path of about 60 characters."""
    return f"{ROOT}/customer-{number % CUSTOMERS:03d}/2026-11/camera-{number:012d}.csv"


def make(state_dir: Path, past: Past, waiting: Path) -> None:
    """Make a journal with that past in a directory that does not exist yet.

    ``waiting`` is a file; what waits to be sent has been there, so often.
    """
    from watchman.journal import Journal, schema, tallies

    state_dir.mkdir(parents=True)
    Journal(str(state_dir)).close()
    connection = schema.connect(str(state_dir / "journal.db"))
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO routes VALUES (?, ?, 'import_csv', '[[],{},{}]')", [(1, BROKER), (2, AWAY)]
        )
        for rows in _parts(_deliveries(past, waiting)):
            connection.executemany(
                "INSERT INTO deliveries (seq, task_id, source, device, inode, size, mtime_ns, "
                "arrived_ns, broker, route, kind, state, noted_ns, reason, changed_ns) "
                "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                rows,
            )
            connection.execute("COMMIT")
            _archive(connection, state_dir)
            connection.execute("BEGIN")
        for rows in _parts(_known(past)):
            connection.executemany("INSERT INTO known VALUES (?,?,1,?,100,?,1,?)", rows)
        connection.executemany(
            "INSERT INTO directories VALUES (?, ?)",
            [(n + 1, path_of(n).rpartition("/")[0].encode()) for n in range(CUSTOMERS)],
        )
        connection.execute(tallies.RECOUNT)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _archive(connection: sqlite3.Connection, state_dir: Path) -> None:
    """Archive what a daemon would have archived by now; it takes its time, as it is in no hurry."""
    from watchman.journal import archive, archiving, sealing

    while True:
        before = set(archive.files(str(state_dir)))
        seen = sealing.mark(before)
        said = sealing.seal(str(state_dir), seen, archiving.KEEP, sealing.ROWS)
        word, more = sealing.outcome(said.encode())
        if word == sealing.FEW:
            return
        if word != sealing.SEALED:
            raise harness.BenchmarkError(f"cannot be archived: {word} {more}")
        for new in set(archive.files(str(state_dir))) - before:
            connection.execute(
                "DELETE FROM deliveries WHERE seq BETWEEN ? AND ? AND state = ?",
                (new.first, new.last, _SENT),
            )


def _parts(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while part := list(itertools.islice(rows, PART)):
        yield part


def _deliveries(past: Past, waiting: Path) -> Iterator[tuple[Any, ...]]:
    """Yield finished ones, evenly over the days, then what failed and what waits."""
    there = waiting.stat()
    version = there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns
    total = past.finished + past.failed + past.unsent
    begin = time.time_ns() - int(past.days * DAY_NS)
    step = int(past.days * DAY_NS) // max(total, 1)
    for number in range(total):
        digits = hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()
        task_id = f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
        broker, route, state, reason = BROKER, 1, _SENT, None
        if number >= past.finished + past.failed:
            broker, route, state = AWAY, 2, _READY
        elif number >= past.finished:
            state, reason = _FAILED, "refused: 404 NOT_FOUND"
        arrived = begin + number * step
        source, numbers, changed = path_of(number), (1, number + 1, 100, arrived), arrived
        if state == _READY:
            source, numbers, changed = str(waiting), version, there.st_ctime_ns
        yield (
            number + 1, task_id, source.encode(), *numbers, arrived, broker, route, "files",
            state, arrived + 10**6, reason, changed,
        )  # fmt: skip


def _known(past: Past) -> Iterator[tuple[Any, ...]]:
    """Yield what is known, directory by directory, as the table is sorted."""
    for customer in range(CUSTOMERS):
        for number in range(customer, past.known, CUSTOMERS):
            name = path_of(number).rpartition("/")[2].encode()
            yield customer + 1, name, number + 1, number, number


def settle(state_dir: Path, root: Path, url: str, dead_url: str, directory: Path) -> None:
    """Let the daemon put into order what it keeps in another form, until it has nothing to do."""
    config = harness.daemon_config(
        directory, root, url, STATE_DIR=str(state_dir), BROKERS={BROKER: url, AWAY: dead_url}
    )
    with harness.daemon(config, 600) as process:
        quiet = 0
        while quiet < 3:
            before = sizes(state_dir), process.cpu_seconds()
            harness.pause(5)
            busy = process.cpu_seconds() - before[1] > 0.01
            quiet = 0 if busy or sizes(state_dir) != before[0] else quiet + 1
    say(f"settled: {sum(sizes(state_dir).values()) / harness.MEGABYTE:,.0f} MB")


def sizes(state_dir: Path) -> dict[str, int]:
    """Return the size of each of the journal's files, in bytes."""
    return {
        str(path): path.stat().st_size
        for path in sorted(state_dir.rglob("*.db*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def check(state_dir: Path, past: Past) -> None:
    """Fail unless the journal says that it has that past."""
    from watchman.journal.journal_reader import open_reader
    from watchman.model import State

    with open_reader(str(state_dir)) as journal:
        counts = journal.counts()
    found = (
        counts.get((BROKER, State.SENT), (0, 0))[0],
        counts.get((BROKER, State.FAILED), (0, 0))[0],
        counts.get((AWAY, State.READY), (0, 0))[0],
    )
    if found != past[:3]:
        raise harness.BenchmarkError(f"the journal has {found} deliveries, not {past[:3]}")


def size_of_finished(state_dir: Path, past: Past, without: Path) -> float:
    """Return bytes a finished delivery, beside a journal of the same past without any."""
    return (used(state_dir) - used(without)) / max(past.finished, 1)


def used(state_dir: Path) -> int:
    """Return the size of the journal's files, without the pages that SQLite will use again."""
    path = state_dir / "journal.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    finally:
        connection.close()
    return sum(sizes(state_dir).values()) - int(free) * int(page)
