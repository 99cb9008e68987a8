"""Watching in a second process, so that an end is possible whatever hangs.

A process one of whose threads waits for a FUSE server that has read its request cannot end before
the answer comes, not even by SIGKILL (Linux, fs/fuse/dev.c: "Wait it out"). So where something is
watched that may hang, the daemon's process only holds the locks and passes signals on; all else is
done by a child. When that has finished, the daemon ends, and leaves the child to the kernel if it
hangs. If the daemon is killed, the kernel kills the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from watchman.errors import WatchmanError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""What is passed on."""
GRACE = 1.0
"""Seconds that the child has to be gone once it has finished."""
LOOK = 2.0
"""Seconds between two looks whether a child that says nothing lives."""
_READY, _DONE = b"r", b"d"
_PR_SET_PDEATHSIG = 1

_daemon = 0


def pid() -> int:
    """Return the number by which others know this daemon: of the process that holds its locks."""
    return _daemon or os.getpid()


def run(
    work: Callable[[Callable[[], None]], bool],
    ready: Callable[[], None],
    forked: Callable[[], None],
) -> bool:
    """Return what ``work(tell_ready)`` does in a child. Raises its WatchmanError.

    ``forked`` is called here when there is a child, ``ready`` each time ``tell_ready`` was called
    there.
    Handlers of :data:`SIGNALS` that are set now act in both processes. Where the child is killed,
    this process ends by the same signal.
    """
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    daemon = os.getpid()
    child = os.fork()
    if not child:
        ours.close()
        _serve(work, theirs, daemon, before)
    theirs.close()
    descriptor = os.pidfd_open(child)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def relay(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)

    try:
        for number in SIGNALS:
            signal.signal(number, relay)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        forked()
        answer = _listen(ours, child, ready)
        select.select([descriptor], [], [], GRACE)
        if not answer:
            _die_like(child)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(descriptor)
        ours.close()
    outcome = pickle.loads(answer)  # noqa: S301 — from a process of ours
    if isinstance(outcome, WatchmanError):
        raise outcome
    return bool(outcome)


def _listen(connection: socket.socket, child: int, ready: Callable[[], None]) -> bytes:
    """Wait for the child's last word and return it; empty if it died without one."""
    said = b""
    while True:
        while not select.select([connection], [], [], LOOK)[0]:
            # Killed while one of its threads hangs, it keeps its end of the connection.
            if _is_dead(child):
                return b""
        part = connection.recv(1 << 16)
        if not part:
            return said[1:]
        said += part
        while said[:1] == _READY:  # several may have come at once: one for each reload
            said = said[1:]
            ready()


def _is_dead(child: int) -> bool:
    """Say whether a child has ended, be it that threads of it hang."""
    try:
        with open(f"/proc/{child}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _die_like(child: int) -> NoReturn:
    """End as the child did, which has said why."""
    status = 0
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: nobody can tell
        _, status = os.waitpid(child, os.WNOHANG)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise WatchmanError(f"the process {child} that watched has died; its output tells why")


def _serve(
    work: Callable[[Callable[[], None]], bool],
    connection: socket.socket,
    daemon: int,
    mask: set[Any],
) -> NoReturn:
    """Be the child."""
    global _daemon  # noqa: PLW0603 — who one is, is the process's own
    status = 1
    try:
        _daemon = daemon
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != daemon:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        outcome: Any
        try:
            outcome = work(lambda: connection.sendall(_READY))
        except WatchmanError as error:
            outcome = error
        connection.sendall(_DONE + pickle.dumps(outcome))
        connection.shutdown(socket.SHUT_WR)  # the end of it, also where this process hangs
        status = 0
    except BaseException:  # noqa: BLE001 — nothing may return into the daemon's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
