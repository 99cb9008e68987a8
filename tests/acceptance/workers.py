"""Stock Celery workers that several tests share, and what Redis holds for one."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis
from celery import Celery

from tests.servers.worker import CeleryWorker
from tests.waiting import wait_until

TASKS = ("process_events", "process_timeseries", "lizard_task", "3di_task")
BARRIER = "barrier"


class Bench:
    """A running worker on the default queue of one broker, seen by one test at a time."""

    def __init__(self, worker: CeleryWorker, url: str) -> None:
        self.worker = worker
        self.url = url
        self._from = 0

    def begin(self) -> Bench:
        """Forget what was executed for others before."""
        self.flush()
        self._from = self.worker.output.stat().st_size
        return self

    def flush(self) -> None:
        """Wait until everything that is in the queue now has been executed.

        A solo worker takes the messages in their order, so whatever was sent before this one
        shows before it.
        """
        mark = str(uuid.uuid4())
        app = Celery(BARRIER, broker=self.url, set_as_current=False)
        with app.connection_for_write() as connection:
            app.send_task(BARRIER, (mark,), connection=connection, ignore_result=True)

        def reached() -> bool:
            output = self.worker.output
            return output.exists() and mark.encode() in output.read_bytes()

        wait_until(reached, 60, f"the worker's queue on {self.url} is empty", interval=0.05)

    def executed(self) -> list[dict[str, Any]]:
        """Return what was executed since the beginning, oldest first."""
        with self.worker.output.open("rb") as file:
            file.seek(self._from)
            lines = file.read().split(b"\n")[:-1]
        return [done for done in map(json.loads, lines) if done["name"] != BARRIER]

    def wait_for(self, paths: Iterable[str], timeout: float = 30.0) -> None:
        """Wait until a task has been executed for each of the paths."""
        expected = set(paths)

        def arrived() -> bool:
            missing = expected - {done["args"][0] for done in self.executed()}
            seen[:] = [f"{len(missing)} missing, such as {min(missing, default='')}"]
            return not missing

        seen: list[str] = []
        try:
            wait_until(arrived, timeout, interval=0.2)
        except AssertionError as error:
            raise AssertionError(f"not executed within {timeout} s: {seen}") from error


class Queued(NamedTuple):
    """A task message that waits in Redis."""

    name: str
    task_id: str
    path: str
    source: str


def queued(url: str, queue: str = "celery") -> list[Queued]:
    """Return the messages in one of Redis's queues, the one that is taken first at the front."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        values = client.lrange(queue, 0, -1)
    assert isinstance(values, list)
    return [_read(value) for value in reversed(values)]


def _read(value: bytes) -> Queued:
    message = json.loads(value)
    headers = message["headers"]
    args, _, _ = json.loads(base64.b64decode(message["body"]))
    return Queued(headers["task"], headers["id"], args[0], headers["watchman_source"])
