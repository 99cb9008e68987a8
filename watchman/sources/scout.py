"""A second process that goes ahead in a large tree, for the time of the first walk.

To have 50,000 directories watched takes half a second of system calls, and as much again for what
Python does around them. So the walk lends siblings to a scout: it opens, watches and lists them and
all below them, on the same inotify instance, which survives a fork, and reports what it found. It
decides nothing: whatever is not an ordinary directory with nothing but directories in it, the walk
visits itself, as it does with everything when there is no scout.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from watchman.companion import Companion
from watchman.filesystem import DIRECTORY_FLAGS, PATH_MAX, open_directory, relative_to
from watchman.sources.kernel import Kernel
from watchman.sources.nodes import Node

_LENT_AT_A_TIME = 64
"""Siblings lent in one message at the most. It begins with one: below it may be a whole tree."""
_UNDER_WAY = 2
"""Messages under way: while one is worked off, the next one is there already."""
_NAMES = 1000
"""Directories in one report."""
_DEPTH = 32
"""Levels below what was lent that the scout enters: each keeps a directory open."""
_PATIENCE = 10.0
"""Seconds without an answer after which the scout is taken for lost: it hangs in the kernel."""


Sight = tuple[int, str, int, bool]
"""One directory of a report, after the one that it is in, as

- the position in the report of the one that it is in; -1 for one that was lent;
- its name;
- the number of its watch; -1 where it is not watched;
- whether it holds nothing but directories, all of which are in the report.
"""


class Report(NamedTuple):
    """What became of siblings that were lent."""

    lent: list[Node]
    sights: list[Sight]
    """Empty where the scout was lost: all is still to be visited."""


class Scout:
    """The walk's end. Used from one thread."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion
        self._lent: deque[list[Node]] = deque()
        self._most = 1
        self._lost = False

    @classmethod
    def send(
        cls, kernel: Kernel, mask: int, ignored: Callable[[str, str, bool], bool]
    ) -> Scout | None:
        """Start a scout; None where there can be none.

        ``ignored(name, above, is_directory)`` says what is not to be entered.
        """
        companion = Companion.start(
            lambda root, above, names: _Survey(kernel, mask, ignored).make(root, above, names),
            keep=[kernel.descriptor],
        )
        return None if companion is None else cls(companion)

    @property
    def busy(self) -> bool:
        """Whether something is lent."""
        return bool(self._lent)

    def lend(self, shelves: Iterable[deque[Node]]) -> None:
        """Lend siblings out of the first shelf that has more than one, from its end."""
        if self._lost or len(self._lent) >= _UNDER_WAY:
            return
        shelf = next((shelf for shelf in shelves if len(shelf) > 1), None)
        if shelf is None:
            return
        lent = [shelf.pop()]
        while len(lent) < self._most and len(shelf) > 1 and shelf[-1].parent is lent[0].parent:
            lent.append(shelf.pop())
        top = lent[0].root.watch.path
        above = lent[0].parent
        assert above is not None
        self._lent.append(lent)
        try:
            self._companion.ask(top, relative_to(top, above.path), [node.name for node in lent])
        except OSError:
            self._lost = True

    def reports(self, *, wait: bool) -> list[Report]:
        """Return what came back; with ``wait``, at least one report of what is lent."""
        found: list[Report] = []
        while self._lent and not self._lost:
            timeout = _PATIENCE if wait and not found else 0
            if self._companion.answered(timeout):
                self._receive(found)
            else:
                self._lost = bool(timeout)
                break
        if self._lost:
            found += [Report(lent, []) for lent in self._lent]
            self._lent.clear()
        return found

    def _receive(self, found: list[Report]) -> None:
        try:
            sights: list[Sight] = self._companion.answer()
        except OSError:
            self._lost = True
            return
        found.append(Report(self._lent.popleft(), sights))
        entered = sum(wd >= 0 for _, _, wd, _ in sights)
        if entered * 2 < len(sights) and self._most > 1:
            self._most //= 2
        elif len(sights) < _NAMES // 4:
            self._most = min(self._most * 2, _LENT_AT_A_TIME)
        # Where most directories hold files, the walk has to visit them anyway.
        self._lost = sum(done for _, _, _, done in sights) * 2 < entered

    def dismiss(self) -> None:
        """End the scout; what is lent is not reported any more."""
        self._companion.end()


class _Survey:
    """One look below siblings, in the scout's own process: its working directory is its own."""

    def __init__(
        self, kernel: Kernel, mask: int, ignored: Callable[[str, str, bool], bool]
    ) -> None:
        self._kernel = kernel
        self._mask = mask
        self._ignored = ignored
        self._sights: list[Sight] = []
        self._names = 0

    def make(self, root: str, above: str, names: list[str]) -> list[Sight]:
        """Enter the directories ``names`` in ``root/above``, and those below as far as allowed."""
        self._names += len(names)
        try:
            descriptor = open_directory(root, above)
        except OSError:
            descriptor = -1
        path = f"{root.rstrip('/')}/{above}" if above else root.rstrip("/")
        for name in names:
            self._enter(descriptor, name, f"{path}/{name}", -1, 0)
        if descriptor >= 0:
            os.close(descriptor)
        return self._sights

    def _enter(self, above: int, name: str, path: str, parent: int, depth: int) -> None:
        """Watch and list one directory; whatever goes wrong, the walk will find again."""
        position = len(self._sights)
        self._sights.append((parent, name, -1, False))
        if depth >= _DEPTH or above < 0:
            return
        try:
            descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
        except OSError:
            return
        try:
            os.fchdir(descriptor)  # needs the right to search, as does whoever looks at files here
            wd = self._kernel.watch_here(self._mask)
            # Watched first, listed then: see sources/tree.py.
            below = self._directories(descriptor, path)
            self._sights[position] = (parent, name, wd, below is not None)
            for name_below in below or ():
                self._enter(descriptor, name_below, f"{path}/{name_below}", position, depth + 1)
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _directories(self, descriptor: int, path: str) -> list[str] | None:
        """Return the directories in one; None where the walk has to see for itself."""
        names = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    return None
                if not self._ignored(entry.name, path, True):
                    names.append(entry.name)
        self._names += len(names)
        too_long = len(path) > PATH_MAX // 8
        return None if names and (too_long or self._names > _NAMES) else names
