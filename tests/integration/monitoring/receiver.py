"""What hooks tell: an HTTP server that remembers, and a program that writes down its input."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from tests.servers.http import HttpHandler, HttpServer

Event = dict[str, Any]

_WRITE = "import sys; open(sys.argv[1], 'ab', 0).write(sys.stdin.buffer.read() + b'\\n')"


def writing(path: Path) -> list[str]:
    """A command that adds what it is told to a file."""
    return [sys.executable, "-c", _WRITE, str(path)]


def written(path: Path) -> list[Event]:
    """What such a command was told so far."""
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


class Receiver(HttpServer):
    """A server on loopback; ``status`` is what it answers, ``held`` keeps answers back."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.headers: list[dict[str, str]] = []
        self.status = 204
        self.go_on = threading.Event()
        self.go_on.set()
        receiver = self

        class Handler(HttpHandler):
            def do_POST(self) -> None:  # noqa: N802 — http.server calls it so
                words = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.headers.append(dict(self.headers))
                receiver.events.append(json.loads(words))
                receiver.go_on.wait(60)
                self.send_response(receiver.status)
                if receiver.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

        super().__init__(Handler)

    def close(self) -> None:
        self.go_on.set()
        super().close()
