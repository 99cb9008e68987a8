"""Brokers and workers for the tests of the whole way of a file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.started import Daemon
from tests.acceptance.workers import BARRIER, TASKS, Bench
from tests.servers import tail
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.worker import CeleryWorker

_databases = itertools.cycle(range(2, 16))


def _database(server: RedisServer, number: int) -> str:
    with server.client(db=number) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{server.port}/{number}"


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty database that nobody consumes from."""
    return _database(redis_server, next(_databases))


@pytest.fixture
def decoy_url(redis_server: RedisServer) -> str:
    """The URL of another empty database, into which nothing must be sent."""
    return _database(redis_server, next(_databases))


@pytest.fixture(scope="package")
def on_redis_server(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    url = _database(redis_server, 1)
    directory = tmp_path_factory.mktemp("on-redis")
    tasks = (*TASKS, BARRIER)
    with CeleryWorker(url, directory, tasks) as worker:
        yield Bench(worker, url)


@pytest.fixture(scope="package")
def on_rabbit_server(
    rabbit_server: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    rabbit_server.delete("celery")
    directory = tmp_path_factory.mktemp("on-rabbit")
    tasks = (*TASKS, BARRIER)
    with CeleryWorker(rabbit_server.url, directory, tasks) as worker:
        yield Bench(worker, rabbit_server.url)
    rabbit_server.delete("celery")


@pytest.fixture
def on_redis(on_redis_server: Bench) -> Bench:
    """A worker on Redis, with nothing executed yet."""
    return on_redis_server.begin()


@pytest.fixture
def on_rabbit(on_rabbit_server: Bench) -> Bench:
    """A worker on RabbitMQ, with nothing executed yet."""
    return on_rabbit_server.begin()


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """A directory to watch."""
    made = tmp_path / "upload"
    made.mkdir()
    return made


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A directory to move to."""
    made = tmp_path / "storage"
    made.mkdir()
    return made


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Make daemons, not started yet, from the text of a configuration; all end with the test."""
    made: list[Daemon] = []

    def make(text: str, **environment: str) -> Daemon:
        directory = tmp_path / f"site{len(made)}"
        directory.mkdir()
        config = directory / "config.py"
        config.write_text(text, encoding="utf-8")
        made.append(Daemon(config, **environment))
        return made[-1]

    yield make
    for one in made:
        one.end()
        print(tail(one.log))  # shown where the test failed
