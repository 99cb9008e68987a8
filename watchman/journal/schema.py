"""The journal's tables, and how a connection to them is opened."""

from __future__ import annotations

import sqlite3

from watchman.journal import activity, acts, bundles, counters, digests, tallies

SCHEMA_VERSION = 5

PARTIAL = """
CREATE TABLE partial (
    path BLOB PRIMARY KEY,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    since_ns INTEGER NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;
"""
_UPLOADS = """
CREATE TABLE uploads (
    seq INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    host TEXT NOT NULL,
    protocol TEXT NOT NULL,
    size INTEGER NOT NULL,
    seconds REAL,
    ended_ns INTEGER NOT NULL,
    noted_ns INTEGER NOT NULL
);
CREATE TABLE transfer_logs (
    path BLOB PRIMARY KEY,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    head BLOB NOT NULL
) WITHOUT ROWID;
"""
# What a hold keeps leaves the one index for the other, so that no sender reads it again. A number
# of AUTOINCREMENT is never given twice: what a hold that was released has kept bears it still.
_READY_AND_HELD = """
CREATE INDEX deliveries_ready ON deliveries (broker, seq) WHERE state = 2 AND held = 0;
CREATE INDEX deliveries_held ON deliveries (held, broker, seq) WHERE state = 2 AND held > 0;
CREATE TABLE holds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    name BLOB NOT NULL,
    since_ns INTEGER NOT NULL,
    by TEXT NOT NULL,
    UNIQUE (kind, name)
);
CREATE TABLE held (
    hold INTEGER NOT NULL,
    broker TEXT NOT NULL,
    count INTEGER NOT NULL,
    oldest_ns INTEGER NOT NULL,
    PRIMARY KEY (hold, broker)
) WITHOUT ROWID;
"""

# What was sent, waits or was moved has no reason, nearly always. Whoever looks for one, or for what
# vanished, need not go through all that.
_WITH_REASON = """
CREATE INDEX deliveries_reason ON deliveries (seq) WHERE state = 5 OR reason IS NOT NULL;
"""

MIGRATIONS: dict[int, str] = {
    # One row of a task id under way: of several that version 1 allowed, the first goes on.
    1: f"""
ALTER TABLE deliveries ADD COLUMN changed_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE known ADD COLUMN changed_ns INTEGER NOT NULL DEFAULT 0;
CREATE TEMP TABLE doubled AS
    SELECT seq, first FROM deliveries JOIN (
        SELECT source AS path, task_id AS id, min(seq) AS first FROM deliveries
        WHERE state IN (1, 2) GROUP BY source, task_id HAVING count(*) > 1
    ) ON source = path AND task_id = id WHERE state IN (1, 2) AND seq > first;
UPDATE known SET seq = (SELECT first FROM doubled WHERE doubled.seq = known.seq)
    WHERE seq IN (SELECT seq FROM doubled);
UPDATE deliveries SET state = 5, reason = 'it was on its way already'
    WHERE seq IN (SELECT seq FROM doubled);
DROP TABLE doubled;
CREATE UNIQUE INDEX deliveries_under_way ON deliveries (inode, task_id) WHERE state IN (1, 2);
{tallies.TABLE} {tallies.RECOUNT}""",  # noqa: S608 — our own statements
    # What is under way is of no MOVES entry: the mover finds out which leads there.
    2: """
CREATE TABLE moves (
    id INTEGER PRIMARY KEY, source BLOB NOT NULL, root BLOB NOT NULL, UNIQUE (source, root)
);
ALTER TABLE deliveries ADD COLUMN move INTEGER REFERENCES moves (id);
DROP INDEX deliveries_moving;
CREATE INDEX deliveries_moving ON deliveries (move, seq) WHERE state = 1;
""",
    3: f"""
{counters.TABLE} {acts.TABLE} {activity.TABLE} {digests.TABLE} {_UPLOADS}
{PARTIAL}
ALTER TABLE deliveries ADD COLUMN told TEXT;
ALTER TABLE deliveries ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN bundle INTEGER NOT NULL DEFAULT 0;
DROP INDEX deliveries_ready;
{_READY_AND_HELD} {bundles.TABLES} {bundles.INDEX}
""",
    # Digests are made anew, a block at a time.
    4: f"DROP TABLE digests; {digests.TABLE} {_WITH_REASON}",
}
"""The statements that lead from one schema to the next, by the version that they start from. What
is listed here is never changed: journals of every version out there come this way."""

# Paths are blobs of the file system's own bytes, so that any name can be stored and compared.
# ``final`` is null where the file stays at its source. ``known`` has no rowid: its primary key
# is the table, so that the names of one directory lie side by side and a scan reads them in one go.
# At most one row of a task id is MOVING or READY: two would write and remove one another's files.
# A task id is made of the inode number too; with that before it the index is written where it
# grows, at a third of the price.
# ``deliveries.held`` is the hold that keeps a READY one, 0 for none, less than 0 where it goes with
# the leader of its bundle (bundles.py); the table ``held`` counts what each hold keeps.
# ``watches.path`` is the name of a run (runs.py); once it was the path of its watch.
# ``watches.first_run_ns`` is when the first run's scan was over; negative, while it is not: when it
# began.
SCHEMA = f"""{tallies.TABLE} {counters.TABLE} {acts.TABLE} {activity.TABLE} {digests.TABLE}
{_UPLOADS} {PARTIAL}
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    source BLOB NOT NULL,
    final BLOB,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    arrived_ns INTEGER NOT NULL,
    broker TEXT,
    route INTEGER REFERENCES routes (id),
    kind TEXT NOT NULL,
    state INTEGER NOT NULL,
    noted_ns INTEGER NOT NULL,
    reason TEXT,
    changed_ns INTEGER NOT NULL DEFAULT 0,
    move INTEGER REFERENCES moves (id),
    told TEXT,
    held INTEGER NOT NULL DEFAULT 0,
    bundle INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX deliveries_under_way ON deliveries (inode, task_id) WHERE state IN (1, 2);
CREATE INDEX deliveries_moving ON deliveries (move, seq) WHERE state = 1;
{_READY_AND_HELD} {bundles.TABLES} {bundles.INDEX}
CREATE INDEX deliveries_failed ON deliveries (seq) WHERE state = 4;
{_WITH_REASON}
CREATE TABLE routes (
    id INTEGER PRIMARY KEY,
    broker TEXT NOT NULL,
    task TEXT NOT NULL,
    arguments TEXT NOT NULL,
    UNIQUE (broker, task, arguments)
);
CREATE TABLE moves (
    id INTEGER PRIMARY KEY,
    source BLOB NOT NULL,
    root BLOB NOT NULL,
    UNIQUE (source, root)
);
CREATE TABLE directories (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE
);
CREATE TABLE known (
    directory INTEGER NOT NULL,
    name BLOB NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
CREATE TABLE watches (
    path BLOB PRIMARY KEY,
    first_run_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the journal's database; statements commit by themselves unless inside BEGIN.

    WAL with synchronous=FULL: a commit that has returned survives a power loss, and readers
    are not held up by the writer (https://www.sqlite.org/wal.html).
    """
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=60.0, cached_statements=256
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = FILE")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, in one transaction."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )
