"""Private brokers, and what is in their queue: how many tasks, and for which paths."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from harness import need

QUEUE = "celery"
"""Celery's default queue."""


class Queue(Protocol):
    """A broker with one queue."""

    url: str
    version: str
    poll: float
    """Seconds between two counts: each costs the broker something."""

    def clear(self) -> None:
        """Drop all messages."""
        ...

    def count(self) -> int:
        """Return the number of messages that a worker could take."""
        ...

    def paths(self) -> Iterator[str]:
        """Yield each message's first positional argument; takes the messages out."""
        ...


class RedisQueue:
    """A Redis of our own, without persistence, as most brokers run."""

    poll = 0.01

    def __init__(self, server: Any) -> None:
        self.url: str = server.url
        self.client = server.client()
        self.version = f"Redis {self.client.info('server')['redis_version']}"

    def clear(self) -> None:
        """Drop everything."""
        self.client.flushall()

    def count(self) -> int:
        """Return the list's length."""
        return int(self.client.llen(QUEUE))

    def paths(self) -> Iterator[str]:
        """Yield paths, oldest first, in chunks that keep both sides small."""
        while chunk := self.client.rpop(QUEUE, 5000):
            yield from map(path_in, chunk)


def path_in(envelope: bytes) -> str:
    """Return the path in a message as kombu's virtual transports lay it out."""
    message = json.loads(envelope)
    body = base64.b64decode(message["body"])
    return str(json.loads(body)[0][0])


class RabbitQueue:
    """A RabbitMQ node of our own; the queue is durable, the messages are persistent."""

    poll = 0.05

    def __init__(self, server: Any) -> None:
        self.url: str = server.url
        self._server = server
        self._connection: Any = server.connection()
        self._connection.connect()
        properties = self._connection.connection.server_properties
        self.version = f"RabbitMQ {properties['version']}"

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.release()

    def clear(self) -> None:
        """Drop the queue with all that is in it."""
        self._server.delete(QUEUE)

    def count(self) -> int:
        """Return the number of messages ready; 0 as long as nobody has declared the queue."""
        channel = self._connection.default_channel
        try:
            return int(channel.queue_declare(QUEUE, passive=True).message_count)
        except self._connection.channel_errors:
            # The broker has closed the channel; the next one is made on demand.
            self._connection.close()
            self._connection.connect()
            return 0

    def paths(self) -> Iterator[str]:
        """Yield paths in the order of the queue."""
        left = self._server.count(QUEUE)
        taken: list[str] = []
        with self._server.connection() as connection:
            if left:
                connection.default_channel.basic_consume(
                    QUEUE, no_ack=True, callback=lambda message: taken.append(message.body)
                )
            while len(taken) < left:
                connection.drain_events(timeout=30)
        for body in taken:
            yield str(json.loads(body)[0][0])


@contextlib.contextmanager
def redis_queue(directory: Path) -> Iterator[RedisQueue]:
    """Run a Redis until the block ends."""
    need("redis-server")
    from tests.servers.redis import RedisServer

    server = RedisServer(directory / "redis", "--appendonly", "no")
    server.start()
    try:
        yield RedisQueue(server)
    finally:
        server.stop()


@contextlib.contextmanager
def rabbit_queue(directory: Path) -> Iterator[RabbitQueue]:
    """Run a RabbitMQ until the block ends."""
    need("rabbitmq-server", "epmd")
    from tests.servers.rabbitmq import RabbitServer

    server = RabbitServer(directory / "rabbitmq")
    server.start()
    try:
        with contextlib.closing(RabbitQueue(server)) as queue:
            yield queue
    finally:
        server.stop()
