"""What is wrong at the moment: said once, shown as long as it lasts, said once more when over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from watchman.clock import ClockSteps
from watchman.text import printable

log = logging.getLogger("watchman.notify")

KEEP = 120.0
"""Seconds from the beginning of a pipeline in which it may find a trouble of the one before."""


class Trouble(NamedTuple):
    """One entry of what ``notify status`` shows."""

    subject: str
    """What has the trouble: a watch's path, a destination …"""
    message: str
    """What is wrong, and the remedy."""
    since_ns: int
    kind: str = ""
    """What tells it from others of the same subject."""


class Troubles:
    """The troubles of now, by subject and kind: one subject has at most one trouble of a kind.

    Used from any thread.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Trouble] = {}
        self._lock = threading.Lock()
        self.changes = 0
        """How often one has begun or ended: who compares it sees that there is something new."""

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the subject, the first of two, has a trouble of the kind, the second."""
        return key in self._found

    def all(self) -> list[Trouble]:
        """Return what is wrong now, the oldest first."""
        with self._lock:
            return list(self._found.values())

    def of_kind(self, kind: str) -> set[str]:
        """Return the subjects that have a trouble of this kind."""
        with self._lock:
            return {subject for subject, found in self._found if found == kind}

    def begin(
        self,
        subject: str,
        message: str,
        kind: str = "",
        *,
        line: str = "%s: %s",
        said: str | None = None,
    ) -> bool:
        """Take note of a trouble, or of its message of now; True if it is new.

        A new one is logged: ``line`` with the subject and ``said``, which is the message unless the
        log is to say something else; "" for not a word.
        """
        key = subject, kind
        with self._lock:
            before = self._found.get(key)
            since_ns = before.since_ns if before else time.time_ns()
            self._found[key] = Trouble(subject, message, since_ns, kind)
            if before is not None:
                return False
            self.changes += 1
            said = message if said is None else said
            if said:
                # With the lock held: no other thread can say that it is over before it is said.
                log.warning(line, printable(subject), printable(said))
        return True

    def end(
        self, subject: str, kind: str = "", *, line: str = "", level: int = logging.WARNING
    ) -> None:
        """Take note that there is no such trouble; ``line`` with the subject is logged if it was.

        An empty line says nothing, as where the subject itself is gone.
        """
        with self._lock:
            if self._found.pop((subject, kind), None) is None:
                return
            self.changes += 1
            if line:
                log.log(level, line, printable(subject))


class Lasting:
    """Since when each trouble lasts, across reloads: each pipeline finds its troubles anew.

    For the life of the process. All is kept by the wall clock as it was when that began, and told
    by the one of now: who asks how long ago that was is right, whatever it was set to meanwhile.
    """

    def __init__(self) -> None:
        self.steps = ClockSteps()
        self._found: dict[str, tuple[int, int]] = {}
        """By name: since when, as this pipeline says and as it is kept."""
        self._last: Mapping[str, int] = {}
        self._before: dict[str, int] = {}
        """Troubles of earlier pipelines that this one may still find."""
        self._until = 0.0
        self.mount_points: dict[str, set[str]] = {}
        """What was seen to be mounted on the way to each watch, by its path."""

    def start(self) -> None:
        """Begin with a new pipeline, which has found none of its troubles yet."""
        # One that ends before it has found all troubles passes on those that it was given.
        self._before |= self._last
        self._last = {}
        self._found = {}
        self._until = time.monotonic() + KEEP

    def settle(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """Return since when (ns since the epoch) each trouble found now lasts, by its name."""
        steps_ns = self.steps.look()
        self._found = {
            name: self._kept(name, since, time.time_ns(), steps_ns) for name, since in found.items()
        }
        over = self._last.keys() - found.keys()
        if time.monotonic() > self._until:
            over |= self._before.keys() - found.keys()
        for name in over:
            self._before.pop(name, None)
        self._last = {
            name: min(since, self._before.get(name, since))
            for name, (_, since) in self._found.items()
        }
        return {name: since + steps_ns for name, since in self._last.items()}

    def _kept(self, name: str, since: int, now_ns: int, steps_ns: int) -> tuple[int, int]:
        before = self._found.get(name)
        if before is not None and before[0] == since:
            return before
        return since, min(since, now_ns) - steps_ns
