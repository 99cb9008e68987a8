"""The brokers that the contract suite runs over, behind one face."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import kombu

from tests.integration.brokers.memory import MemoryPublisher, memory
from tests.servers import BrokerServer
from tests.servers.redis import RedisServer
from watchman.brokers import open_publisher
from watchman.brokers.filesystem import embedded_options
from watchman.brokers.kombu import KombuPublisher
from watchman.model import Broker, Message, Publisher


class Seen(NamedTuple):
    """What a consumer reads: the task's first argument, its id, its headers, and ``files``."""

    path: str
    task_id: str
    headers: dict[str, Any]
    files: tuple[str, ...] = ()


class UnderTest:
    """A broker: how to publish to it, read from it, and make its life hard."""

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.url = url
        self.options = options or {}

    def publisher(self) -> Publisher:
        return open_publisher(Broker("broker", (self.url,)), {}, "/nonexistent")

    def read(self, queue: str, limit: int = 100_000) -> list[Seen]:
        """Take all that is in the queue with a stock kombu consumer, oldest first."""
        seen: list[Seen] = []
        with kombu.Connection(self.url, transport_options=self.options) as connection:
            simple = connection.SimpleQueue(queue)
            while len(seen) < limit:
                try:
                    got = simple.get(block=False)
                except simple.Empty:
                    break
                got.ack()
                args, kwargs, _ = got.payload
                files = tuple(kwargs.get("files", ()))
                seen.append(Seen(args[0], got.headers["id"], dict(got.headers), files))
            simple.close()
        return seen

    def down(self) -> AbstractContextManager[None]:
        """Take the broker away for the length of a with statement."""
        raise NotImplementedError

    def hanging(self) -> AbstractContextManager[None]:
        """Have the broker accept everything and answer nothing."""
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError


class OnServer(UnderTest):
    def __init__(self, server: BrokerServer) -> None:
        super().__init__(server.url)
        self.server = server

    @contextmanager
    def down(self) -> Iterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.server.pause()
        try:
            yield
        finally:
            self.server.resume()

    def restart(self) -> None:
        self.server.restart()


class OnRedis(OnServer):
    server: RedisServer

    def read(self, queue: str, limit: int = 100_000) -> list[Seen]:
        if limit < 100_000:
            return super().read(queue, limit)
        # A consumer takes from the right; reading at once is what keeps the suite fast.
        with self.server.client() as client:
            raw = client.lrange(queue, 0, -1)[::-1]
            client.delete(queue)
        seen = []
        for text in raw:
            envelope = json.loads(text)
            args, kwargs, _ = json.loads(b64decode(envelope["body"]))
            files = tuple(kwargs.get("files", ()))
            seen.append(Seen(args[0], envelope["headers"]["id"], envelope["headers"], files))
        return seen


class OnRedisThroughKombu(OnRedis):
    def publisher(self) -> Publisher:
        defaults = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
        return KombuPublisher(Broker("broker", (self.url,)), {}, defaults)


class OnRabbitThroughKombu(OnServer):
    def publisher(self) -> Publisher:
        return KombuPublisher(Broker("broker", (self.url,)), {})


class OnFilesystem(UnderTest):
    def __init__(self, state_dir: Path) -> None:
        super().__init__("filesystem://", embedded_options(str(state_dir)))
        self.state_dir = state_dir

    def publisher(self) -> Publisher:
        return open_publisher(Broker("broker", (self.url,)), {}, str(self.state_dir))

    @contextmanager
    def down(self) -> Iterator[None]:
        folder = Path(self.options["data_folder_in"])
        aside = folder.with_name("aside")
        os.rename(folder, aside)
        folder.write_text("in the way")
        try:
            yield
        finally:
            folder.unlink()
            os.rename(aside, folder)

    def restart(self) -> None:
        """There is no server."""


class OnMemory(UnderTest):
    def __init__(self, name: str) -> None:
        super().__init__(f"memory://{name}")

    def publisher(self) -> Publisher:
        return MemoryPublisher(Broker("broker", (self.url,)))

    def read(self, queue: str, limit: int = 100_000) -> list[Seen]:
        held = memory(self.url).messages
        mine = [each for each in held if each.route.options["queue"] == queue][:limit]
        for each in mine:
            held.remove(each)
        return [Seen(each.path, each.task_id, _headers(each), each.files) for each in mine]

    @contextmanager
    def down(self) -> Iterator[None]:
        memory(self.url).down = True
        try:
            yield
        finally:
            memory(self.url).down = False

    @contextmanager
    def hanging(self) -> Iterator[None]:
        held = memory(self.url)
        held.gate.clear()
        held.gate_seconds = 0.1
        try:
            yield
        finally:
            held.gate.set()

    def restart(self) -> None:
        """There is no server."""


def _headers(message: Message) -> dict[str, Any]:
    return {"watchman_source": message.source, "watchman_size": message.size}
