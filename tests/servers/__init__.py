"""Real servers for tests: each in a directory of its own, on 127.0.0.1, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

STOP_SECONDS = 10.0


def require(binary: str) -> str:
    """Return the path of ``binary``; without it skip the test, or fail it where CI is set."""
    found = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{binary} is not installed, and CI must not skip what needs it")
    pytest.skip(f"{binary} is not installed")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listening(port: int) -> bool:
    """True if somebody accepts connections on the port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def tail(path: Path, characters: int = 2000) -> str:
    """Return the end of a log, for a failure's message."""
    return path.read_text(errors="replace")[-characters:] if path.exists() else ""


def ended(process: psutil.Process) -> bool:
    """Say whether a process has ended, be it that nobody has taken note of it yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Process:
    """A server's process group: started by us, and ended by us, whatever state it is in."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """True as long as the process itself has not ended."""
        return self.popen.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to the process and all that it started."""
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """End the process group, after so many seconds by force, and reap the process."""
        self.send(signal.SIGCONT)
        if self.running:
            self.send(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
        self.send(signal.SIGKILL)
        self.popen.wait(STOP_SECONDS)
