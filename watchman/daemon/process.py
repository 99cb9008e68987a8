"""Finding the watchman that runs, and signalling it without ever meaning another process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from watchman import record_locks
from watchman.daemon import places
from watchman.errors import WatchmanError
from watchman.model import Config


class Running(NamedTuple):
    """A watchman that runs, by the word of the kernel."""

    pid: int
    """0 where it runs in another container: its number there means nothing here."""
    since_ns: int
    lock: str
    """The locked file by which it was found."""
    detached: bool
    """Whether ``start`` started it; it runs in somebody's foreground otherwise."""


def running(config: Config) -> Running | None:
    """Find the watchman that runs with this configuration.

    Raises WatchmanError where this user may not know.
    """
    found = detached(config)
    if found is not None:
        return found
    held = record_locks.watchman_of(config.state_dir)
    lock = record_locks.lock_of(config.state_dir)
    return None if held is None else Running(*held, lock, detached=False)


def detached(config: Config) -> Running | None:
    """Find the one that ``start`` started."""
    for path in places.pid_file(config).candidates():
        with contextlib.suppress(OSError):  # not readable: the lock in STATE_DIR tells
            held = record_locks.holder_of(path)
            if held is not None:
                return Running(*held, path, detached=True)
    return None


@contextlib.contextmanager
def process(
    config: Config, find: Callable[[Config], Running | None]
) -> Iterator[tuple[Running, int] | None]:
    """Yield the running process and a pidfd of it, which no other process can come to mean."""
    while True:
        found = find(config)
        if found is None:
            yield None
            return
        if not found.pid:
            raise WatchmanError(
                f"{found.lock} is held by {record_locks.who(0)}; go there to do this"
            )
        try:
            descriptor = os.pidfd_open(found.pid)
        except ProcessLookupError:
            continue  # it ended in between
        except OSError as error:
            raise WatchmanError(
                f"process {found.pid} cannot be addressed: {error.strerror}; Linux 5.3 or later "
                f"is needed, or: kill {found.pid}"
            ) from error
        try:
            # Still the holder, so the descriptor was opened on it: had it ended and its number
            # been given away before, the lock would be free or another's.
            if find(config) == found:
                yield found, descriptor
                return
        finally:
            os.close(descriptor)


def send(descriptor: int, to: Running, number: signal.Signals) -> None:
    """Signal the process of a pidfd; nothing happens if it has just ended."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError as error:
        raise WatchmanError(
            f"process {to.pid} belongs to another user; do this as that user, or as root"
        ) from error


def ended(descriptor: int, timeout: float) -> bool:
    """Wait for the end of a process; a pidfd is readable from then on (pidfd_open(2))."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def supervised(pid: int) -> str | None:
    """Return the name under which supervisord runs a process, None if it does not, or none tells.

    supervisord tells its children in their environment, which only their user and root can read.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = dict(word.partition(b"=")[::2] for word in file.read().split(b"\0"))
    except OSError:
        return None
    if b"SUPERVISOR_ENABLED" not in words:
        return None
    name = os.fsdecode(words.get(b"SUPERVISOR_PROCESS_NAME", b"notify"))
    group = os.fsdecode(words.get(b"SUPERVISOR_GROUP_NAME", b""))
    return name if group in ("", name) else f"{group}:{name}"


def supervisorctl(order: str, program: str) -> str:
    """Return the command line that gives supervisord an order: this checkout's, or any."""
    script = os.path.join(os.path.dirname(sys.prefix), "bin", "supervisorctl")
    return f"{script if os.path.exists(script) else 'supervisorctl'} {order} {program}"
