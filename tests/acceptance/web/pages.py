"""``notify web`` of a site, in a process of its own, and what is asked of it over the network."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.acceptance.daemon.site import Site
from tests.servers import Process, free_port, listening
from tests.waiting import wait_until


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes


class Pages:
    """A server that listens on ``port`` of 127.0.0.1."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self.process.popen.pid

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def send(self, request: bytes) -> bytes:
        """Send what no client would; return all that comes back before it is cut off."""
        found = b""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        with connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
            with contextlib.suppress(OSError):  # it is cut off already
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                found += part
        return found


@contextlib.contextmanager
def pages(site: Site, *arguments: str) -> Iterator[Pages]:
    port = free_port()
    config = str(site.top / "config.py")
    argv = [*site.prefix, sys.executable, "-m", "watchman", "web", "--config", config]
    argv += ["--listen", f"127.0.0.1:{port}", *arguments]
    process = Process(argv, site.top / "web.log", site.environment)
    try:
        wait_until(lambda: listening(port) or not process.running, 30.0, "it listens")
        assert process.running, (site.top / "web.log").read_text()
        yield Pages(process, port)
    finally:
        process.stop()
