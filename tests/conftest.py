"""Fixtures that several directories of tests share."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import checkout as checkouts
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.supervised import processes_of
from watchman.journal import Journal

pytest_plugins = ["tests.servers.fixtures_ftp"]

# A stall of the machine is no fault of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_LONG_FIRST = ("acceptance", "faults", "integration")

_numbers = itertools.count(1)
_SHARED_MEMORY = "/dev/shm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the directories first whose tests take long: beside the last of them nothing is left."""

    def place(item: pytest.Item) -> int:
        directory = item.path.relative_to(checkouts.ROOT / "tests").parts[0]
        return _LONG_FIRST.index(directory) if directory in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis; a test that stops, pauses or fills it puts it right again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis that nobody else needs."""
    server = RedisServer(tmp_path / "redis")
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
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal in ``tmp_path``."""
    made = Journal(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def queue_name() -> Callable[[str], str]:
    """Make queue names that no other test of the session uses."""

    def name(word: str) -> str:
        return f"{word}{next(_numbers)}"

    return name


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout in which one command has been run, from another directory."""
    fresh = checkouts.clone(tmp_path_factory.mktemp("checkout"))
    done = checkouts.run(fresh / "bin" / "notify", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "watchman: preparing .venv (once)…\n"
    return fresh


@pytest.fixture
def used_checkout(checkout: Path) -> Iterator[Path]:
    """The same one, for a test that configures and runs watchman there."""
    settings = checkout / "supervisord.conf"
    before = settings.read_bytes()
    yield checkout
    left = processes_of(checkout)
    for process in left:
        process.kill()
    settings.write_bytes(before)
    (checkout / "config.py").unlink(missing_ok=True)
    shutil.rmtree(checkout / "var", ignore_errors=True)
    assert left == []


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than tmp_path."""
    if not os.path.isdir(_SHARED_MEMORY) or (
        os.stat(_SHARED_MEMORY).st_dev == os.stat(tmp_path).st_dev
    ):
        pytest.skip("needs /dev/shm on a file system of its own")
    directory = Path(tempfile.mkdtemp(prefix="watchman-test-", dir=_SHARED_MEMORY))
    yield directory
    shutil.rmtree(directory)
