"""Fixtures for the tests of the publishers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.brokers.brokers import (
    OnFilesystem,
    OnMemory,
    OnRabbitThroughKombu,
    OnRedis,
    OnRedisThroughKombu,
    OnServer,
    UnderTest,
)
from watchman.model import Publisher

KINDS = ["memory", "filesystem", "redis", "rabbitmq", "kombu on redis", "kombu on rabbitmq"]


def make(kind: str, request: pytest.FixtureRequest, directory: Path) -> UnderTest:
    if kind == "memory":
        return OnMemory(request.node.nodeid.replace("/", "."))
    if kind == "filesystem":
        return OnFilesystem(directory)
    if kind.endswith("redis"):
        server = request.getfixturevalue("redis_server")
        return OnRedis(server) if kind == "redis" else OnRedisThroughKombu(server)
    server = request.getfixturevalue("rabbit_server")
    return OnServer(server) if kind == "rabbitmq" else OnRabbitThroughKombu(server)


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> UnderTest:
    return make(request.param, request, tmp_path)


@pytest.fixture
def publisher(broker: UnderTest) -> Iterator[Publisher]:
    opened = broker.publisher()
    yield opened
    opened.close()


@pytest.fixture
def queue(queue_name: Callable[[str], str]) -> str:
    return queue_name("tasks")
