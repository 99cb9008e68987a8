"""What stands before a server and holds up what a client sends, after so many bytes."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading

_HARD = struct.pack("ii", 1, 0)


class Gate:
    """Passes one connection on to a port of 127.0.0.1; a context manager.

    After ``limit`` bytes of the client's it is ``held``: what comes then waits until
    :meth:`release`. What the server says always passes.
    """

    def __init__(self, target: int, limit: int | None = None) -> None:
        self.passed = 0
        """Bytes of the client's that the server was sent."""
        self._target = target
        self._limit = limit
        self._reset = False
        self._let_go = threading.Event()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="gate")

    @property
    def held(self) -> bool:
        """Whether so many bytes have passed, and no more do."""
        return self._limit is not None and self.passed >= self._limit

    def release(self) -> None:
        """Let pass what was held up, and all that follows."""
        self._let_go.set()

    def end(self, *, reset: bool = False) -> None:
        """End the connection on both sides; what was held up is lost."""
        self._reset = reset
        self._over.set()

    def __enter__(self) -> Gate:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Closing alone does not end an accept(2) that waits.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            with client, socket.create_connection(("127.0.0.1", self._target)) as server:
                with contextlib.suppress(OSError):
                    self._pass_on(client, server)
                if self._reset:
                    for one in (client, server):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while not self._over.is_set():
            free = self._limit is None or self._let_go.is_set()
            heard = [server] if self.held and not free else [client, server]
            for one in select.select(heard, [], [], 0.01)[0]:
                if one is server:
                    data = server.recv(1 << 16)
                    client.sendall(data)
                else:
                    room = 1 << 16 if free else (self._limit or 0) - self.passed
                    data = client.recv(room)
                    server.sendall(data)
                    self.passed += len(data)
                if not data:
                    return
