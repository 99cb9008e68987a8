"""An rsync daemon of a test's own, with one module that may be written to."""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers import OneProcess, free_port, require
from tests.servers.greeting import start

MODULE = "up"


class RsyncDaemon(OneProcess):
    """A running rsync daemon, as whoever runs the tests; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._rsync = require("rsync")
        self.directory = directory
        self.port = free_port()

    @property
    def root(self) -> Path:
        """Where uploads go."""
        return self.directory / "root"

    def __enter__(self) -> RsyncDaemon:
        self.root.mkdir(exist_ok=True)
        configuration = self.directory / "rsyncd.conf"
        owner = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.geteuid() == 0 else ""
        module = f"[{MODULE}]\npath = {self.root}\nread only = false\nuse chroot = false\n"
        configuration.write_text(owner + module)
        argv = [self._rsync, "--daemon", "--no-detach", "--address=127.0.0.1"]
        argv += [f"--port={self.port}", f"--config={configuration}"]
        self.process = start(argv, self.directory / "output", self.port, b"@RSYNCD")
        return self
