"""A server that answers as Redis does, unless a test wants something else at some moment.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections import defaultdict
from typing import BinaryIO

from tests.servers.turns import Disturb, Then, Turn, nothing

HELLO = (
    b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n"
    b"$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
    b"$7\r\nmodules\r\n*0\r\n"
)
ANSWERS = {
    "HELLO": HELLO,
    "PING": b"+PONG\r\n",
    "SADD": b":1\r\n",
    "LPUSHX": b":0\r\n",
    "LLEN": b":0\r\n",
    "CLIENT MAINT_NOTIFICATIONS": b"-ERR Unknown subcommand\r\n",
}


class FakeRedis:
    """Keeps the ids of tasks that are pushed, by key."""

    def __init__(self) -> None:
        self.disturb: Disturb = nothing
        self.said: list[str] = []
        """The commands so far, in order."""
        self.lists: dict[str, list[str]] = defaultdict(list)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._queued: dict[socket.socket, list[bytes]] = {}
        """The answers of a transaction's commands so far."""
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="fake-redis")]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def stored(self) -> list[str]:
        """The ids of all tasks that were pushed."""
        return [each for ids in self.lists.values() for each in ids]

    def be_well(self) -> None:
        """Answer as Redis does from now on."""
        self.disturb = nothing

    def close(self) -> None:
        """End everything."""
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), name="fake-redis-client")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client, client.makefile("rb") as file:
            self._queued.pop(client, None)
            then = Then.GO_ON
            while then is not Then.CLOSE:
                words = _command(file)
                if then is not Then.SILENCE:
                    then = self._answer(client, words)

    def _answer(self, client: socket.socket, words: list[bytes]) -> Then:
        name = words[0].decode().upper()
        if name == "CLIENT":
            name += f" {words[1].decode().upper()}"
        turn = self.disturb(len(self.said), name)
        self.said.append(name)
        answer = ANSWERS.get(name, b"+OK\r\n")
        if name == "MULTI":
            self._queued[client] = []
        elif name == "EXEC":
            queued = self._queued.pop(client, [])
            answer = b"*%d\r\n" % len(queued) + b"".join(queued)
        elif client in self._queued:
            self._queued[client].append(answer)
            answer = b"+QUEUED\r\n"
        if name == "LPUSH":
            there = self.lists[words[1].decode()]
            if turn is None or turn.done:
                there += map(_id_of, words[2:])
            answer = b":%d\r\n" % len(there)
        turn = turn or Turn("", lambda _, true: true)
        client.sendall(turn.said(0, answer))
        return turn.then


def _command(file: BinaryIO) -> list[bytes]:
    line = file.readline()
    if not line.startswith(b"*"):
        raise EOFError
    words = []
    for _ in range(int(line[1:])):
        size = int(file.readline()[1:])
        words.append(file.read(size + 2)[:-2])
    return words


def _id_of(envelope: bytes) -> str:
    found = json.loads(envelope)
    assert base64.b64decode(found["body"])
    return str(found["headers"]["id"])
