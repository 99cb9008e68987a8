"""A Redis server of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import BrokerServer, Process, free_port, require, tail
from tests.waiting import wait_until


class RedisServer(BrokerServer):
    """``redis-server`` on a free port; what it holds survives a restart (append-only file)."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.binary = require("redis-server")
        self.directory = directory
        self.arguments = arguments
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """The broker URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start and wait until it answers."""
        argv = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--dir", str(self.directory), "--save", "", "--appendonly", "yes"]
        argv += ["--appendfsync", "always", *self.arguments]
        log = self.directory / "redis.log"
        self.process = Process(argv, log)
        try:
            wait_until(self._answers, what=f"Redis on port {self.port}: {tail(log)}")
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.running, tail(self.process.log)
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def client(self, **options: Any) -> redis.Redis:
        """Return a client that gives up after a few seconds and never retries."""
        return redis.Redis(
            port=self.port,
            socket_timeout=5.0,
            socket_connect_timeout=5.0,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
