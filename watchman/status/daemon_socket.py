"""The daemon's socket, ``STATE_DIR/socket``: what commands ask of the watchman that runs.

A Unix stream socket (0600), there while it watches. Who connects sends one line, a JSON object in
ASCII of at most 4096 bytes, gets one line, a JSON object, and the connection is closed:

============================  =====================================================================
request                       answer
============================  =====================================================================
``{"request": "status"}``     ``{"ok": true, "fresh": true, "snapshot": {…}}``: what ``status.json``
                              holds, taken for this question when its heartbeat had come through the
                              kernel. ``fresh`` is false where that took too long: the snapshot is
                              then the last one, and null before the first
``{"request": "orders"}``     ``{"ok": true, "fresh": true}``: what commands have ordered in the
                              journal (held, released, put back, sent again) is obeyed from now
                              on; not fresh: within ten seconds
anything else                 ``{"ok": false, "error": "…"}``
============================  =====================================================================

Only the daemon's own user and root are answered (SO_PEERCRED). One thread does so, and holds up
nobody: there are :data:`MOST` connections at the most, of which the oldest makes room for another,
and each has :data:`PATIENCE` seconds for its line, and as long to take the answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

log = logging.getLogger("watchman.service")

FILE = "socket"
MOST = 16
"""Connections at a time."""
LONGEST = 4096
"""Bytes of a request."""
PATIENCE = 5.0
"""Seconds that a client has to send its request, and to take the answer."""
REPLY = 5.0
"""Seconds that a command waits for the answer: the daemon gives itself less."""
AGAIN = 1.0
"""Seconds until connections are taken again where no descriptor was left for one."""
_LARGEST = 64 << 20
"""Bytes of an answer that a command reads at the most."""
_PIECE = 1 << 16
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""

_TIMEVAL = struct.Struct("ll")
_QUEUE = 128
"""Connections that wait to be accepted."""

Request = Mapping[str, Any]
Answers = Callable[[list[str]], list[Request]]
"""Answers for each of some words, which came at the same time. May wait, within bounds."""


def request(state_dir: str, word: str, timeout: float = REPLY) -> dict[str, Any] | None:
    """Ask the running watchman; None where none answers within ``timeout`` seconds."""
    try:
        with _address(state_dir) as address, socket.socket(socket.AF_UNIX) as connection:
            deadline = time.monotonic() + timeout
            # Python's own time-out would have it refused where many connect at once.
            seconds = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
            connection.connect(address)
            connection.settimeout(timeout)
            connection.sendall(json.dumps({"request": word}).encode("ascii") + b"\n")
            answer = json.loads(_read_line(connection, deadline))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and answer.get("ok") is True else None


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """Return a line. Raises OSError, TimeoutError among them, or returns less than one."""
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < _LARGEST:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(_PIECE)
        if not piece:
            break
        received += piece
    return bytes(received)


@contextlib.contextmanager
def _address(state_dir: str) -> Iterator[str]:
    """Yield the socket's path by way of the open directory: sun_path has room for 107 bytes."""
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{FILE}"
    finally:
        os.close(directory)


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.deadline = time.monotonic() + PATIENCE
        self.received = bytearray()
        self.reply = b""
        """What is still to be sent; there is something as soon as there is a request."""


class Server:
    """Answers at the socket, from :meth:`start` to :meth:`close`.

    Only for whoever holds STATE_DIR: a socket that an earlier run has left is removed.
    """

    def __init__(self, state_dir: str, answers: Answers) -> None:
        self._state_dir = state_dir
        self._answers = answers
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.PollSelector()
        self._listener: socket.socket | None = None
        self._accept_again = math.inf
        """When to take connections again, by the monotonic clock, where none could be taken."""
        self._wake_read = self._wake_write = -1
        self._thread = threading.Thread(target=self._run, name="socket", daemon=True)

    def start(self) -> None:
        """Make the socket. Where that cannot be, commands read what was written last."""
        try:
            self._listener = self._listen()
        except OSError as error:
            log.warning(
                "The socket %s cannot be made (%s): 'notify status' reads what is written every "
                "ten seconds, and what commands order begins as late",
                os.path.join(self._state_dir, FILE),
                error.strerror,
            )
            return
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Remove the socket, and end the thread after the answer that it may be at."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._state_dir, FILE))
        os.write(self._wake_write, b"\0")
        self._thread.join(PATIENCE)
        self._listener.close()
        if not self._thread.is_alive():
            for descriptor in (self._wake_read, self._wake_write):
                os.close(descriptor)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._state_dir, FILE))
            # Before it is bound: the file is made with this mode. umask is the whole process's.
            os.fchmod(listener.fileno(), 0o600)
            with _address(self._state_dir) as address:
                listener.bind(address)
            listener.listen(_QUEUE)
        except BaseException:
            listener.close()
            raise
        return listener

    # The thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException:
            # Nothing waits for it: the pipeline goes on, and commands read the file.
            log.exception("The socket is not answered any more")
        finally:
            for client in list(self._clients.values()):
                self._drop(client)

    def _turn(self) -> bool:
        """Serve whoever can be served; False when told to end."""
        asked: list[tuple[_Client, str]] = []
        if self._listener is not None and self._accept_again <= time.monotonic():
            self._accept_again = math.inf
            self._selector.register(self._listener, selectors.EVENT_READ)
        for key, _ in self._selector.select(self._time_left()):
            if key.fileobj == self._wake_read:
                return False
            if key.fileobj is self._listener:
                self._accept(self._listener)
            elif key.data in self._clients.values():
                asked += self._serve(key.data)
        if asked:
            replies = self._answers([word for _, word in asked])
            for (client, _), reply in zip(asked, replies, strict=True):
                # One that was asking may have made room for another since.
                if client.connection in self._clients:
                    self._reply(client, reply)
        now = time.monotonic()
        for client in [one for one in self._clients.values() if one.deadline <= now]:
            self._drop(client)
        return True

    def _time_left(self) -> float | None:
        due = min([self._accept_again, *(one.deadline for one in self._clients.values())])
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError:
            # No descriptor is left: it goes on waiting, and the kernel would tell so at once.
            self._selector.unregister(listener)
            self._accept_again = time.monotonic() + AGAIN
            return
        connection.setblocking(False)
        if not _may_ask(connection):
            connection.close()
            return
        if len(self._clients) >= MOST:
            self._drop(next(iter(self._clients.values())))
        client = self._clients[connection] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _serve(self, client: _Client) -> Iterator[tuple[_Client, str]]:
        """Go on with a client; yield it with what it asks for, once that is known."""
        if client.reply:
            self._send(client)
            return
        try:
            piece = client.connection.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop(client)
            return
        client.received += piece
        if b"\n" in client.received[:LONGEST]:
            word = _word(bytes(client.received).partition(b"\n")[0])
            if word is not None:
                yield client, word
                return
        elif len(client.received) < LONGEST:
            return
        self._reply(client, {"ok": False, "error": "no request: one JSON object in a line"})

    def _reply(self, client: _Client, reply: Request) -> None:
        client.reply = json.dumps(reply).encode("ascii") + b"\n"
        client.deadline = time.monotonic() + PATIENCE
        self._selector.modify(client.connection, selectors.EVENT_WRITE, client)
        self._send(client)

    def _send(self, client: _Client) -> None:
        try:
            sent = client.connection.send(client.reply)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.reply = client.reply[sent:]
        if not client.reply:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.connection]
        self._selector.unregister(client.connection)
        client.connection.close()


def _may_ask(connection: socket.socket) -> bool:
    """Whether the other end is root's, or this process's own user's."""
    size = _CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = _CREDENTIALS.unpack(found)
    return uid in (0, os.geteuid())


def _word(line: bytes) -> str | None:
    """Return what a request asks for; None where it is none."""
    try:
        found = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    word = found.get("request") if isinstance(found, dict) else None
    return word if isinstance(word, str) else None
