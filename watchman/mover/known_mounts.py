"""The mounts that lead to a destination, or lie in it, remembered once they have been seen.

Behind the mount point of a share that was unmounted lies an ordinary directory, and files that are
moved into it are hidden as soon as the share is back. While nothing is mounted there, nothing is
moved through it. Whatever is mounted there next is taken: a disk that was replaced is the
operator's doing, and so is a destination that is a symlink to somewhere else by now. Who takes a
mount away for good restarts watchman. What was never mounted while watchman ran cannot be missed:
there it helps to make the mount point itself immutable.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable

from watchman.mounts import Changes, leads_to, mounts
from watchman.mover.outcomes import DirectoryError, RootError
from watchman.text import printable


class KnownMounts:
    """The mounts that one destination root needs. For any thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._real = root
        """The root without symlinks."""
        self._lock = threading.Lock()
        self._changes = Changes()
        self._looked = False
        self._identity = (0, 0)
        """Device and inode of the root when it was looked at last."""
        self._points: set[str] = set()
        """All mount points seen so far."""
        self._missing: tuple[str, ...] = ()
        """Those of them where nothing is mounted now and that the root still needs."""

    def look(self, root: os.stat_result | None = None) -> None:
        """Remember what is mounted; costs next to nothing where nothing has changed.

        ``root`` is the stat result of the opened root: it may be a symlink to elsewhere by now.
        """
        with self._lock:
            identity = (root.st_dev, root.st_ino) if root else self._identity
            if not self._looked or self._changes.any() or identity != self._identity:
                self._looked = True
                self._identity = identity
                self._look()

    def points(self) -> list[str]:
        """Return the mount points seen so far."""
        with self._lock:
            return sorted(self._points)

    def expect(self, points: Iterable[str]) -> None:
        """Take over what another process has seen."""
        with self._lock:
            if not self._points.issuperset(points):
                self._points.update(points)
                self._looked = False

    def refuse_unmounted(self, relative: str) -> None:
        """Raise RootError or DirectoryError where ``relative`` lies behind a mount that is gone.

        Call it when ``relative``, a path below the root, or what it is to be made in is open: its
        mount cannot go before that is closed.
        """
        self.look()
        path = f"{self._real.rstrip('/')}/{relative}".rstrip("/")
        for point in self._missing:
            if leads_to(point, path):
                reason = (
                    f"nothing is mounted at {printable(point)} any more: mount it again, or "
                    "restart watchman to use what is there now"
                )
                if leads_to(point, self._real):
                    raise RootError(errno.ESTALE, reason, self._root)
                raise DirectoryError(errno.ESTALE, reason, point)

    def _look(self) -> None:
        table = mounts()
        if not table:
            return  # no /proc: nothing can be told
        self._real = real = os.path.realpath(self._root)
        concerned = {p for p in table if leads_to(p, real) or leads_to(real, p)}
        self._points |= concerned
        self._missing = tuple(
            point
            for point in sorted(self._points - table.keys())
            if leads_to(point, real) or leads_to(real, point)
        )


_known: dict[str, KnownMounts] = {}
_known_lock = threading.Lock()


def known_mounts(root: str) -> KnownMounts:
    """Return what this process knows of a destination root: a reload must not forget it."""
    with _known_lock:
        if root not in _known:
            _known[root] = KnownMounts(root)
        return _known[root]
