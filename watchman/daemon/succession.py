"""Waiting for one's turn: ``notify run`` under supervisord while another watchman runs.

What ends at once is started again a few times, then left as FATAL, and when the other one ends
nobody watches. So it waits, and says for whom: the program is RUNNING, its log tells why it does
not watch yet, and there is no gap between the two.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from watchman import itself, record_locks
from watchman.daemon.process import Running, ended, process, running, supervised, supervisorctl
from watchman.errors import WatchmanError
from watchman.model import Config

_DAY = 86_400.0


def await_turn(config: Config, say: Callable[[str], None]) -> None:
    """Under supervisord, wait for the end of the other watchman, and execute this command again.

    It is the configuration of then that counts, and nothing is left of this attempt. Elsewhere
    return at once, and also where the other one cannot be waited for (in another container):
    whoever typed the command is told that one runs.
    """
    if supervised(os.getpid()) is None:
        return
    # SIGTERM and SIGINT end the process; the others are for the one that watches.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(WatchmanError), process(config, running) as found:
        if found is not None:
            other, descriptor = found
            say(_words(other))
            with _noted_as_waiting(config):
                # Its process, not its lock: that is let go of, and taken again, meanwhile.
                while not ended(descriptor, _DAY):
                    pass
        itself.execute_again()


@contextlib.contextmanager
def _noted_as_waiting(config: Config) -> Iterator[None]:
    """Hold the byte that tells ``stop`` of us. Nobody here may close the file meanwhile."""
    descriptor = os.open(record_locks.lock_of(config.state_dir), os.O_RDWR | os.O_CLOEXEC)
    try:
        record_locks.take(descriptor, record_locks.WAITING)
        yield
    finally:
        os.close(descriptor)


def _words(other: Running) -> str:
    program = supervised(other.pid)
    if other.detached:
        started, end = "'notify start' has started it", "'notify stop'"
    elif program is not None:
        started, end = "supervisord runs it as well", f"'{supervisorctl('stop', program)}'"
    else:
        started, end = "it runs in a foreground", f"'kill {other.pid}'"
    return (
        f"Not watching: {record_locks.who(other.pid)} watches with this configuration ({started}). "
        f"This one waits, and takes its place when it ends: {end} hands over"
    )


def waiting(config: Config) -> int | None:
    """Return the id of the process that waits for the running one's end; None if none does."""
    with contextlib.suppress(OSError):
        held = record_locks.holder_of(record_locks.lock_of(config.state_dir), record_locks.WAITING)
        return None if held is None else held[0]
    return None


def goes_on(pid: int) -> str:
    """Say that the one which has waited watches now, and how to stop it."""
    program = (supervised(pid) if pid else None) or "notify"
    return (
        f"Watching goes on: {record_locks.who(pid)} has waited for that under supervisord; stop it "
        f"with '{supervisorctl('stop', program)}'."
    )
