"""What is wrong at the moment, said once; and the heartbeat, which goes through the kernel."""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import TYPE_CHECKING

from watchman import status
from watchman.sources.inotify import Source
from watchman.status.snapshot import WatchStatus
from watchman.text import printable

if TYPE_CHECKING:
    from watchman.notify.pipeline import Pipeline

log = logging.getLogger("watchman.notify")

BEAT = 10.0
"""Seconds between two touches of the heartbeat file."""
RETRY_UNWATCHED = 30.0
"""Seconds between two scans of what cannot be watched for want of inotify watches."""
_LIMIT = "/proc/sys/fs/inotify/max_user_watches"


class Health:
    """Keeps ``STATE_DIR/status.json`` true while events come through."""

    def __init__(self, state_dir: str, source: Source) -> None:
        self._state_dir = state_dir
        self._source = source
        self._started_ns = time.time_ns()
        self._file = os.path.join(state_dir, "heartbeat")
        self._next_beat = 0.0
        self._since: dict[str, int] = {}
        self.troubles: dict[str, str] = {}
        """What is not being watched, or not as it should be, and why."""
        self.unwatched: set[str] = set()
        """Directories for which the kernel has no watch left."""
        with open(self._file, "ab"):
            source.listen(self._file)

    def trouble(self, path: str, error: OSError | None) -> None:
        """Take note of what the source says of a directory; None: it is fine again."""
        if error is not None and error.errno == errno.ENOSPC:
            self.unwatched.add(path)
        else:
            self.unwatched.discard(path)
            self._set(path, None if error is None else _reason(error), "Watching %s again")
        if self.unwatched:
            limit = _read_limit()
            reason = (
                f"{len(self.unwatched)} directories are only scanned every "
                f"{RETRY_UNWATCHED:.0f} s: the limit of {limit} watches is reached; raise it "
                f"with 'sysctl fs.inotify.max_user_watches={2 * max(limit, 262144)}'"
            )
            self._set("inotify watches", reason, "")
        else:
            self._set("inotify watches", None, "%s are enough again")

    def _set(self, subject: str, reason: str | None, healed: str) -> None:
        if reason is None:
            if self.troubles.pop(subject, None) is not None:
                del self._since[subject]
                log.warning(healed, printable(subject))
                self._next_beat = 0.0
            return
        if subject not in self.troubles:
            self._since[subject] = time.time_ns()
            log.warning("Not watching %s: %s", printable(subject), reason)
            self._next_beat = 0.0
        self.troubles[subject] = reason

    def check(self, now: float, pipeline: Pipeline) -> bool:
        """Touch the heartbeat when it is due; True if so."""
        if now < self._next_beat:
            return False
        self._next_beat = now + BEAT
        os.utime(self._file)
        if self._source.beaten:
            # The touch before this one has come back: events come through.
            self._source.beaten = False
            status.write(self._state_dir, self.snapshot(pipeline))
        return True

    def snapshot(self, pipeline: Pipeline) -> status.Snapshot:
        """Return all that the pipeline knows of itself."""
        watches: list[WatchStatus] = [
            {
                "path": root.watch.path,
                "kind": root.watch.kind,
                "method": "poll" if root.polled else "inotify",
                "handler": status.handler(root.watch),
                "directories": root.count(),
            }
            for root in self._source.roots
        ]
        return {
            "pid": os.getpid(),
            "started_ns": self._started_ns,
            "beat_ns": time.time_ns(),
            "watching": pipeline.watching,
            "watches": watches,
            "troubles": [
                {"subject": subject, "message": reason, "since_ns": self._since[subject]}
                for subject, reason in self.troubles.items()
            ],
            "brokers": {
                name: {
                    "trouble": sender.trouble,
                    "since_ns": sender.trouble_since_ns,
                    "last_sent_ns": sender.last_sent_ns,
                }
                for name, sender in pipeline.senders.items()
            },
            "moves": pipeline.mover.status(),  # type: ignore[typeddict-item]  # — NamedTuples
            "last_arrival_ns": pipeline.intake.last_arrival_ns,
            "overflows": self._source.overflows,
        }


def _reason(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{why}; give user {os.geteuid()} read and search permission there"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{why}; it is watched as soon as it is there"
    return f"{why}; it is tried again"


def _read_limit() -> int:
    try:
        with open(_LIMIT, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
