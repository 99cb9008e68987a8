"""Asking how it stands: the running watchman if it answers, else what was written last."""

from __future__ import annotations

import time
from typing import NamedTuple

from watchman.model import Config
from watchman.status import daemon_socket, status_file
from watchman.status.status_file import Snapshot


class StatusAnswer(NamedTuple):
    """What is known of the watchman of a configuration."""

    snapshot: Snapshot | None
    """None where none was ever written, or only by another version."""
    age_s: float | None
    """Seconds since it was taken; None where there is none. 0 at the least, whatever clocks say."""
    live: bool
    """Whether the running watchman has taken it for this question: events reach it."""


def ask(config: Config, timeout: float = daemon_socket.REPLY) -> StatusAnswer:
    """Return the status of now; at the latest after ``timeout`` seconds what was written last.

    Only ``config.state_dir`` is looked at. Raises WatchmanError where this user may not read it.
    """
    reply = daemon_socket.request(config.state_dir, "status", timeout) or {}
    snapshot, live = status_file.understood(reply.get("snapshot")), reply.get("fresh") is True
    if snapshot is None:
        snapshot, live = status_file.read(config.state_dir), False
    if snapshot is None:
        return StatusAnswer(None, None, live=False)
    return StatusAnswer(snapshot, max(0.0, (time.time_ns() - snapshot["beat_ns"]) / 1e9), live)
