"""Waiting for a disk that is full or fails: said once, and once when it is over."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from watchman import queued_logging
from watchman.backoff import Backoff
from watchman.clock import Begun
from watchman.errors import JournalError

log = logging.getLogger("watchman.journal")

FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0
"""Seconds between two attempts: an attempt on a full disk costs next to nothing."""
_SLICE = 0.1
"""Seconds between two looks whether to give up."""

# Primary result codes that another attempt can cure, https://www.sqlite.org/rescode.html
_REMEDIES = {
    5: "another process is writing to it: let it finish, or end it",
    8: "make the file and its directory writable",
    10: "see what the kernel says of the disk (dmesg), and raise the limit of file sizes if it "
    "is reached",
    13: "free space there",
    14: "raise the limit of open files, or free space there",
    15: "another process is opening it: let it finish, or end it",
}
_SHORT_READ = 522
"""SQLITE_IOERR_SHORT_READ: the file or its log was cut off."""


class WriteRetry:
    """Decides about errors of one database, with its lock held. As a context: one transaction.

    Whoever waits gets a JournalError once :attr:`give_up` says so; nothing of what it was writing
    is recorded then. Everybody else who writes waits for it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self.give_up: Callable[[], bool] = lambda: False
        """Asked while waiting: whether to stop it. May be set at any time."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called every few seconds while waiting; must not write to the database."""
        self.trouble = ""
        """Why nothing can be written at the moment; empty while it can."""
        self._begun = Begun()
        """Since when, if there is trouble."""

    @property
    def since_ns(self) -> int:
        """Since when, if there is trouble."""
        return self._begun.ns

    def __enter__(self) -> None:
        self._backoff.reset()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.trouble and kind is None:
            seconds = self._begun.seconds
            log.warning("The journal %s can be written again after %.0f s", self._path, seconds)
            self.trouble = ""

    def wait_after(self, error: sqlite3.Error, what: str) -> None:
        """Sleep until another attempt is due, after an error that :func:`can_be_cured`.

        ``what`` cannot be done: it cannot be "written" or "read". Raises JournalError once
        :attr:`give_up` says so.
        """
        if not self.trouble:
            self._begun = Begun()
            self.trouble = f"{error}; {remedy(error)}"
            log.error(
                "The journal %s cannot be %s: %s. Nothing is lost: new files wait where "
                "they are, and it is tried again until it works",
                self._path,
                what,
                self.trouble,
            )
            # The start may be what waits, and must not do so in silence.
            queued_logging.start()
        self._backoff.next()
        self.on_wait()
        self._sleep(error)

    def _sleep(self, error: sqlite3.Error) -> None:
        due = time.monotonic() + self._backoff.delay
        # An event that a signal handler sets could be the one that it has interrupted.
        never = threading.Event()
        while time.monotonic() < due:
            if self.give_up():
                raise JournalError(
                    f"stopped while the journal {self._path} cannot be written: {self.trouble}; "
                    "what was not recorded is found again at the next start"
                ) from error
            never.wait(_SLICE)


def can_be_cured(error: sqlite3.Error) -> bool:
    """Whether another attempt may work; where it reads beyond the file's end, none does."""
    code = _code(error)
    return code & 0xFF in _REMEDIES and code != _SHORT_READ


def remedy(error: sqlite3.Error) -> str:
    """Return what to do about an error that :func:`can_be_cured`."""
    return _REMEDIES[_code(error) & 0xFF]


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's extended result code; Python 3.10 has only the words."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code)
    words = {
        "database is locked": 5,
        "attempt to write a readonly database": 8,
        "disk I/O error": 10,
        "database or disk is full": 13,
        "unable to open database file": 14,
        "locking protocol": 15,
    }
    return words.get(str(error), 1)
