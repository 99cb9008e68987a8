"""The daemon as its users start it: the real command, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.checkout import ROOT
from tests.servers import Process, tail
from tests.waiting import wait_until

START_SECONDS = 30.0
STOP_SECONDS = 40.0
KEPT = ("PATH", "HOME", "TZ", "TMPDIR", "CI")

NOTIFIED, MOVING, SENDING = ": Notified of ", ": Moving ", ": Sending task "
WATCHING = re.compile(rb"\[INFO\] watchman\.\w+: Watching \d+ director(y|ies)\n")


def environment(**changes: str) -> dict[str, str]:
    """Return an environment in which only ``changes`` can be meant for Celery or for us."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    return kept | ours | changes


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of ``notify`` with these arguments."""
    return [sys.executable, "-m", "watchman", *map(str, arguments)]


def notify(
    *arguments: str | Path, cwd: str | Path, timeout: float = 60.0, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run ``notify`` to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Daemon:
    """``notify run --config …``; what it prints, over all its starts, is in ``log``."""

    def __init__(self, config: Path, **changes: str) -> None:
        self.config = config
        self.log = config.with_name("daemon.log")
        self.environment = environment(**changes)
        self.process: Process | None = None
        self._begun = 0

    def start(self) -> Daemon:
        """Start it and wait until it watches."""
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        argv = command("run", "--config", self.config)
        self.process = Process(argv, self.log, self.environment)
        try:
            wait_until(self._watches, START_SECONDS, "the daemon watches", interval=0.02)
        except BaseException as error:
            self.end()
            raise AssertionError(f"the daemon did not start: {tail(self.log)}") from error
        return self

    def _watches(self) -> bool:
        assert self.process is not None
        assert self.process.running, tail(self.log)
        return WATCHING.search(self.log.read_bytes(), self._begun) is not None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.popen.pid

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self.process is not None
        assert self.process.running, tail(self.log)
        self.process.stop(signal.SIGKILL)
        assert self.process.popen.returncode == -signal.SIGKILL
        self.process = None

    def send(self, number: int) -> None:
        """Send a signal to it alone."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end; fail unless it does so with exit status 0."""
        self.send(number)
        self.ended()

    def ended(self) -> None:
        """Wait for the end that was asked for; fail unless the exit status is 0."""
        assert self.process is not None
        status = self.process.popen.wait(STOP_SECONDS)
        assert status == 0, tail(self.log)
        self.process = None

    def end(self) -> None:
        """End it in whatever state it is."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def lines(self) -> list[str]:
        """Return the complete lines of its log, over all starts."""
        if not self.log.exists():
            return []
        return self.log.read_text("utf-8", "surrogateescape").split("\n")[:-1]

    def count(self, words: str) -> int:
        """Return how many times the log has the words."""
        return self.log.read_bytes().count(words.encode())

    def wait_for(self, words: str, count: int = 1, timeout: float = 20.0) -> None:
        """Wait until the log has the words so many times."""

        def there() -> bool:
            assert self.process is None or self.process.running, tail(self.log)
            return self.count(words) >= count

        wait_until(there, timeout, f"{count} × {words!r} in the log")

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()
