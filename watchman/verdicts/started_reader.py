"""A process that reads files, as the daemon has it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

TOOK_TOO_LONG = (-signal.SIGXCPU, -signal.SIGALRM)
"""How a process ends whose check takes longer than it may."""
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from {module} import main; main(*map(int, sys.argv[2:6]), *sys.argv[6:])"
)


class StartedReader:
    """A process, and what it is at."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        self.slot = slot
        self.process = process
        self.descriptor = os.pidfd_open(process.pid)
        self.number = 0
        """The question that it was seen at last."""
        self.since = time.monotonic()

    def kill(self) -> None:
        """End it. One that hangs in the kernel ends when it comes back."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def has_ended(self, timeout: float) -> bool:
        """Wait for its end, so many seconds at the most."""
        # Not by select(2), which takes no descriptor beyond 1023.
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Give back what the daemon has of it."""
        os.close(self.descriptor)


def start_reader(slot: int, connection: int, memory: int, config_path: str) -> StartedReader:
    """Start a process; the descriptors are of the socket and of the memory that it shares.

    ``config_path`` is as in ``Pool``. Raises OSError.
    """
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    module = "watchman.config.callables" if config_path else "watchman.verdicts.reader_process"
    numbers = map(str, (connection, memory, slot, os.getpid()))
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-X", "utf8", "-c", _PROGRAM.format(module=module)),
            *(top, *numbers, *filter(None, [config_path])),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        pass_fds=(connection, memory),
    )
    return StartedReader(slot, process)


def why_ended(status: int) -> str:
    """Say why a process has ended while it read a file."""
    if status in TOOK_TOO_LONG:
        return "its check took too long, and was ended"
    if status < 0:
        name = signal.Signals(-status).name
        return f"its check ended by signal {name}"
    return f"its check ended with status {status}"
