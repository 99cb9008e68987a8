"""A pure-ftpd of a test's own: plain, or with uploads that are renamed into place (``-0``)."""

from __future__ import annotations

import contextlib
import ftplib
import os
import socket
import threading
from pathlib import Path
from types import TracebackType

import pytest

from tests.servers import OneProcess, free_port, require
from tests.servers.greeting import start

NOBODY = 65534


class PureFTPd(OneProcess):
    """A running pure-ftpd; a context manager. It needs root, as Debian builds it.

    Every directory above ``directory`` must let others pass, see
    :func:`tests.servers.proftpd.public_directory`. ``log`` is the format of its log of transfers:
    clf, stats, w3c or xferlog.
    """

    def __init__(self, directory: Path, *, rename: bool = False, log: str = "") -> None:
        self._pureftpd = require("pure-ftpd")
        if os.geteuid() != 0:
            pytest.skip("pure-ftpd needs root")
        self._options = ["-0"] if rename else []
        self.directory = directory
        if log:
            self._options += ["-O", f"{log}:{self.log}"]
        self.port = free_port()
        self._accounts = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._authenticate, daemon=True)

    @property
    def log(self) -> Path:
        """Its log of transfers."""
        return self.directory / "transfers.log"

    @property
    def root(self) -> Path:
        """Where uploads go."""
        return self.directory / "root"

    def __enter__(self) -> PureFTPd:
        self.root.mkdir()
        os.chown(self.root, NOBODY, NOBODY)
        address = self.directory / "accounts"
        self._accounts.bind(str(address))
        self._accounts.listen()
        self._thread.start()
        where = ["-S", f"127.0.0.1,{self.port}", "-g", str(self.directory / "pid")]
        # -H: no names looked up; -U: modes; -C, -c: connections; -f none: no syslog.
        options = ["-H", "-U", "133:022", "-C", "30", "-c", "30", "-f", "none", "-u", "1"]
        argv = [self._pureftpd, *where, *options, *self._options, "-l", f"extauth:{address}"]
        self.process = start(argv, self.directory / "output", self.port, b"220")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        # Closing alone does not end an accept(2) that waits.
        with contextlib.suppress(OSError):
            self._accounts.shutdown(socket.SHUT_RDWR)
        self._accounts.close()
        self._thread.join(10)

    def _authenticate(self) -> None:
        """Let everybody in, by pure-ftpd's protocol for external authentication."""
        answer = f"auth_ok:1\nuid:{NOBODY}\ngid:{NOBODY}\ndir:{self.root}/./\nend\n"
        while True:
            try:
                client, _ = self._accounts.accept()
            except OSError:
                return
            with client:
                asked = b""
                while not asked.endswith(b"end\n"):
                    asked += client.recv(4096) or b"end\n"
                client.sendall(answer.encode())

    def ftp(self) -> ftplib.FTP:
        """Return a logged-in client."""
        client = ftplib.FTP(timeout=10)
        client.connect("127.0.0.1", self.port)
        try:
            client.login("up", "secret")
        except ftplib.Error:
            client.close()
            raise
        return client
