"""A second process beside the daemon, for system calls that would compete for one interpreter.

It is forked while the daemon has no other thread, and answers questions, one after the other, by a
function of ours. It holds no state, decides nothing that lasts, and ends with the daemon. Where
there is none, or it is lost, the daemon does the same work itself. Without one 50,000 directories
took 2.4 times as long as with inotifywait, and files with MOVES came at 0.44 of the rate without,
while a third of the machine was idle.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

_LENGTH = struct.Struct("I")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class HelperProcess:
    """The daemon's end. Questions and answers are whatever ``marshal`` takes."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self._pid = pid
        # Never signalled by number: where SIGCHLD is ignored, the kernel may give it to another.
        self._process = os.pidfd_open(pid)
        self._connection = connection

    @classmethod
    def start(cls, answer: Callable[..., Any], keep: Iterable[int] = ()) -> HelperProcess | None:
        """Fork a process that calls ``answer(*question)``, with the descriptors ``keep`` only.

        None where it would not help, or where a fork would take locks along that others hold.
        """
        if len(os.sched_getaffinity(0)) < 2 or threading.active_count() > 1:
            return None
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return None
        if not pid:
            _serve(theirs, answer, keep)
        theirs.close()
        return cls(pid, ours)

    def ask(self, *question: Any) -> None:
        """Send a question. Raises OSError where the process has gone."""
        _send(self._connection, question)

    def answered(self, timeout: float) -> bool:
        """Say whether there is an answer, waiting up to ``timeout`` seconds for it."""
        return bool(select.select([self._connection], [], [], timeout)[0])

    def answer(self) -> Any:
        """Return the answer to the first question that was not answered yet; waits for it.

        Raises OSError where the process has gone.
        """
        answer = _receive(self._connection)
        if answer is None:
            raise ConnectionResetError
        return answer

    def end(self) -> None:
        """End the process. One that hangs in the kernel ends when it wakes up; nobody waits."""
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        select.select([self._process], [], [], 1.0)
        os.close(self._process)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)


def _serve(connection: socket.socket, answer: Callable[..., Any], keep: Iterable[int]) -> NoReturn:
    """Answer until the daemon has gone. Never returns into its code."""
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        let_go({connection.fileno(), *keep})
        while (question := _receive(connection)) is not None:
            _send(connection, answer(*question))
    finally:
        os._exit(0)


def let_go(keep: set[int]) -> None:
    """Close what is the daemon's: somebody may wait for the end of a pipe, or for a lock."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in keep:
            # The list was read through one of them.
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _send(connection: socket.socket, value: Any) -> None:
    data = marshal.dumps(value)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> Any:
    """Return the next value; None at the end of the connection."""
    length = _read(connection, _LENGTH.size)
    data = _read(connection, _LENGTH.unpack(length)[0]) if length else b""
    return marshal.loads(data) if data else None  # noqa: S302 — from a process of ours


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
