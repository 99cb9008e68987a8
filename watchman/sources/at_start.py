"""The directories that a watch with ``auto_add`` and without ``rec`` leaves out.

They were there when the watching began. Events tell where they go; but a walk may see one under its
new name before the events of the rename are read, and none comes to a directory that is not watched
yet. So what a walk finds is compared with what was there by identity, which includes the time when
a directory was made: a name can be taken anew, and so can an inode number. Where the file system
does not keep that time, name and inode number together decide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from watchman.directory_identity import identify
from watchman.model import Version, Watch

_HALVES = 4096
"""First halves of renames that are kept; the second one of most follows at once, or never."""
_NOT_ONE = -1


class AtStart:
    """What was below one watch at its start, and is not watched."""

    def __init__(self) -> None:
        self.watched = False
        """Whether this process has watched a directory of that path, for a processor."""
        self._begun: tuple[int, int] | None = None
        self._inodes: dict[str, dict[str, int]] = {}
        """By the path of the directory that they are in: inode number by name."""
        self._identities: dict[int, Version] = {}
        """By inode number; of those that have left as well, since nothing tells where to."""
        self._moved: dict[int, int] = {}
        """By the cookie of a rename: the inode number of what left its name; _NOT_ONE where it was
        not there at the start."""
        self._moved_in: dict[tuple[str, str], None] = {}
        """Where something came that had no name in the watch, until it is visited."""

    def has_begun(self, identity: tuple[int, int]) -> bool:
        """Say whether the directory of that device and inode is the one that was watched before.

        Where it is another one, all that is remembered is forgotten.
        """
        if identity == self._begun:
            return True
        self._begun = None
        self._inodes.clear()
        self._identities.clear()
        return False

    def begin(self, identity: tuple[int, int] | None) -> None:
        """Note that all that is there at the start has been seen."""
        self._begun = identity

    def note(self, directory: str, name: str, inode: int, descriptor: int) -> None:
        """Remember a directory that is there at the start.

        ``descriptor`` is that of the one that it is in.
        """
        found = _identity(name, descriptor)
        if found is not None:
            self._inodes.setdefault(directory, {})[name] = inode
            self._identities[inode] = found

    def holds(self, directory: str, name: str) -> bool:
        """Say whether the directory of that name was there at the start."""
        return name in self._inodes.get(directory, ())

    def finds(
        self, directory: str, name: str, inode: int, descriptor: int, *, moved_in: bool
    ) -> bool:
        """Say whether a directory that a walk found was there at the start.

        If so it is remembered under this name. ``descriptor`` is that of the directory above it;
        ``moved_in``: that one came from outside the watch.
        """
        identity = self._identities.get(inode)
        named = self._inodes.get(directory, {}).get(name) == inode
        if identity is None or not (named or identity.mtime_ns):
            return False
        found = _identity(name, descriptor)
        return found is not None and self._is_one(directory, name, inode, found, moved_in)

    def has_replaced(self, directory: str, name: str, descriptor: int, *, moved_in: bool) -> bool:
        """Say whether an open directory that is about to be watched was there at the start.

        Then it was renamed over one that is watched, or the two were exchanged (renameat2(2)).
        ``moved_in``: it came from outside the watch.
        """
        try:
            inode = os.fstat(descriptor).st_ino
        except OSError:
            return False
        identity = self._identities.get(inode)
        if identity is None or not identity.mtime_ns:
            return False
        found = _identity("", descriptor)
        return found is not None and self._is_one(directory, name, inode, found, moved_in)

    def _is_one(
        self, directory: str, name: str, inode: int, found: Version, moved_in: bool
    ) -> bool:
        if found != self._identities[inode]:
            return False
        if moved_in:
            del self._identities[inode]  # it left the watch: when it comes back, it is a new one
            return False
        self._inodes.setdefault(directory, {})[name] = inode
        return True

    def has_moved_in(self, directory: str, name: str) -> bool:
        """Say, once, whether what is visited under this name came from outside the watch.

        It is new then, with all that is in it, wherever it was at the start.
        """
        return self._moved_in.pop((directory, name), self) is None

    def left(self, directory: str, name: str, cookie: int) -> None:
        """Note that a directory was removed or renamed; ``cookie`` is that of the rename, or 0."""
        inode = self._inodes.get(directory, {}).pop(name, _NOT_ONE)
        if cookie:
            self._moved[cookie] = inode
            if len(self._moved) > _HALVES:
                del self._moved[next(iter(self._moved))]

    def came(self, directory: str, name: str, cookie: int) -> bool:
        """Say whether a directory that was made or renamed to this name was there at the start.

        ``cookie`` is that of the rename, or 0. To be told in the order of the events.
        """
        self._moved_in.pop((directory, name), None)
        inode = self._moved.pop(cookie, None) if cookie else _NOT_ONE
        if inode is not None and inode != _NOT_ONE:
            self._inodes.setdefault(directory, {})[name] = inode
            return True
        self._inodes.get(directory, {}).pop(name, None)
        if inode is None:
            self._moved_in[directory, name] = None
            if len(self._moved_in) > _HALVES:
                del self._moved_in[next(iter(self._moved_in))]
        return False


class Starts:
    """The starts of all watches; they outlast a reload."""

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str], AtStart] = {}

    def of(self, watch: Watch) -> AtStart:
        """Return that of one watch."""
        return self._starts.setdefault(_key(watch), AtStart())

    def keep(self, watches: Iterable[Watch]) -> None:
        """Forget those of all other watches."""
        kept = set(map(_key, watches))
        self._starts = {key: start for key, start in self._starts.items() if key in kept}


def _key(watch: Watch) -> tuple[str, str]:
    return watch.path, watch.processor_name


def _identity(name: str, descriptor: int) -> Version | None:
    """Return a directory's identity; None where there is none, or nobody can tell."""
    try:
        found = identify(name, descriptor)
    except OSError:
        return None
    return None if found is None else found[0]
