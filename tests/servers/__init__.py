"""Real servers for tests: each in a directory of its own, on 127.0.0.1, ended by its pid."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

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


def _ports() -> Iterator[int]:
    """Ports that the kernel gives to no client, and pytest-xdist to no other worker of this run."""
    clients = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(10_000 + worker, max(20_000, int(clients[0])), workers)
    # Another run beside this one begins elsewhere.
    return itertools.islice(itertools.cycle(ports), random.randrange(len(ports)), None)


_PORTS = _ports()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, another one each time."""
    for port in _PORTS:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports are a cycle")


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


class BrokerServer:
    """A broker of one process, which can be made to hang, or crash, and holds its messages."""

    process: Process | None = None

    @property
    def url(self) -> str:
        """The broker URL."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it on its port, and wait until it answers."""
        raise NotImplementedError

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; with SIGKILL as a crash does."""
        self._end(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again."""
        self._end(signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Stop the process: the kernel still accepts connections, nobody answers."""
        assert self.process is not None
        self.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.process is not None:
            self.process.send(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.stop(number)
            self.process = None


class OneProcess:
    """A server of one process, which is there from the beginning of a ``with`` block to its end."""

    process: Process | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.stop()
