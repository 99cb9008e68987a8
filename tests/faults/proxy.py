"""A TCP proxy that fails on purpose: it cuts, delays, goes silent, or refuses connections."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from enum import Enum


class Way(Enum):
    """A direction."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Proxy:
    """Forwards connections on ``port`` to another port of 127.0.0.1.

    What is set applies to connections that begin later, ``down`` and :meth:`cut` to all.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.way = Way.TO_SERVER
        self.limit: int | None = None
        """After so many bytes in direction ``way`` a connection fails; None: never."""
        self.silent = False
        """Fail by forwarding nothing more, in either direction, instead of closing."""
        self.reset = False
        """Close by RST instead of FIN."""
        self.delay = 0.0
        """Seconds by which every piece is held up."""
        self.down = False
        """True: connections are closed as soon as they are accepted."""
        self.longest = {Way.TO_SERVER: 0, Way.TO_CLIENT: 0}
        """The most bytes that one connection has passed since the last :meth:`forget`."""
        self.connections = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, name="proxy")
        self._accepting.start()

    def forget(self) -> None:
        """Count from zero again."""
        self.longest = dict.fromkeys(Way, 0)
        self.connections = 0

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        with self._lock:
            return len(self._open) // 2

    def cut(self) -> None:
        """End every connection there is."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._accepting.join(10)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.down:
                client.close()
                continue
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._serve, args=(client,), name="proxy-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        way, limit, silent, reset, delay = (
            self.way,
            self.limit,
            self.silent,
            self.reset,
            self.delay,
        )
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            pair = {client: (server, Way.TO_SERVER), server: (client, Way.TO_CLIENT)}
            with self._lock:
                self._open.update(pair)
            try:
                left = limit
                passed = dict.fromkeys(Way, 0)
                while left is None or left > 0:
                    ready, _, _ = select.select(list(pair), [], [], 1.0)
                    if self._stop.is_set():
                        return
                    for each in ready:
                        other, direction = pair[each]
                        counted = left is not None and direction is way
                        data = each.recv(left if counted and left else 1 << 16)
                        if not data:
                            return
                        if delay:
                            self._stop.wait(delay)
                        other.sendall(data)
                        passed[direction] += len(data)
                        self.longest[direction] = max(self.longest[direction], passed[direction])
                        if counted and left is not None:
                            left -= len(data)
                            if not left:
                                break
                if silent:
                    self._be_silent(client, server)
            except OSError:
                return
            finally:
                with self._lock:
                    self._open.difference_update(pair)
                if reset:
                    hard = struct.pack("ii", 1, 0)
                    for each in pair:
                        with contextlib.suppress(OSError):
                            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)

    def _be_silent(self, client: socket.socket, server: socket.socket) -> None:
        """Read what comes, and pass nothing on, until the client gives up."""
        while not self._stop.is_set():
            ready, _, _ = select.select([client, server], [], [], 1.0)
            for each in ready:
                if not each.recv(1 << 16):
                    return

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
