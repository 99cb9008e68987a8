"""FTP and SSH servers speak first: what they say tells that they are up."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.servers import Process, tail
from tests.waiting import wait_until


def greets(port: int, greeting: bytes) -> bool:
    """Say whether the server on ``port`` begins a connection with ``greeting``."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(len(greeting)) == greeting
    except OSError:
        return False


def start(argv: list[str], log: Path, port: int, greeting: bytes) -> Process:
    """Start a server and return it when it greets; fail with its output if it ends or does not."""
    server = Process(argv, log)

    def up() -> bool:
        assert server.running, f"{argv[0]} ended at once: {tail(log)}"
        return greets(port, greeting)

    try:
        wait_until(up, 15.0, f"{argv[0]} to greet on port {port}")
    except BaseException:
        server.stop()
        raise
    return server
