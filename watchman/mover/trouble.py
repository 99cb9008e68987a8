"""What stands in the way of moving: said once when it starts and once when it is over."""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Sequence, Set

from watchman.model import Delivery
from watchman.mover.copy import NoRoomError
from watchman.mover.folders import RootError
from watchman.text import printable

log = logging.getLogger("watchman.mover")

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
WHOLE = ""
"""The key of a trouble that concerns every file of a MOVES entry."""

_CONCERNS_ALL = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
        errno.ENODEV,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)
_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there or raise the quota",
    errno.EROFS: "mount it writable",
    errno.EACCES: "let watchman's user enter and write both directories",
    errno.EPERM: "let watchman's user rename files in both directories (owner, sticky bit, chattr)",
    errno.ENOENT: "mount or create it",
    errno.ENOTDIR: "put a real directory there: symlinks below the root are not followed",
    errno.ELOOP: "put a real directory there: symlinks below the root are not followed",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
    errno.EINVAL: "check that the file system allows this name, and renames without replacing",
}


class Trouble:
    """One obstacle, from its first occurrence until a move succeeds there."""

    __slots__ = ("delay", "reason", "retry_at", "since_ns")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.since_ns = time.time_ns()
        self.delay = 0.0
        self.retry_at = 0.0

    def back_off(self, now: float) -> None:
        """Set the time of the next attempt, with jitter; ``now`` is monotonic."""
        if now < self.retry_at:
            return
        self.delay = min(LONGEST_DELAY, self.delay * 2 or FIRST_DELAY)
        # Jitter keeps several destinations on one server from knocking at the same time.
        self.retry_at = now + self.delay * random.uniform(0.8, 1.2)  # noqa: S311 — no secret


class Troubles:
    """The obstacles of one MOVES entry, by what they concern. Used from its lane's thread."""

    def __init__(self, source: str, root: str) -> None:
        self._names = f"{printable(source)} to {printable(root)}"
        self.active: dict[str, Trouble] = {}

    def hit(self, key: str, error: OSError) -> Trouble:
        """Take note of an error; it is logged when it is new."""
        trouble = self.active.get(key)
        reason = describe(error, key)
        if trouble is None:
            trouble = self.active[key] = Trouble(reason)
            log.error(
                "Cannot move from %s: %s; %s. Nothing is lost: it is tried again until it works",
                self._names,
                reason,
                _REMEDIES.get(error.errno or 0, "see to it"),
            )
        trouble.reason = reason
        trouble.back_off(time.monotonic())
        return trouble

    def waiting(self, key: str, now: float) -> Trouble | None:
        """Return the trouble of ``key`` while its time for another attempt has not come."""
        trouble = self.active.get(key)
        return trouble if trouble is not None and now < trouble.retry_at else None

    def over(self, key: str) -> bool:
        """Take note of a success; say whether there had been a trouble."""
        trouble = self.active.pop(key, None)
        if trouble is None:
            return False
        seconds = (time.time_ns() - trouble.since_ns) / 1e9
        log.warning("Moving from %s again after %.0f s (%s)", self._names, seconds, trouble.reason)
        return True

    def settle(self, moved: Sequence[Delivery], waited_for: Set[str]) -> list[str]:
        """End what a success disproves or no row waits for any more; return the keys."""
        over = {key for row in moved for key in (WHOLE, directories_of(row), file_of(row))}
        over |= self.active.keys() - waited_for
        return [key for key in over if self.over(key)]


def describe(error: OSError, key: str = WHOLE) -> str:
    """Return what went wrong and where, in one printable line."""
    code = error.errno or 0
    what = error.strerror or str(error)
    if isinstance(error, NoRoomError):
        what = f"{os.strerror(code)}, {what}"
    where = os.fsdecode(error.filename) if error.filename else ""
    if key != WHOLE:
        source, final = key.split("\0")
        where = f"{where} between {source} and {final}" if where else f"{source} to {final}"
    return f"{what} ({errno.errorcode.get(code, code)}){': ' if where else ''}{printable(where)}"


def concerns_all(error: OSError) -> bool:
    """Say whether the other files of the MOVES entry would meet the same error."""
    if isinstance(error, NoRoomError):
        return False
    return isinstance(error, RootError) or error.errno in _CONCERNS_ALL


def directories_of(row: Delivery) -> str:
    """Return the key for what an error about one file most likely concerns."""
    return f"{os.path.dirname(row.source)}\0{os.path.dirname(row.final)}"


def file_of(row: Delivery) -> str:
    """Return the key for what concerns this file only."""
    return f"{row.source}\0{row.final}"


def key_of(row: Delivery, error: OSError) -> str:
    """Return the key of the trouble that an error about ``row`` is."""
    if concerns_all(error):
        return WHOLE
    return file_of(row) if isinstance(error, NoRoomError) else directories_of(row)
