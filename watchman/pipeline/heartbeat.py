"""The heartbeat, which goes through the kernel, and the status file, which follows it.

The pipeline touches ``STATE_DIR/heartbeat`` every ten seconds. The file is watched like an upload:
only when that event has come back is the status file written. So a status file that is fresh proves
that events arrive. Whoever touches the heartbeat (``notify status``) asks for an answer of now.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time

from watchman import status
from watchman.pipeline.snapshot import Snapshots
from watchman.sources.source import Source
from watchman.status import Snapshot
from watchman.text import printable
from watchman.troubles import Troubles

log = logging.getLogger("watchman.notify")

BEAT = 10.0
"""Seconds between two touches of the heartbeat file."""
_SHARE = 10
"""However often somebody asks: the answers take this fraction of the time at most."""


class Heartbeat:
    """Keeps ``STATE_DIR/status.json`` true while events come through.

    Used from the pipeline's thread, but for :meth:`renew` and :meth:`ask`. It beats at once when
    ``troubles`` has changed.
    """

    def __init__(
        self, state_dir: str, source: Source, snapshots: Snapshots, troubles: Troubles
    ) -> None:
        self._state_dir = state_dir
        self._file = os.path.join(state_dir, status.HEARTBEAT)
        self._source = source
        self._snapshots = snapshots
        self._troubles = troubles
        self._last: Snapshot | None = None
        """What was taken last."""
        self._said: Snapshot | None = None
        """What was written last."""
        self._condition = threading.Condition()
        self._begun = self._done = 0
        """How many snapshots were begun, and how many of them are written."""
        self._ended = False
        self._next_beat = 0.0
        self._changes = 0
        """``troubles.changes`` as of the last beat."""
        self._next_answer = 0.0
        """When, by the monotonic clock, another question may be answered."""
        self._untouched = self._unwritten = False
        """Whether the heartbeat could not be touched, and the status file not be written, which has
        been said."""

    def start(self) -> None:
        """Make the heartbeat file and have it watched. Raises OSError."""
        status.remove_drafts(self._state_dir)
        if not os.path.exists(self._file):  # else a reload must do where nothing can be written
            with open(self._file, "ab"):
                pass
        self._source.listen(self._file)

    def beat(self, now: float) -> bool:
        """Touch the heartbeat when it is due; True if it was."""
        changes = self._troubles.changes
        if now < self._next_beat and changes == self._changes:
            return False
        self._next_beat, self._changes = now + BEAT, changes
        try:
            os.utime(self._file)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # the whole directory is gone, and the journal
                self.start()
        except OSError as error:
            if not self._untouched:
                log.error(
                    "%s cannot be touched: %s; 'notify status' says that watchman hangs until "
                    "STATE_DIR can be written",
                    printable(self._file),
                    error.strerror,
                )
            self._untouched = True
        else:
            self._untouched = False
        return True

    def answer(self) -> None:
        """Write the status file if the heartbeat was touched, by us or by who asks: events come."""
        now = time.monotonic()
        if self._source.beaten and now >= self._next_answer:
            # Before the file is written: who asks meanwhile gets an answer of its own.
            self._source.beaten = False
            self.write()
            after = time.monotonic()
            # One that took long (a slow disk, SIGSTOP) must not silence the next beats as well.
            self._next_answer = after + min(_SHARE * (after - now), BEAT)

    @property
    def pause(self) -> float:
        """Seconds until the question that waits may be answered; no end where none waits."""
        return max(0.0, self._next_answer - time.monotonic()) if self._source.beaten else math.inf

    def write(self) -> None:
        """Write the status file; a full disk must not end the watching."""
        self._begun += 1
        self._last = self._snapshots.take()
        self._write(self._last)

    def ask(self, timeout: float) -> tuple[Snapshot | None, bool]:
        """Return a snapshot that is begun from now on, and True; after ``timeout`` s the last one.

        For other threads than the pipeline's.
        """
        with self._condition:
            wanted = self._begun + 1
            with contextlib.suppress(OSError):
                os.utime(self._file)
            self._condition.wait_for(lambda: self._done >= wanted or self._ended, timeout)
            return self._said, self._done >= wanted

    def end(self) -> None:
        """Have whoever asks wait no longer: nothing is taken any more."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def renew(self) -> None:
        """Say once more what was said last, with the troubles of now: the journal's disk is full.

        Called by the thread that waits for the journal, which may hold what a new snapshot needs.
        """
        self._next_beat = 0.0
        if self._last is not None:
            self._begun += 1
            self._write(self._snapshots.renew(self._last))

    def last_word(self) -> None:
        """Say that this pipeline ended: nothing is watched until there is another."""
        if self._last is not None:
            self._last["watching"] = False
            self._write(self._snapshots.renew(self._last))

    def _write(self, snapshot: Snapshot) -> None:
        with self._condition:
            self._said, self._done = snapshot, self._begun
            self._condition.notify_all()
        try:
            status.write(self._state_dir, snapshot)
        except OSError as error:
            if not self._unwritten:
                log.error("The status file cannot be written: %s", error)
            self._unwritten = True
        else:
            self._unwritten = False
