"""A second process that scans a large tree ahead of the first walk.

To have 50,000 directories watched takes half a second of system calls, and as much again for what
Python does around them. So the walk assigns siblings to this process, which opens, watches and
lists them and all below them. It does so on the walk's own inotify instance, which survives a fork,
and answers with what it found.

It decides nothing. The walk takes its word only for a directory with nothing but directories in
it, in which nothing was known before, and whose watch is certain to stand for it
(``WatchTable.adopt``). Everything else the walk visits itself, as it does with everything where
there is no such process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from watchman.coverage import Rules
from watchman.file_access import DIRECTORY_FLAGS, PATH_MAX, open_directory, relative_to
from watchman.helper_process import HelperProcess
from watchman.sources.instance import Instance
from watchman.sources.tree import Node
from watchman.sources.watch_table import WatchTable

_PACE = 16
"""Directories that the walk visits between two looks whether there are results."""
_AT_A_TIME = 64
"""Siblings in one message at the most. It begins with one: below it may be a whole tree."""
_UNDER_WAY = 2
"""Messages under way: while one is worked off, the next one is there already."""
_NAMES = 1000
"""Directories in one result."""
_DEPTH = 32
"""Levels below what was assigned that are entered: each keeps a directory open."""
_PATIENCE = 10.0
"""Seconds without an answer after which the process is taken for lost: it hangs in the kernel."""


ScannedDirectory = tuple[int, str, int, bool]
"""One directory of a result, which comes after the one that it is in:

- the position in the result of the directory that it is in; -1 for one that was assigned;
- its name;
- the number of its watch; -1 where it is not watched;
- whether it holds nothing but directories, all of which are in the result.

A plain tuple: thousands of them go through a pipe in one message.
"""


class ScanResult(NamedTuple):
    """What became of siblings that were assigned."""

    assigned: list[Node]
    directories: list[ScannedDirectory]
    """Empty where the process was lost: all are still to be visited."""


class KnownDirectories(Protocol):
    """The journal's word on directories."""

    def knows(self, directory: str) -> bool:
        """Whether anything was ever known in a directory."""
        ...


class Prescan:
    """What the walk sees of it."""

    def __init__(
        self, process: PrescanProcess, watch_table: WatchTable, known: KnownDirectories
    ) -> None:
        self._process = process
        self._watch_table = watch_table
        self._known = known
        self._visits = 0
        # Before anything is assigned, so that no event which contradicts a result is missed.
        watch_table.doubtful = set()

    @property
    def busy(self) -> bool:
        """Whether something is assigned that has no result yet."""
        return self._process.busy

    def is_due(self) -> bool:
        """Say whether it is time to :meth:`go` on; to be asked at each directory."""
        self._visits += 1
        return self._visits % _PACE == 0

    def go(self, queues: Sequence[deque[Node]], *, wait: bool) -> list[Node]:
        """Assign siblings out of ``queues``; return the directories that the walk must visit.

        These come from the results so far. ``wait``: the walk has nothing else to do.
        """
        self._process.assign(queues)
        left: list[Node] = []
        for result in self._process.results(wait=wait):
            left += self._take_over(result)
        return left

    def end(self) -> None:
        """End the process."""
        self._process.end()
        self._watch_table.doubtful = None

    def _take_over(self, result: ScanResult) -> list[Node]:
        """Put a result into the tree; return what the walk must visit."""
        if not result.directories:
            return result.assigned
        assigned = {node.name: node for node in result.assigned}
        directory = result.assigned[0].parent
        assert directory is not None
        prefix = directory.path.rstrip("/")
        adopt, knows = self._watch_table.adopt, self._known.knows
        left: list[Node] = []
        # By position: node and path, where those below it are to be taken over.
        taken: list[tuple[Node, str] | None] = []
        for position, name, wd, done in result.directories:
            taken.append(None)
            if position < 0:
                node, path = assigned[name], f"{prefix}/{name}"
                gone = node.is_left
            else:
                above = taken[position]
                gone = above is None
                if above is not None:
                    node, path = above[0].child(name) or above[0].add(name), f"{above[1]}/{name}"
            if gone:
                # Nobody else knows of the watch: it would last as long as the process.
                self._watch_table.unclaim(wd)
            elif adopt(node, wd) and done and not knows(path):
                node.listed = True
                taken[-1] = (node, path)
            else:
                left.append(node)
        return left


class PrescanProcess:
    """The walk's end of the pipe to it. Used from one thread."""

    def __init__(self, helper: HelperProcess) -> None:
        self._helper = helper
        self._assigned: deque[list[Node]] = deque()
        """What is under way, in the order in which results come."""
        self._most = 1
        """Siblings in the next message at the most."""
        self._lost = False

    @classmethod
    def start(cls, instance: Instance, mask: int, rules: Rules) -> PrescanProcess | None:
        """Fork it; None where that is not possible. ``rules`` say what is not to be entered."""
        helper = HelperProcess.start(
            lambda root, above, names: _Scanner(instance, mask, rules).scan(root, above, names),
            keep=[instance.descriptor],
        )
        return None if helper is None else cls(helper)

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._assigned)

    def assign(self, queues: Iterable[deque[Node]]) -> None:
        """Assign siblings out of the first queue that has more than one, from its end.

        The walk goes on at the other end, and always keeps one for itself.
        """
        if self._lost or len(self._assigned) >= _UNDER_WAY:
            return
        queue = next((queue for queue in queues if len(queue) > 1), None)
        if queue is None:
            return
        siblings = [queue.pop()]
        while (
            len(siblings) < self._most and len(queue) > 1 and queue[-1].parent is siblings[0].parent
        ):
            siblings.append(queue.pop())
        top = siblings[0].root.watch.top
        above = siblings[0].parent
        assert above is not None
        # Before the message is sent: should that fail, they come back as a result without anything.
        self._assigned.append(siblings)
        try:
            self._helper.ask(top, relative_to(top, above.path), [node.name for node in siblings])
        except OSError:
            self._lost = True

    def results(self, *, wait: bool) -> list[ScanResult]:
        """Return the results that have come; with ``wait``, at least one of what is under way."""
        found: list[ScanResult] = []
        while self._assigned and not self._lost:
            timeout = _PATIENCE if wait and not found else 0
            if self._helper.answered(timeout):
                self._receive(found)
            else:
                self._lost = bool(timeout)
                break
        if self._lost:
            found += [ScanResult(siblings, []) for siblings in self._assigned]
            self._assigned.clear()
        return found

    def _receive(self, found: list[ScanResult]) -> None:
        try:
            directories: list[ScannedDirectory] = self._helper.answer()
        except OSError:
            self._lost = True
            return
        found.append(ScanResult(self._assigned.popleft(), directories))
        entered = sum(wd >= 0 for _, _, wd, _ in directories)
        if entered * 2 < len(directories) and self._most > 1:
            self._most //= 2
        elif len(directories) < _NAMES // 4:
            self._most = min(self._most * 2, _AT_A_TIME)
        # Where most directories hold files, the walk has to visit them anyway.
        self._lost = sum(done for _, _, _, done in directories) * 2 < entered

    def end(self) -> None:
        """End the process; what is under way gets no result any more."""
        self._helper.end()


class _Scanner:
    """One scan below siblings, in the process itself, whose working directory is its own."""

    def __init__(self, instance: Instance, mask: int, rules: Rules) -> None:
        self._instance = instance
        self._mask = mask
        self._rules = rules
        self._found: list[ScannedDirectory] = []
        self._names = 0

    def scan(self, root: str, above: str, names: list[str]) -> list[ScannedDirectory]:
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
        return self._found

    def _enter(self, above: int, name: str, path: str, parent: int, depth: int) -> None:
        """Watch and list one directory; whatever goes wrong, the walk will find again."""
        position = len(self._found)
        self._found.append((parent, name, -1, False))
        if depth >= _DEPTH or above < 0:
            return
        try:
            descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
        except OSError:
            return
        try:
            os.fchdir(descriptor)  # needs the right to search, as does whoever looks at files here
            # Watched first, listed then: see sources/walk.py.
            wd = self._instance.add_here(self._mask)
            below = self._directories(descriptor, path)
            self._found[position] = (parent, name, wd, below is not None)
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
                full = f"{path}/{entry.name}"
                if not self._rules.ignored(entry.name, full, directory=True):
                    names.append(entry.name)
        self._names += len(names)
        too_long = len(path) > PATH_MAX // 8
        return None if names and (too_long or self._names > _NAMES) else names
