"""One call of a hook: a command, a POST, or a function of Python's."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from watchman.model import Hook

LIMIT = 30.0
"""Seconds that a command or a POST may take; then it is killed."""
_POST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "post.py")
"""Run by its file, not imported: what it needs of the standard library takes 3 MB."""
_TAIL = 2000
"""Bytes kept of what it says on standard error, however much that is."""
_CHUNK = 1 << 16


class HookError(Exception):
    """A hook did not do what it was asked for; the message says why."""


class Commands:
    """The commands at work for some hooks, each the leader of its group. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._ended = threading.Event()

    def start(self, command: Sequence[str], standard_input: BinaryIO) -> subprocess.Popen[bytes]:
        """Start a command. Raises HookError after :meth:`end`, OSError where it cannot be run."""
        if self._ended.is_set():
            raise HookError("it is not called any more: watchman ends")
        process = subprocess.Popen(
            command,
            stdin=standard_input,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        # Not held while it is started: that may take as long as the file system of its program.
        with self._lock:
            self._running.add(process.pid)
            if self._ended.is_set():
                _kill(process.pid)
        return process

    def is_over(self, pid: int) -> None:
        """Forget one, before it is reaped: until then its number is nobody else's."""
        with self._lock:
            self._running.discard(pid)

    def end(self) -> None:
        """End all that are still at work, and start no more: nobody would end them later."""
        with self._lock:
            self._ended.set()
            for pid in self._running:
                _kill(pid)


def call(hook: Hook, event: dict[str, Any], commands: Commands) -> None:
    """Tell a hook of an event; returns when that is done, or ``commands`` are ended.

    Raises HookError, or whatever a function of the user's raises.
    """
    if hook.function is not None:
        hook.function(event)
        return
    words = json.dumps(event).encode("ascii")
    if hook.url:
        # A process of its own: neither a name server nor a slow answer can outlast the limit. The
        # URL may hold a password, and others see a command's arguments.
        command = (sys.executable, "-I", "-X", "utf8", _POST)
        _run(command, f"{hook.url}\n".encode() + words, commands)
    else:
        _run(hook.command, words, commands)


def _run(command: Sequence[str], words: bytes, commands: Commands) -> None:
    """Run a command with ``words`` on standard input. Raises HookError."""
    try:
        with _input(words) as standard_input:
            process = commands.start(command, standard_input)
    except OSError as error:
        raise HookError(f"it cannot be run: {error.strerror}") from error
    with process:
        try:
            tail = _watch(process)
        finally:
            commands.is_over(process.pid)
    status = process.returncode
    if status:
        how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        lines = tail.decode("utf-8", "replace").strip().splitlines()
        raise HookError(f"{how}: {lines[-1]}" if lines else how)


@contextlib.contextmanager
def _input(words: bytes) -> Iterator[BinaryIO]:
    """Give a file in memory with the words: nobody has to wait until they are read."""
    with open(os.memfd_create("watchman-hook"), "wb+") as file:
        file.write(words)
        file.seek(0)
        yield file


def _watch(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for the end of a process, which is killed after LIMIT; return its last words."""
    assert process.stderr is not None
    descriptor = process.stderr.fileno()
    os.set_blocking(descriptor, False)
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + LIMIT
        tail = b""
        while True:
            left = deadline - time.monotonic()
            ready = dict(poll.poll(max(0.0, left) * 1000))
            if descriptor in ready:
                chunk = os.read(descriptor, _CHUNK)
                tail = (tail + chunk)[-_TAIL:]
                if not chunk:
                    poll.unregister(descriptor)
            # What it has left running may hold its standard error open: that is not waited for.
            if pidfd in ready:
                return tail
            if left <= 0:
                _kill(process.pid)
                raise HookError(f"it took longer than {LIMIT:.0f} s and was killed")
    finally:
        os.close(pidfd)


def _kill(pid: int) -> None:
    """End a command, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
