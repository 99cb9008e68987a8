"""Fixtures that several directories of tests share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

pytest_plugins = ["tests.servers.fixtures_ftp"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis; a test that stops, pauses or fills it puts it right again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A running RabbitMQ; a test that stops, pauses or fills it puts it right again."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue_name() -> Callable[[str], str]:
    """Make queue names that no other test of the session uses."""

    def name(word: str) -> str:
        return f"{word}{next(_numbers)}"

    return name
