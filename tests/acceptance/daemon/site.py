"""A configuration in a directory of its own, and ``notify`` run on it as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import zygote
from tests.checkout import ROOT
from watchman import record_locks

CONFIG = """
BROKERS = {{'local': 'filesystem://'}}
WATCHES = [{{'path': {data!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [({pattern!r}, {{'broker': 'local', 'task': 'tasks.load'}})]
"""
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Site:
    """One place where watchman can run; everything it writes stays below ``top``."""

    def __init__(self, top: Path, more: str = "", prefix: tuple[str, ...] = ()) -> None:
        self.top = top
        self.prefix = prefix
        self.data = top / "data"
        self.temporary = top / "tmp"
        self.pid_file = top / "var/watchman.pid"
        self.out = top / "var/log/watchman.out"
        self.err = top / "var/log/watchman.err"
        self.data.mkdir()
        self.temporary.mkdir()
        self.configure(more)

    def configure(self, more: str = "") -> None:
        text = CONFIG.format(data=str(self.data), pattern=f"{self.data}/*.csv")
        (self.top / "config.py").write_text(text + more)

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "watchman", *arguments],
            cwd=self.top,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)}
        environment = {**os.environ, **own}
        environment.pop("WATCHMAN_CONFIG", None)
        return environment

    def notify(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        if not self.prefix and zygote.can_run(arguments, self.environment):
            return zygote.run(arguments, self.top, self.environment, 60)
        with self.popen(*arguments) as process:
            try:
                output, errors = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def start(self) -> int:
        """Start the daemon; return its pid."""
        done = self.notify("start")
        assert done.returncode == 0, done.stderr
        pid = self.pid
        assert f"process id {pid};" in done.stdout
        return pid

    def stop(self) -> None:
        done = self.notify("stop")
        told = (done.returncode, done.stdout, done.stderr)
        assert told == (0, "Watching has been stopped.\n", ""), told

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.notify("status", "--json").stdout)
        return found

    def hang(self, pid: int) -> None:
        """Stop the daemon with SIGSTOP, and have its last sign be of a minute ago."""
        os.kill(pid, signal.SIGSTOP)
        path = self.top / "var/status.json"
        written = json.loads(path.read_text())
        written["beat_monotonic_ns"] -= 60_000_000_000
        path.write_text(json.dumps(written))

    @property
    def pid(self) -> int:
        held = record_locks.holder_of(str(self.pid_file))
        assert held is not None, "no daemon holds the pid file"
        assert self.pid_file.read_text() == f"{held[0]}\n"
        return held[0]

    def holders(self) -> set[int]:
        """Return every process that holds one of this site's locks."""
        paths = [self.pid_file, self.top / "var/lock", *self.temporary.rglob("*.pid")]
        held = [record_locks.holder_of(str(path)) for path in paths]
        return {found[0] for found in held if found is not None}

    def kill(self) -> None:
        """End whatever still runs here with SIGKILL."""
        for pid in self.holders():
            end(pid)


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal that ends a process, and wait until it has gone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, number)
            assert select.select([descriptor], [], [], 20)[0], f"{pid} does not end"
        finally:
            os.close(descriptor)
