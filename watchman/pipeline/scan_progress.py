"""How far a scan is: said in the log now and then, and shown by ``notify status``."""

from __future__ import annotations

import logging
import time

from watchman.status import ShownScan
from watchman.text import span

log = logging.getLogger("watchman.notify")

PROGRESS = 10.0
"""Seconds between two log lines on a scan that takes long."""
_SHORT = 2.0
"""Seconds after which a scan is shown."""


class ScanProgress:
    """What was listed and handled since nothing was being scanned. For one thread, but for
    :meth:`shown`.
    """

    def __init__(self, paths: list[str], *, first_run: bool) -> None:
        self.paths = paths
        """Of the watches that are scanned."""
        self._first_run = first_run
        self._began: float | None = None
        self._began_ns = 0
        self._next_line = 0.0
        self._listed = self._found = self._handled = 0
        self._handled_since = 0.0
        """When the first that was found was handled."""
        self._listing = True

    def listed(self, files: int) -> None:
        """Count files of a directory; the first ones begin the scan."""
        if self._began is None:
            self._began, self._began_ns = time.monotonic(), time.time_ns()
            self._next_line = self._began + PROGRESS
        self._listed += files

    def step(self, found: int, handled: int, *, listing: bool) -> None:
        """Take note of what else was done; log it when it is time.

        ``found`` is what is not known and not handled yet, ``handled`` what has just been.
        """
        if self._began is None:
            return
        now = time.monotonic()
        if not self._handled and handled:
            self._handled_since = now
        self._handled += handled
        self._found, self._listing = self._handled + found, listing
        if now > self._next_line:
            self._next_line = now + PROGRESS
            log.info("%s", self._line(now))

    def end(self) -> None:
        """Say that nothing is being scanned any more."""
        if self._began is not None and time.monotonic() - self._began > PROGRESS:
            log.info(
                "Scanned %d files in %s, %d of them new",
                self._listed,
                span(time.monotonic() - self._began),
                self._found,
            )
        self._began = None
        self._listed = self._found = self._handled = 0
        self._first_run = False

    def shown(self) -> ShownScan | None:
        """Return it for the status; None while there is none, or only a short one.

        From any thread: what it reads may be a moment apart.
        """
        began, now = self._began, time.monotonic()
        if began is None or now - began < _SHORT:
            return None
        return {
            "paths": self.paths,
            "first_run": self._first_run,
            "since_ns": self._began_ns,
            "listed": self._listed,
            "listing": self._listing,
            "new": self._found,
            "done": self._handled,
            "rate": self._rate(now),
            "eta_s": self._eta(now),
        }

    def _rate(self, now: float) -> float:
        if self._listing:
            return self._listed / max(now - (self._began or now), 1.0)
        return self._handled / max(now - self._handled_since, 1.0) if self._handled else 0.0

    def _eta(self, now: float) -> float | None:
        """Return the seconds that are left, once it is known how many files there are."""
        rate = self._rate(now)
        return None if self._listing or not rate else (self._found - self._handled) / rate

    def _line(self, now: float) -> str:
        rate, eta = f"{self._rate(now):.0f}/s", self._eta(now)
        if self._listing:
            return f"Scanning: {self._listed} files so far, {self._found} new, {rate}"
        left = "" if eta is None else f", {span(eta)} left"
        return (
            f"Scanning: {self._listed} files listed; of {self._found} new ones {self._handled} are "
            f"dealt with, {rate}{left}"
        )
