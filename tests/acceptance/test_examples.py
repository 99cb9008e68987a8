"""examples/tasks.py, run by a stock Celery worker as its first lines say."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.acceptance.started import Daemon
from tests.checkout import ROOT
from tests.servers import Process, tail
from tests.waiting import wait_until

TASK = "import_timeseries"
CONFIG = """
BROKERS = {{'redis': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [('{upload}/*.csv', {{'broker': 'redis', 'task': 'import_timeseries'}})]
MOVES = {{{upload!r}: {storage!r}}}
"""


class Worker:
    """A worker with the example's tasks, and the database that it writes."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.log = directory / "worker.log"
        self._database = directory / "imports.db"
        [command] = re.findall(r"\bcelery -A tasks worker\b", (EXAMPLES / "tasks.py").read_text())
        argv = [sys.executable, "-m", *command.split(), "--pool", "solo", "--loglevel", "INFO"]
        argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(EXAMPLES),
            "PYTHONDONTWRITEBYTECODE": "1",
            "C_FORCE_ROOT": "1",
            "LC_ALL": "C.UTF-8",
            "BROKER_URL": url,
            "DATABASE": str(self._database),
            "RETRY_SECONDS": "1",
        }
        self.process = Process(argv, self.log, environment)

    def send(self, path: Path, task_id: str = "", **headers: Any) -> str:
        """Send a task as watchman would, with these headers; return its id."""
        task_id = task_id or str(uuid.uuid4())
        app = Celery("test", broker=self.url, set_as_current=False)
        with app.connection_for_write() as connection:
            app.send_task(
                TASK,
                (str(path),),
                task_id=task_id,
                headers={f"watchman_{name}": value for name, value in headers.items()},
                connection=connection,
                ignore_result=True,
            )
        return task_id

    def says(self, words: str) -> None:
        wait_until(lambda: words in self.log.read_text(), 60.0, f"{words}; {tail(self.log)}")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._database)) as database:
            return database.execute(query).fetchall()


EXAMPLES = ROOT / "examples"


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[Worker]:
    found = Worker(redis_url, tmp_path)
    try:
        yield found
    finally:
        found.process.stop(signal.SIGTERM, seconds=1.0)


def test_an_upload_is_imported_once(
    worker: Worker, upload: Path, storage: Path, daemon: Callable[..., Daemon]
) -> None:
    config = CONFIG.format(url=worker.url, upload=str(upload), storage=str(storage))
    with daemon(config) as notify:
        (upload / "a.csv").write_text("t,v\n1,2\n")
        worker.says("2 lines imported")
        notify.stop()
    [(task_id, *told, arrived, lines)] = worker.rows("SELECT * FROM done")
    final = storage / "a.csv"
    assert told == [str(final), str(upload / "a.csv"), os.uname().nodename]
    assert lines == 2
    assert abs(arrived - final.stat().st_mtime) < 60
    imported = worker.rows("SELECT id, number, fields FROM lines ORDER BY number")
    assert imported == [(task_id, 1, '["t", "v"]'), (task_id, 2, '["1", "2"]')]

    # The same message once more, and by then the first one has taken the file away.
    final.unlink()
    assert worker.send(final, task_id, size=8) == task_id
    worker.says(f"{final} was imported before")
    assert worker.rows("SELECT count(*) FROM lines") == [(2,)]


def test_a_file_that_is_not_there_is_waited_for(worker: Worker, storage: Path) -> None:
    late = storage / "late.csv"
    task_id = worker.send(late, size=2)
    worker.says("Retry in 1")
    assert worker.rows("SELECT * FROM done") == []
    late.write_text("1\n")
    worker.says("1 lines imported")
    assert worker.rows("SELECT id, lines FROM done") == [(task_id, 1)]


def test_a_file_that_was_replaced_is_left_to_its_own_task(worker: Worker, storage: Path) -> None:
    (storage / "new.csv").write_text("longer\n")
    worker.send(storage / "new.csv", size=2)
    worker.says("was replaced since: it has 7 bytes")
    task_id = worker.send(storage / "new.csv", size=7)
    worker.says("1 lines imported")
    assert (task_id, 1) in worker.rows("SELECT id, lines FROM done")
    assert worker.rows("SELECT count(*) FROM lines") == [(1,)]
    # Somebody else than watchman may send one: without headers.
    worker.send(storage / "new.csv")
    wait_until(lambda: worker.rows("SELECT count(*) FROM lines") == [(2,)], 30.0, "the other's")
