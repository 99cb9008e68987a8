"""A stock Celery worker understands what the publishers send, with its defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.brokers.conftest import make
from tests.integration.brokers.messages import AWKWARD, message, route
from tests.servers.redis import RedisServer
from tests.servers.worker import CeleryWorker
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.brokers.filesystem import FilesystemPublisher
from watchman.model import ACCEPTED, Broker, Message

TASKS = ("tests.note", "tests.other")


def real_files(directory: Path) -> dict[str, int]:
    """Make a file for each awkward name; return path -> size."""
    files = {}
    for number, name in enumerate(AWKWARD.values(), start=1):
        base = name.rpartition(b"/")[2][:200] or b"x"
        path = os.path.join(os.fsencode(directory), base + b"%d" % number)
        with open(path, "wb") as file:
            file.write(b"x" * number)
        files[os.fsdecode(path)] = number
    return files


@pytest.mark.parametrize("kind", ["redis", "rabbitmq", "filesystem"])
def test_a_stock_worker_executes_what_is_sent_and_can_open_every_file(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    queue_name: Callable[[str], str],
) -> None:
    broker = make(kind, request, tmp_path / "state")
    queue = queue_name("worker")
    (tmp_path / "files").mkdir()
    files = real_files(tmp_path / "files")
    sent: dict[str, Message] = {}
    for path, size in files.items():
        one = message(route(queue), path)._replace(size=size, source=path + ".in")
        sent[one.task_id] = one
    args = route(queue, "tests.other", priority=3, headers={"mine": ["x", 1]}, expires=600)
    last = message(args._replace(args=(7, "acht"), kwargs={"k": None}), next(iter(files)))
    soon = message(route(queue, countdown=1), next(iter(files)))
    batch = [*sent.values(), last, soon]
    publisher = broker.publisher()
    try:
        assert publisher.publish(batch) == [ACCEPTED] * len(batch)
    finally:
        publisher.close()

    worker = CeleryWorker(
        broker.url, tmp_path / "worker", TASKS, queues=[queue], transport_options=broker.options
    )
    with worker:
        done = {each["id"]: each for each in worker.wait_for(len(batch))}

    assert set(done) == {each.task_id for each in batch}
    for task_id, one in sent.items():
        seen = done[task_id]
        assert seen["args"] == [one.path]
        assert seen["opened"] == [one.size]
        headers = seen["headers"]
        assert headers["watchman_source"] == one.source
        assert headers["watchman_size"] == one.size
        assert headers["watchman_mtime"] == one.mtime_ns / 1e9
        assert headers["watchman_arrived"] == one.arrived_ns / 1e9
        assert headers["watchman_host"] == os.uname().nodename
        assert seen["ignore_result"] is None
    seen = done[last.task_id]
    assert seen["name"] == "tests.other"
    assert (seen["args"][1:], seen["kwargs"]) == ([7, "acht"], {"k": None})
    assert seen["headers"]["mine"] == ["x", 1]
    assert seen["expires"] is not None
    assert done[soon.task_id]["eta"] is not None


def test_a_worker_with_a_backend_stores_results(
    redis_server: RedisServer, tmp_path: Path, queue_name: Callable[[str], str]
) -> None:
    queue = queue_name("results")
    publisher = open_publisher(Broker("b", (redis_server.url,)), {}, "/nonexistent")
    stored, ignored = message(route(queue)), message(route(queue, ignore_result=True))
    assert publisher.publish([stored, ignored]) == [ACCEPTED] * 2
    publisher.close()
    settings = {"result_backend": redis_server.url}
    worker = CeleryWorker(
        redis_server.url, tmp_path, TASKS, queues=[queue], settings=settings, result=42
    )
    with worker, redis_server.client() as client:
        worker.wait_for(2)
        wait_until(lambda: client.get(f"celery-task-meta-{stored.task_id}"), what="the result")
    with redis_server.client() as client:
        assert json.loads(client.get(f"celery-task-meta-{stored.task_id}"))["result"] == 42
        assert client.get(f"celery-task-meta-{ignored.task_id}") is None


def test_two_workers_on_the_embedded_broker_lose_and_double_nothing(tmp_path: Path) -> None:
    broker = make("filesystem", None, tmp_path / "state")  # type: ignore[arg-type]  # — it needs no server
    batch = [message(route("celery"), f"/srv/{number}.csv") for number in range(150)]
    workers = [
        CeleryWorker(
            broker.url, tmp_path / f"worker{number}", TASKS, transport_options=broker.options
        )
        for number in range(2)
    ]
    publisher = FilesystemPublisher(Broker("b", ("filesystem://",)), {}, str(tmp_path / "state"))
    try:
        for worker in workers:
            worker.start()
        for start in range(0, 150, 10):
            assert publisher.publish(batch[start : start + 10]) == [ACCEPTED] * 10

        def all_done() -> list[str]:
            return [each["id"] for worker in workers for each in worker.executed()]

        wait_until(lambda: len(all_done()) >= 150, 30.0, "150 tasks")
        assert sorted(all_done()) == sorted(each.task_id for each in batch)
    finally:
        for worker in workers:
            worker.stop()
        publisher.close()
