"""What stands in the way of moving: said once when it starts and once when it is over."""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Sequence, Set

from watchman.model import Delivery
from watchman.mover.copy import NoRoomError
from watchman.mover.folders import Folders
from watchman.mover.outcome import DirectoryError, RootError
from watchman.text import printable

log = logging.getLogger("watchman.mover")

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
WHOLE = ""
"""The key of a trouble that concerns every file of a MOVES entry."""

SAID_EACH = 5
"""Troubles of one kind that are logged one by one; of more than that only the next says so."""

_CONCERNS_ALL = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# What may be refused because of the directory, and then to all its files; else it is the file's.
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there or raise the quota",
    errno.EROFS: "mount it writable",
    errno.EACCES: "let watchman's user enter and write both directories",
    errno.EPERM: "let watchman's user write both directories (chattr -i)",
    errno.ENOENT: "mount or create it",
    errno.ENOTDIR: "put a real directory there: symlinks below the root are not followed",
    errno.ELOOP: "put a real directory there: symlinks below the root are not followed",
    errno.ENAMETOOLONG: "rename the directory: the destination's file system refuses its name",
    errno.EINVAL: "rename the directory, if the destination's file system refuses its name",
    errno.EILSEQ: "rename the directory: the destination's file system refuses its name",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
    errno.EIO: "look into the kernel's log: the disk may be broken",
    errno.ESTALE: "mount it again",
}
_REMEDIES_FOR_A_FILE = {
    errno.EACCES: "let watchman's user read this file (its owner, mode or ACL)",
    errno.EPERM: "let watchman's user take it away: chattr -i -a, or make that user the owner of "
    "the file or of its sticky directory",
    errno.EINVAL: "rename it, if the destination's file system refuses this name",
    errno.EILSEQ: "rename it: the destination's file system refuses this name",
    errno.ENAMETOOLONG: "rename it: the destination's file system refuses this name",
    errno.EFBIG: "it is larger than the destination's file system allows: move it by hand",
    errno.EBUSY: "the kernel uses it (mounted, or swapped to): let it go",
    errno.ETXTBSY: "the kernel uses it: let it go",
    errno.EALREADY: "see why one of both file systems hangs",
}


class Trouble:
    """One obstacle, from its first occurrence until a move succeeds there."""

    __slots__ = ("delay", "kind", "reason", "retry_at", "said", "since_ns")

    def __init__(self, reason: str, kind: int) -> None:
        self.reason = reason
        self.kind = kind
        """The errno."""
        self.said = False
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
        self._count: Counter[int] = Counter()
        """Active troubles by errno."""
        self._many: set[int] = set()
        """The errnos of which it was said that there are many."""

    def hit(self, key: str, error: OSError) -> Trouble:
        """Take note of an error; it is logged when it is new."""
        trouble = self.active.get(key)
        reason = describe(error, key)
        if trouble is None:
            kind = error.errno or 0
            trouble = self.active[key] = Trouble(reason, kind)
            self._count[kind] += 1
            trouble.said = key == WHOLE or self._count[kind] <= SAID_EACH
            if trouble.said:
                self._say(reason, remedy(error, key))
            elif kind not in self._many:
                self._many.add(kind)
                self._say(
                    f"{os.strerror(kind)} for more than {SAID_EACH} files or directories",
                    "'notify status' counts them, and no more of them are named here",
                )
        trouble.reason = reason
        trouble.back_off(time.monotonic())
        return trouble

    def _say(self, reason: str, what_to_do: str) -> None:
        log.error(
            "Cannot move from %s: %s; %s. Nothing is lost: it is tried again until it works",
            self._names,
            reason,
            what_to_do,
        )

    def hinders(self) -> bool:
        """Say whether there is a trouble that concerns more than single files."""
        return any(not is_of_file(key) for key in self.active)

    def waiting(self, key: str, now: float) -> Trouble | None:
        """Return the trouble of ``key`` while its time for another attempt has not come."""
        trouble = self.active.get(key)
        return trouble if trouble is not None and now < trouble.retry_at else None

    def over(self, key: str) -> bool:
        """Take note of a success; say whether there had been a trouble."""
        trouble = self.active.pop(key, None)
        if trouble is None:
            return False
        self._count[trouble.kind] -= 1
        if not self._count[trouble.kind]:
            self._many.discard(trouble.kind)
        if trouble.said:
            seconds = (time.time_ns() - trouble.since_ns) / 1e9
            reason = trouble.reason
            log.warning("Moving from %s again after %.0f s (%s)", self._names, seconds, reason)
        return True

    def settle(self, moved: Sequence[Delivery], waited_for: Set[str]) -> set[str]:
        """End what a success disproves or no row waits for any more; return the keys."""
        over = {key for row in moved for key in (WHOLE, directories_of(row), file_of(row))}
        over |= self.active.keys() - waited_for
        return {key for key in over if self.over(key)}


def describe(error: OSError, key: str = WHOLE) -> str:
    """Return what went wrong and where, in one printable line."""
    code = error.errno or 0
    what = error.strerror or str(error)
    if isinstance(error, NoRoomError):
        what = f"{os.strerror(code)}, {what}"
    where = os.fsdecode(error.filename) if error.filename else ""
    if key != WHOLE:
        source, final = key.split("\0")[:2]
        if is_of_file(key):
            where = ""
        where = f"{where} between {source} and {final}" if where else f"{source} to {final}"
    return f"{what} ({errno.errorcode.get(code, code)}){': ' if where else ''}{printable(where)}"


def directories_of(row: Delivery) -> str:
    """Return the key for what concerns all files between two directories."""
    return f"{os.path.dirname(row.source)}\0{os.path.dirname(row.final)}"


def file_of(row: Delivery) -> str:
    """Return the key for what concerns this file only."""
    return f"{row.source}\0{row.final}\0"


def is_of_file(key: str) -> bool:
    """Say whether a key is one of :func:`file_of`."""
    return key.endswith("\0") and len(key) > 1


def remedy(error: OSError, key: str) -> str:
    """Return what to do about it."""
    code = error.errno or 0
    if is_of_file(key) and code in _REMEDIES_FOR_A_FILE:
        return _REMEDIES_FOR_A_FILE[code]
    return _REMEDIES.get(code, "see to it")


def key_of(row: Delivery, error: OSError, folders: Folders) -> str:
    """Return the key of the trouble that an error about ``row`` is.

    An error is the file's own, so that one file holds up no other, unless it is proven to be the
    directory's, which could not be opened or must not be written, or everybody's.
    """
    if isinstance(error, NoRoomError):
        return file_of(row)  # smaller ones may have room
    if isinstance(error, RootError) or error.errno in _CONCERNS_ALL or folders.roots_fail():
        return WHOLE
    # A quota is that of the uploader, who owns the copy, or of a directory.
    if isinstance(error, DirectoryError) or error.errno == errno.EDQUOT:
        return directories_of(row)
    if error.errno in _REFUSED and folders.forbids(row):
        return directories_of(row)
    return file_of(row)
