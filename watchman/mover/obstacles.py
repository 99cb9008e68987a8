"""What stands in the way of moving: logged once when it starts and once when it is over.

An obstacle has a key that says what it concerns: one file, all files between two directories, or
every file of the MOVES entry. Rows that it concerns wait for the time of its next attempt.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence, Set

from watchman.backoff import Backoff
from watchman.clock import Begun
from watchman.model import Delivery
from watchman.mover.copy import NoRoomError
from watchman.mover.open_directories import OpenDirectories
from watchman.mover.outcomes import DirectoryError, RootError
from watchman.text import printable

log = logging.getLogger("watchman.mover")

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
NAMED = 20
"""Obstacles of single directories and files that the status names one by one."""
WHOLE = ""
"""The key of an obstacle that concerns every file of a MOVES entry."""

LOGGED_EACH = 5
"""Obstacles of one kind that are logged one by one; of more than that only the next says so."""

_CONCERNS_ALL = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# These may be due to the directory, and then concern all files in it, or to the file alone.
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


class Obstacle:
    """One obstacle, from its first occurrence until a move succeeds there."""

    __slots__ = ("backoff", "begun", "code", "logged", "reason", "remedy", "retry_at")

    def __init__(self, reason: str, what_to_do: str, code: int) -> None:
        self.reason = reason
        self.remedy = what_to_do
        self.code = code
        """The errno."""
        self.logged = False
        self.begun = Begun()
        self.backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, jitter=0.4)
        self.retry_at = 0.0
        """When to try again, by the monotonic clock."""

    @property
    def told(self) -> str:
        """What the status says of it."""
        return f"{self.reason}; {self.remedy}"

    def back_off(self, now: float) -> None:
        """Set the time of the next attempt; ``now`` is monotonic."""
        # Once for each attempt, however many rows it was made for.
        if now >= self.retry_at:
            self.retry_at = now + self.backoff.next()


class Obstacles:
    """The obstacles of one MOVES entry, by key.

    Changed by the destination's thread; the copying threads look, and who asks for the status.
    """

    def __init__(self, source: str, root: str) -> None:
        self._names = f"{printable(source)} to {printable(root)}"
        self.active: dict[str, Obstacle] = {}
        self._count: Counter[int] = Counter()
        """Active obstacles by errno."""
        self._many: set[int] = set()
        """The errnos of which it was logged that there are more."""

    def add(self, key: str, error: OSError) -> Obstacle:
        """Take note of an error; it is logged when it is new."""
        obstacle = self.active.get(key)
        reason, what_to_do = describe(error, key), remedy(error, key)
        if obstacle is None:
            code = error.errno or 0
            obstacle = self.active[key] = Obstacle(reason, what_to_do, code)
            self._count[code] += 1
            obstacle.logged = key == WHOLE or self._count[code] <= LOGGED_EACH
            if obstacle.logged:
                self._log(reason, what_to_do)
            elif code not in self._many:
                self._many.add(code)
                self._log(
                    f"{os.strerror(code)} for more than {LOGGED_EACH} files or directories",
                    "'notify status' counts them, and no more of them are named here",
                )
        obstacle.reason, obstacle.remedy = reason, what_to_do
        obstacle.back_off(time.monotonic())
        return obstacle

    def _log(self, reason: str, what_to_do: str) -> None:
        log.error(
            "Cannot move from %s: %s; %s. Nothing is lost: it is tried again until it works",
            self._names,
            reason,
            what_to_do,
        )

    def shown(self, waiting: int) -> tuple[Obstacle | None, tuple[tuple[int, str], ...]]:
        """Return what is in the way of all, and (since_ns, what) for single directories and files.

        Of those the first, and how many more there are: perhaps not all, where so many rows wait.
        """
        active = dict(self.active)
        whole = active.pop(WHOLE, None)
        obstacles = list(active.values())
        shown = [(obstacle.begun.ns, obstacle.told) for obstacle in obstacles[:NAMED]]
        more = obstacles[NAMED:]
        if more:
            number = f"{len(more)} or more" if waiting > len(obstacles) else f"{len(more)} more"
            text = f"and {number} such troubles; mend these first"
            shown.append((more[0].begun.ns, text))
        return whole, tuple(shown)

    def any_beyond_files(self) -> bool:
        """Say whether one of them concerns more than a single file."""
        return any(not is_of_file(key) for key in self.active)

    def blocking(self, key: str, now: float) -> Obstacle | None:
        """Return the obstacle of ``key`` while the time of its next attempt has not come."""
        obstacle = self.active.get(key)
        return obstacle if obstacle is not None and now < obstacle.retry_at else None

    def leave(self, key: str) -> None:
        """Forget what is in the way of a file whose row is not kept in memory: there may be many.

        Not what was logged, since its end is to be logged as well.
        """
        obstacle = self.active.get(key)
        if obstacle is not None and is_of_file(key) and not obstacle.logged:
            self._drop(key)

    def _drop(self, key: str) -> Obstacle | None:
        obstacle = self.active.pop(key, None)
        if obstacle is not None:
            self._count[obstacle.code] -= 1
            if not self._count[obstacle.code]:
                self._many.discard(obstacle.code)
        return obstacle

    def end(self, key: str, *, moved: bool) -> bool:
        """Take note that nothing is in the way any more, or nobody; say whether there had been.

        ``moved``: something was moved there.
        """
        obstacle = self._drop(key)
        if obstacle is None:
            return False
        seconds, reason = obstacle.begun.seconds, obstacle.reason
        if obstacle.logged and moved:
            log.warning("Moving from %s again after %.0f s (%s)", self._names, seconds, reason)
        elif obstacle.logged:
            log.warning("Nothing waits any more for a move from %s (%s)", self._names, reason)
        return True

    def end_disproved(self, moved: Sequence[Delivery], waited_for: Set[str]) -> set[str]:
        """End what a success disproves or no row waits for any more; return the keys."""
        proven = {key for row in moved for key in (WHOLE, directories_of(row), file_of(row))}
        others = self.active.keys() - waited_for - proven
        sources = {row.source for row in moved}  # the final path may be another by now
        proven |= {key for key in others if key.partition("\0")[0] in sources}
        return {key for key in proven | others if self.end(key, moved=key in proven)}


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
    return _REMEDIES.get(code, "look into the kernel's log")


def key_of(row: Delivery, error: OSError, directories: OpenDirectories) -> str:
    """Return the key of the obstacle that an error about ``row`` is.

    An error concerns the file only, so that one file holds up no other, unless it is proven to
    concern the directory, which could not be opened or must not be written, or every file.
    """
    if isinstance(error, NoRoomError):
        return file_of(row)  # smaller ones may have room
    if isinstance(error, RootError) or error.errno in _CONCERNS_ALL or directories.roots_fail():
        return WHOLE
    # A quota is that of the uploader, who owns the copy, or of a directory.
    if isinstance(error, DirectoryError) or error.errno == errno.EDQUOT:
        return directories_of(row)
    if error.errno in _REFUSED and directories.forbids(row):
        return directories_of(row)
    return file_of(row)
