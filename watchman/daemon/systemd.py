"""What a service of Type=notify tells systemd, in the datagrams of sd_notify(3).

All of them come from the process that systemd has started (MAINPID), which is why NotifyAccess=main
is enough: where a child watches (``guard``), it is the parent that speaks. READY is the pipeline's
own, after a reload as after the start. The watchdog is fed when the snapshot that a touched
heartbeat asks for has been written: what would make ``status`` say "hung" starves it, and a full
disk, for which the journal's writer renews its word, does not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping

from watchman import status
from watchman.errors import WatchmanError
from watchman.model import Config

SEND = 1.0
"""Seconds that a datagram may wait for room in the queue of the manager."""


class Manager:
    """The service manager that waits for word of this process; nothing is told where none does."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._timeout = _watchdog(environ)
        self._feeder: threading.Thread | None = None

    def ready(self, state_dir: str) -> None:
        """Say that everything is watched, after the start or a reload; feed the watchdog since.

        The first call starts a thread: no helper process is forked from then on.
        """
        self._tell("READY=1", *_summary(state_dir))
        if self._address and self._timeout and self._feeder is None:
            self._feeder = threading.Thread(
                target=self._feed, args=(state_dir,), name="watchdog", daemon=True
            )
            self._feeder.start()

    def reloading(self) -> None:
        """Say that a reload has begun; may be called from a signal handler."""
        # In the same datagram: by the time systemd tells this reload from one before its SIGHUP.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def adopted(self, _config: Config) -> None:
        """Nothing to do."""

    def stopping(self) -> None:
        """Say that the end has begun; may be called from a signal handler."""
        self._tell("STOPPING=1")

    def leave(self) -> None:
        """Say nothing more: this is a child, and its parent speaks."""
        self._address = b""

    def _feed(self, state_dir: str) -> None:
        """Feed the watchdog twice in its time, while events come through the kernel."""
        never = threading.Event()
        period = self._timeout / 2
        while True:
            due = time.monotonic() + period
            if _answers(state_dir, period):
                self._tell("WATCHDOG=1", *_summary(state_dir))
            else:
                due = time.monotonic() + period / 10  # once more before the time is over
            never.wait(max(0.0, due - time.monotonic()))

    def _tell(self, *assignments: str) -> None:
        """Send one datagram. A manager that does not take it must not hold up the watching."""
        if not self._address:
            return
        # A socket for each: a signal may come while another is in use.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.settimeout(SEND)
            sender.sendto("\n".join(assignments).encode(), self._address)


def _address(name: str) -> bytes:
    """Return the address for the socket module; empty where the name is none of a Unix socket."""
    if name[:1] not in ("/", "@"):
        return b""
    # An @ stands for the zero byte of an abstract name.
    return os.fsencode(name.replace("@", "\0", 1) if name[0] == "@" else name)


def _watchdog(environ: Mapping[str, str]) -> float:
    """Return the seconds within which this process must be heard of; 0 for no limit."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0  # it was set for whoever started us
    try:
        return max(0, int(environ.get("WATCHDOG_USEC", ""))) / 1e6
    except ValueError:
        return 0.0


def _answers(state_dir: str, timeout: float) -> bool:
    """Whether a touch of the heartbeat reaches the pipeline as an event, as for ``status``."""
    try:
        return status.have_written(state_dir, timeout)
    except WatchmanError:
        return False  # its word cannot be read


def _summary(state_dir: str) -> list[str]:
    """Return the line for ``systemctl status``; none where the snapshot cannot be read."""
    try:
        snapshot = status.read(state_dir)
    except WatchmanError:
        return []
    if snapshot is None:
        return []
    watches = _count(len(snapshot["watches"]), "watch", "watches")
    brokers = _count(len(snapshot["brokers"]), "broker", "brokers")
    return [f"STATUS={watches}, {brokers}"]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
