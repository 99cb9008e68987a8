"""An AMQP 0-9-1 server that says what a test wants, at the moment that it wants."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from struct import pack, unpack_from
from typing import NamedTuple

from tests.servers.turns import Disturb, Then, nothing

METHOD, HEADER, BODY = 1, 2, 3
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
BLOCKED, UNBLOCKED = (10, 60), (10, 61)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
PUBLISH, RETURN, ACK, NACK = (60, 40), (60, 50), (60, 80), (60, 120)
CONFIRM, CONFIRM_OK = (85, 10), (85, 11)

Method = tuple[int, int]


class Reply(NamedTuple):
    """An error: it closes the channel, or from 500 on, and for 320 and 402, the connection."""

    code: int
    text: str

    @property
    def closes_all(self) -> bool:
        return self.code >= 500 or self.code in (320, 402)


SILENCE = Reply(0, "silence")
"""No answer at all."""
NACKED = Reply(0, "nack")
"""In place of an acknowledgement."""


class FakeAmqp:
    """Keeps what is published by queue, unless ``answer`` says otherwise.

    ``answer`` gets the method and the name of the queue or exchange that it is about, if any, and
    returns None, or what to say instead. ``disturb`` says what to do in place of an answer.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Method, str], Reply | None] = lambda method, name: None
        self.disturb: Disturb = nothing
        self.said: list[str] = []
        """What was said so far, or not said because of ``disturb``, by its class and method."""
        self.published: list[str] = []
        """The routing key of each message that was acknowledged, in order."""
        self.ids: list[str] = []
        """Their task ids."""
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._blocking: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="fake-amqp")]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"amqp://{self.address}//"

    @property
    def stored(self) -> list[str]:
        """The ids of all tasks that are kept."""
        return list(self.ids)

    def be_well(self) -> None:
        """Disturb nothing from now on, and block nobody any more."""
        self.disturb = nothing
        for each in self._blocking:
            with contextlib.suppress(OSError):
                each.sendall(frame(0, UNBLOCKED))

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            thread = threading.Thread(target=_Session(self, client).run, name="fake-amqp-client")
            self._threads.append(thread)
            thread.start()


class _Session:
    """One connection."""

    def __init__(self, server: FakeAmqp, client: socket.socket) -> None:
        self._server = server
        self._client = client
        self._file = client.makefile("rb")
        self._tags: dict[int, int] = {}
        self._keys: dict[int, str] = {}
        self._closed: set[int] = set()
        self._id = ""
        self._header = b""
        self._silent = False
        self._ended = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._client, self._file:
            self._file.read(8)
            self._say(0, START, b"\0\x09" + pack(">I", 0) + _long(b"PLAIN") + _long(b"en_US"))
            while self._handle(*self._frame()):
                pass

    def _frame(self) -> tuple[int, int, bytes]:
        head = self._file.read(7)
        if len(head) < 7:
            raise EOFError
        kind, channel, size = unpack_from(">BHI", head)
        payload = self._file.read(size + 1)[:-1]
        return kind, channel, payload

    def _say(
        self,
        channel: int,
        method: Method,
        arguments: bytes = b"",
        do: Callable[[], None] = lambda: None,
        content: bytes = b"",
    ) -> None:
        """Say it, after what it tells of was done. Raises EOFError to end the connection."""
        if self._silent:
            return
        answer = frame(channel, method, arguments)
        turn = None
        if method != CLOSE_OK:  # nobody waits for it: when it is said is chance
            turn = self._server.disturb(len(self._server.said), "{}.{}".format(*method))
            self._server.said.append("{}.{}".format(*method))
        if turn is None or turn.done:
            do()
        said = answer if turn is None else turn.said(channel, answer)
        if turn is not None and turn.returned and content:
            said = frame(channel, RETURN, pack(">H", 312) + _name("NO_ROUTE") * 3) + content + said
        if turn is not None and turn.blocking:
            self._server._blocking.append(self._client)
        self._client.sendall(said)
        if turn is not None and turn.then is Then.CLOSE:
            raise EOFError
        while turn is not None and turn.then is Then.BEAT:
            # Until the client closes the connection.
            self._client.sendall(HEARTBEAT)
            self._ended.wait(0.02)
        self._silent = turn is not None and turn.then is Then.SILENCE
        if turn is not None and turn.then is Then.CHANNEL:
            self._closed.add(channel)

    def _handle(self, kind: int, channel: int, payload: bytes) -> bool:
        if kind == METHOD:
            return self._method(channel, unpack_from(">HH", payload), payload[4:])
        if kind == HEADER:
            # The header "id" of the task, a long string.
            found = re.search(rb"\x02idS(....)", payload, re.DOTALL)
            self._id = ""
            if found:
                end = found.end() + int.from_bytes(found[1], "big")
                self._id = payload[found.end() : end].decode()
            self._header = content_frame(HEADER, channel, payload)
        if kind == BODY and channel not in self._closed:
            return self._message(channel, self._header + content_frame(BODY, channel, payload))
        return True

    def _method(self, channel: int, method: Method, arguments: bytes) -> bool:
        if method == CHANNEL_OPEN:
            self._closed.discard(channel)
            self._tags[channel] = 0
        elif channel in self._closed:
            return True
        name = ""
        if method in {QUEUE_DECLARE, QUEUE_BIND, EXCHANGE_DECLARE}:
            name = _short(arguments, 2)[0]
        if method != PUBLISH and (reply := self._server.answer(method, name)):
            return self._refuse(channel, reply, method)
        answers = {
            START_OK: (TUNE, pack(">HIH", 0, 131072, 0)),
            OPEN: (OPEN_OK, b"\0"),
            CLOSE: (CLOSE_OK, b""),
            CHANNEL_OPEN: (CHANNEL_OPEN_OK, _long(b"")),
            CHANNEL_CLOSE: (CHANNEL_CLOSE_OK, b""),
            CONFIRM: (CONFIRM_OK, b""),
            EXCHANGE_DECLARE: (EXCHANGE_DECLARE_OK, b""),
            QUEUE_BIND: (QUEUE_BIND_OK, b""),
            QUEUE_DECLARE: (QUEUE_DECLARE_OK, _name(name) + pack(">II", 0, 0)),
        }
        if method == PUBLISH:
            exchange, end = _short(arguments, 2)
            self._keys[channel] = exchange or _short(arguments, end)[0]
        elif method in answers:
            self._say(channel, *answers[method])
        return method not in {CLOSE, CLOSE_OK}

    def _message(self, channel: int, content: bytes) -> bool:
        """Every message of the tests has a body of one frame."""
        key = self._keys[channel]
        reply = self._server.answer(PUBLISH, key)
        self._tags[channel] += 1
        if reply and reply is not NACKED:
            return self._refuse(channel, reply, PUBLISH)
        task_id = self._id

        def keep() -> None:
            if not reply:
                self._server.published.append(key)
                self._server.ids.append(task_id)

        arguments = pack(">QB", self._tags[channel], 0)
        self._say(channel, NACK if reply else ACK, arguments, keep, content)
        return True

    def _refuse(self, channel: int, reply: Reply, method: Method) -> bool:
        if reply is SILENCE:
            return True
        arguments = pack(">H", reply.code) + _name(reply.text) + pack(">HH", *method)
        if reply.closes_all or not channel:
            self._say(0, CLOSE, arguments)
            return True
        self._closed.add(channel)
        self._say(channel, CHANNEL_CLOSE, arguments)
        return True


def frame(channel: int, method: Method, arguments: bytes = b"", kind: int = METHOD) -> bytes:
    """Return a frame that holds a method."""
    payload = pack(">HH", *method) + arguments
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def content_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame of a message's header or body."""
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _long(data: bytes) -> bytes:
    return pack(">I", len(data)) + data


def _name(text: str) -> bytes:
    data = text.encode()[:255]
    return bytes([len(data)]) + data


def _short(data: bytes, start: int) -> tuple[str, int]:
    end = start + 1 + data[start]
    return data[start + 1 : end].decode(), end
