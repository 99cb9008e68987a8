"""The directories that a watch with ``auto_add`` and without ``rec`` leaves out.

They were there when the watching began. A scan tells them from those that came later by name and
inode number together: a name can be taken anew, and an inode number as well.
"""

from __future__ import annotations

from watchman.model import Watch

_HALVES = 4096
"""First halves of renames that are kept; the second one of most follows at once, or never."""


class AtStart:
    """What was below one watch at its start, and is not watched."""

    def __init__(self) -> None:
        self._begun: tuple[int, int] | None = None
        self._inodes: dict[str, dict[str, int]] = {}
        """By the path of the directory that they are in: inode number by name."""
        self._moved: dict[int, int] = {}
        """Inode numbers of those that left their name, by the cookie of the rename."""

    def has_begun(self, identity: tuple[int, int]) -> bool:
        """Say whether the directory of that device and inode is the one that was watched before.

        Where it is another one, all that is remembered is forgotten.
        """
        if identity == self._begun:
            return True
        self._begun = None
        self._inodes.clear()
        return False

    def begin(self, identity: tuple[int, int] | None) -> None:
        """Note that all that is there at the start has been seen."""
        self._begun = identity

    def note(self, directory: str, name: str, inode: int) -> None:
        """Remember a directory that is there at the start."""
        self._inodes.setdefault(directory, {})[name] = inode

    def holds(self, directory: str, name: str, inode: int | None = None) -> bool:
        """Say whether the directory of that name, found by a scan or named by an event, is one."""
        names = self._inodes.get(directory)
        if not names or name not in names:
            return False
        return inode is None or names[name] == inode

    def left(self, directory: str, name: str, cookie: int) -> None:
        """Note that a directory was removed or renamed; ``cookie`` is that of the rename, or 0."""
        inode = self._inodes.get(directory, {}).pop(name, None)
        if inode is not None and cookie:
            self._moved[cookie] = inode
            if len(self._moved) > _HALVES:
                del self._moved[next(iter(self._moved))]

    def came(self, directory: str, name: str, cookie: int) -> bool:
        """Say whether a directory that was made or renamed to this name is one."""
        inode = self._moved.pop(cookie, None) if cookie else None
        if inode is None:
            self._inodes.get(directory, {}).pop(name, None)
            return False
        self.note(directory, name, inode)
        return True


class Starts:
    """The starts of all watches; they outlast a reload."""

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str], AtStart] = {}

    def of(self, watch: Watch) -> AtStart:
        """Return that of one watch."""
        return self._starts.setdefault((watch.path, watch.processor_name), AtStart())
