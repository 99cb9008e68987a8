"""Tasks of a worker for what watchman sends: a pattern to start from.

::

    BROKER_URL=redis://localhost:6379/0 DATABASE=imports.db celery -A tasks worker

What a task does, and that it has done it, are one transaction: a message that comes twice (its
worker was killed before it had acknowledged, or watchman was before it had noted the broker's
answer) has the same id, and finds it there. SQLite stands for the database of your choice here.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from contextlib import closing
from typing import Any, NamedTuple, TextIO

from celery import Celery
from celery.utils.log import get_task_logger

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Acknowledged when it is done: a worker that is killed in between gets the message again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)
log = get_task_logger(__name__)

DATABASE = os.environ.get("DATABASE", "imports.db")
RETRY_SECONDS = float(os.environ.get("RETRY_SECONDS", "60"))
"""How long to wait for a file that is not there: its share may not be mounted on this host yet."""
TABLES = """
CREATE TABLE IF NOT EXISTS done (
    id TEXT PRIMARY KEY, path TEXT, source TEXT, host TEXT, arrived REAL, lines INTEGER
);
CREATE TABLE IF NOT EXISTS lines (id TEXT, number INTEGER, fields TEXT);
"""


class Upload(NamedTuple):
    """What the headers of a message tell of its file; None where somebody else has sent it."""

    source: str | None
    """Its path before the move."""
    size: int | None
    """Bytes."""
    arrived: float | None
    """Seconds since the epoch, as its mtime in `watchman_mtime`."""
    host: str | None
    """Where watchman runs."""

    @classmethod
    def of(cls, headers: dict[str, Any] | None) -> Upload:
        """Return what the headers of a request tell."""
        found = headers or {}
        return cls(*(found.get(f"watchman_{name}") for name in cls._fields))


@app.task(name="import_timeseries", bind=True, max_retries=10)
def import_timeseries(self: Any, path: str) -> str:
    """Import a CSV file; say what was done."""
    upload = Upload.of(self.request.headers)
    with closing(sqlite3.connect(DATABASE, timeout=60)) as database:
        database.executescript(TABLES)
        # Left by an exception, it takes back what was done; else all of it counts.
        with database:
            # First: one who does the same at this moment waits here, and finds it done.
            if not _begin(database, self.request.id, path, upload):
                log.info("%s was imported before", path)
                return "done before"
            try:
                with open(path, encoding="utf-8", newline="") as file:
                    size = os.fstat(file.fileno()).st_size
                    if upload.size not in (None, size):
                        # What has taken its place has a task of its own. Never so after a move.
                        log.warning("%s was replaced since: it has %d bytes", path, size)
                        return "replaced"
                    count = _load(database, self.request.id, file)
            except FileNotFoundError as error:
                raise self.retry(exc=error, countdown=RETRY_SECONDS) from error
    log.info("%s: %d lines imported", path, count)
    return f"{count} lines"


def _begin(database: sqlite3.Connection, task_id: str, path: str, upload: Upload) -> bool:
    """Take note of the task; False if that was done before."""
    values = (task_id, path, upload.source, upload.host, upload.arrived)
    changed = database.execute(
        "INSERT OR IGNORE INTO done (id, path, source, host, arrived) VALUES (?, ?, ?, ?, ?)",
        values,
    )
    return changed.rowcount == 1


def _load(database: sqlite3.Connection, task_id: str, file: TextIO) -> int:
    """Do the work; return how many lines it was. This is what is yours to write."""
    rows = [
        (task_id, number, json.dumps(fields)) for number, fields in enumerate(csv.reader(file), 1)
    ]
    database.executemany("INSERT INTO lines VALUES (?, ?, ?)", rows)
    database.execute("UPDATE done SET lines = ? WHERE id = ?", (len(rows), task_id))
    return len(rows)
