"""What has to come of uploads: the model of the program tests.

Each upload has a content of its own. Where an outcome depends on who is faster, both are allowed:
what was replaced or removed before it was settled may or may not have been announced or moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from watchman.file_access import version_of
from watchman.model import Version

FORGOTTEN = 20.0
"""Seconds after which watchman may have forgotten what was in a directory that left (LEFT)."""


@dataclass
class _Left:
    """A file in a directory that was renamed away, as it is known at the path it had."""

    version: Version
    arrived: bool
    sure: bool
    at: float
    directory: int
    """The inode number of the directory."""


class Expected:
    """``up`` is watched; ``stage`` is beside it on the same file system.

    ``polled``: no events tell of it. ``ctime_tells``, ``inodes_last``: see ``mounts.Stability``.
    """

    def __init__(
        self,
        up: Path,
        stage: Path,
        *,
        moves: bool,
        polled: bool,
        ctime_tells: bool,
        inodes_last: bool,
    ) -> None:
        self.up, self.stage = up, stage
        self.moves, self.polled = moves, polled
        self.ctime_tells, self.inodes_last = ctime_tells, inodes_last
        self.most: Counter[str] = Counter()
        """Task ids that a path may get at the most since all was settled."""
        self.maybe: Counter[str] = Counter()
        """How many more where a scan takes the place of events."""
        self.arrived: set[str] = set()
        """Paths whose last upload is not settled."""
        self.renumbered = False
        """Files have other inode numbers than those that are known: what comes back with its
        directory cannot be told from what was made anew, and may be announced once more."""
        self.blind = False
        """Events may have been lost since all was settled."""
        self.items: dict[str, bytes] = {}
        """The content's digest at each path, as far as it has not been moved."""
        self.certain: Counter[tuple[str, bytes]] = Counter()
        self.possible: Counter[tuple[str, bytes]] = Counter()
        """With MOVES, how often an upload (path, digest) is in the store: at least, at most."""
        self.somewhere: set[bytes] = set()
        """Contents that were moved from one of two paths."""
        self.held: dict[int, bytes] = {}
        """Descriptors of files that are half written, with what they will hold."""
        self._settled: dict[str, Version] = {}
        """What was there when all was settled last; what has gone since may still be known."""
        self._aside: set[str] = set()
        """Paths whose content was written by another name, of which no event tells."""
        self._left: dict[str, _Left] = {}
        self._silent: set[str] = set()
        """Paths whose ctime was changed without an event there."""
        self._touched: set[str] = set()
        self._opened: set[str] = set()
        """Since all was settled: whose ctime alone was changed; that came back with their directory
        or were opened for writing. Of a file that is in both, the table has it that the look may
        take the one for a proof of the other."""

    # What the checks ask

    def due(self) -> set[str]:
        """Return the paths that must get a task id more than when all was settled."""
        if self.moves:
            return set()
        return {path for path in self.arrived if self._shows(path)}

    def is_as_known(self, path: str, known: Version | None) -> bool:
        """Say whether ``known`` is what is at a path that is due."""
        if path in self._aside:
            return True  # of its newest content it may never hear
        version = version_at(path)
        if version is None or known is None:
            return False
        exact = not (self.blind or self.polled or path in self._silent | self._touched)
        return version[1:] == known[1:] if exact else version[2:4] == known[2:4]

    def limit(self, path: str) -> int:
        """Return how many task ids a path may have got since all was settled."""
        scans = self.blind or self.polled
        return self.most[path] + (path in self._aside) + (self.maybe[path] if scans else 0)

    def there(self) -> dict[str, Version]:
        """Return the files that are in the watch and not held open."""
        held = set(self._held_paths())
        found = {}
        for path in self.up.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and str(path) not in held and not path.name.startswith("mark"):
                    found[str(path)] = version_of(path.lstat())
        return found

    def settle(self) -> None:
        """All is announced and moved that is there."""
        self._settled |= self.there()
        for counter in (self.most, self.maybe):
            counter.clear()
        for paths in (self.arrived, self._touched, self._opened):
            paths.clear()
        self.blind = False
        if self.moves:
            outside = f"{self.stage}/"
            self.items = {path: d for path, d in self.items.items() if path.startswith(outside)}

    def lose_events(self) -> None:
        """What happens about now is found by a scan, perhaps."""
        self.blind = True
        for left in self._left.values():
            left.sure = False

    def _shows(self, path: str) -> bool:
        """Whether what is at a path must have been found."""
        version = version_at(path)
        if version is None or path in self._held_paths():
            return False
        before = self._settled.get(path)
        if not (self.blind or self.polled) or before is None:
            return True
        skipped = 1 if self.inodes_last else 2
        return before[skipped:4] != version[skipped:4]

    def _held_paths(self) -> Iterator[str]:
        for descriptor in self.held:
            yield os.readlink(f"/proc/self/fd/{descriptor}")

    # Book-keeping

    def _arrive(self, path: str, digest: bytes) -> None:
        self.most[path] += 1 + (path in self._aside)
        self.arrived.add(path)
        self._silent.discard(path)
        self._aside.discard(path)
        self._left.pop(path, None)
        self._take_place(os.path.dirname(path))
        self.items[path] = digest
        self.certain[path, digest] += 1
        self.possible[path, digest] += 1

    def _take_place(self, directory: str) -> None:
        """Note that one is there: what was known in another of that name may be forgotten."""
        for path, left in self._left.items():
            if path.startswith(f"{directory}/"):
                here = version_at(os.path.dirname(path))
                left.sure &= here is not None and here.inode == left.directory

    def _lose(self, path: str) -> None:
        """What was at a path is gone or overwritten: it was moved before, or not."""
        digest = self.items.pop(path, None)
        if digest is not None:
            self.certain[path, digest] = 0
            self.somewhere.discard(digest)
        self.arrived.discard(path)

    def _moved(self, path: str) -> None:
        """Nothing is at a path: if something was, it has been moved, or is just now.

        It may be there again: a move can be undone.
        """
        assert self.moves or path not in self.items, f"{path} has gone"

    def _touch_siblings(self, path: str, *, written: bool) -> None:
        """Other names of a file show what was done to it by this one, and get no event."""
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if status.st_nlink < 2:
                return
            for other, version in self.there().items():
                if other != path and version.inode == status.st_ino:
                    self._silent.add(other)
                    self.maybe[other] += 1  # a scan sees its other time
                    if written:
                        self._aside.add(other)
                        self.items[other] = self.items[path]

    def _carry(self, path: str, target: str) -> None:
        """Note that a file went with its directory, or was moved just before or just after."""
        digest, version = self.items[path], version_at(target)
        arrived, silent = path in self.arrived, path in self._silent
        self._lose(path)
        self._silent.discard(path)
        inside = target.startswith(f"{self.up}/")
        if version is None:
            assert self.moves
            self.somewhere.add(digest)
            self.items[target] = digest  # unless a move is undone nothing will be found there
            self.possible[target, digest] += 1
            self.most[target] += 1
            return
        if path.startswith(f"{self.up}/"):
            sure = not (self.blind or self.renumbered or silent or path in self._touched)
            directory = version_of(os.stat(os.path.dirname(target))).inode
            self._left[path] = _Left(version, arrived, sure, time.monotonic(), directory)
        if not inside:
            self.items[target] = digest
            return
        left = self._left.get(target)
        if left is None or left.version[1:] != version[1:]:
            self._arrive(target, digest)
        else:
            self._come_back(target, digest, left)
        if self.moves:
            # A copy that was under way may be placed under the old name, and the source removed.
            self.certain[target, digest] = 0
            self.somewhere.add(digest)
        if silent:
            self._silent.add(target)

    def _come_back(self, path: str, digest: bytes, left: _Left) -> None:
        """The file that is known there is there again; unless that was forgotten meanwhile."""
        del self._left[path]
        self._opened.add(path)
        self.items[path] = digest
        self.certain[path, digest] = 1
        self.maybe[path] += 1
        if left.arrived:
            self.arrived.add(path)
        if not left.sure or time.monotonic() - left.at > FORGOTTEN:
            self.most[path] += 1


def version_at(path: str) -> Version | None:
    try:
        return version_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def digest_of(path: str) -> bytes:
    """Return the digest of a file's content."""
    return digest(Path(path).read_bytes())
