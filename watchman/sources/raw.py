"""The exact events of a watch, as ``pyinotify.Event`` objects, for a processor of the user's own.

A watch that names a processor has an inotify instance to itself. Its processor gets the events of
its mask and those that the kernel never leaves out (IN_IGNORED, IN_UNMOUNT, IN_Q_OVERFLOW), in
the kernel's order. The kernel is asked for more where that is needed to follow new and renamed
directories; those events go no further.

* ``rec`` and ``auto_add`` mean what they mean in pyinotify's ``add_watch``: watch what is below
  at the start; watch what is made or moved there later. The tuple form has neither, as in the
  system it comes from: it is about the directory itself and what is directly in it.
* A directory is watched before it is listed. What was made in a new one before it was watched is
  told as IN_CREATE and, where nobody is writing any more, IN_CLOSE_WRITE, each once. Of the content of a
  directory that is moved in nothing is told: nothing happened to it.
* After an overflow the tree is walked again and one IN_Q_OVERFLOW is passed on, with the watch's
  path; what was lost is not made up.
* Listing a new directory is itself seen as IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE by a watch that
  asks for these.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from watchman.filesystem import DIRECTORY_FLAGS, Seen, look, open_directory
from watchman.model import Watch
from watchman.sources import instance as ev

Trouble = Callable[[str, "OSError | None"], None]

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_ALWAYS = ev.IN_IGNORED | ev.IN_UNMOUNT | ev.IN_Q_OVERFLOW
_SELF = ev.IN_DELETE_SELF | ev.IN_MOVE_SELF
_CAME = ev.IN_CREATE | ev.IN_MOVED_TO
_MOVED = ev.IN_MOVED_FROM | ev.IN_MOVED_TO
_LISTING = ev.IN_OPEN | ev.IN_ACCESS | ev.IN_CLOSE_NOWRITE
"""What listing a directory causes in the directory itself."""
_MOVES = 4096
"""Renames whose second half is waited for; more than that many never meet theirs."""


class Place:
    """A watched directory."""

    __slots__ = ("children", "leaving", "name", "parent", "wd")

    def __init__(self, name: str, parent: Place | None) -> None:
        self.name = name
        self.parent = parent
        self.children: dict[str, Place] = {}
        self.wd = -1
        self.leaving = False
        """It left its name, and it is not known where to."""

    @property
    def relative(self) -> str:
        """The path below the watch's own; empty for that."""
        names: list[str] = []
        place: Place = self
        while place.parent is not None:
            names.append(place.name)
            place = place.parent
        return "/".join(reversed(names))

    def settle(self, parent: Place, name: str) -> None:
        """Stand under this name from now on."""
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]
        self.parent, self.name, self.leaving = parent, name, False
        parent.children[name] = self


class RawSource:
    """The watched directories of one watch. ``trouble`` is told what cannot be watched."""

    def __init__(self, watch: Watch, trouble: Trouble) -> None:
        self._watch = watch
        self._trouble = trouble
        self._wanted = ev.ALL_EVENTS if watch.mask is None else watch.mask
        self._mask = self._kernel_mask()
        self._instance = ev.Instance()
        self._root = Place("", None)
        self._identity: tuple[int, int] | None = None
        self._places: dict[int, Place] = {}
        self._moving: dict[int, tuple[str, Place | None]] = {}
        self._pending: deque[ev.Raw] = deque()
        self._ahead: dict[tuple[int, str], int] = {}
        """What the pending events say of each (directory, name)."""
        self._out: list[Any] = []
        self._troubled: set[str] = set()
        self.overflows = 0

    def _kernel_mask(self) -> int:
        mask = self._wanted & ~(ev.IN_DONT_FOLLOW | ev.IN_MASK_ADD) | ev.IN_ONLYDIR
        if not mask & ev.IN_ONESHOT:
            mask |= ev.IN_MOVE_SELF
            if self._watch.rec or self._watch.auto_add:
                mask |= _MOVED
            if self._watch.auto_add:
                mask |= ev.IN_CREATE
        return mask

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._places)

    def start(self) -> None:
        """Read events from now on; return when everything is watched."""
        self._instance.start()
        self._begin(first=True)

    def close(self) -> None:
        """Stop, and give the inotify instance back."""
        self._instance.close()

    def wake(self) -> None:
        """Make :meth:`take` return at once."""
        self._instance.wake()

    def take(self, timeout: float | None) -> list[Any]:
        """Return the events so far, waiting up to ``timeout`` seconds for the first."""
        self._pending.extend(self._instance.take(timeout))
        while self._pending:
            self._handle(self._pending.popleft())
        self._ahead.clear()
        events, self._out = self._out, []
        return events

    def check_root(self) -> None:
        """Start over if the watch's path is another directory than the one that is watched."""
        try:
            status = os.stat(self._watch.path)
        except OSError as error:
            if self._identity is not None:
                self._forget(self._root)
            self._identity = None
            self._say(self._watch.path, error)
            return
        if (status.st_dev, status.st_ino) != self._identity:
            self._forget(self._root)
            self._begin(first=True)

    # Events

    def _handle(self, raw: ev.Raw) -> None:
        if raw.mask & ev.IN_Q_OVERFLOW:
            self.overflows += 1
            self._tell(raw.mask, self._watch.path, wd=raw.wd)
            self._begin(first=False)
            return
        place = self._places.get(raw.wd)
        if place is None:
            return
        path = self._path(place)
        moved = self._moved(raw, path, place) if raw.mask & _MOVED else {}
        if raw.mask & (self._wanted & ev.ALL_EVENTS | _ALWAYS):
            isdir = bool(raw.mask & (ev.IN_ISDIR | _SELF))
            self._tell(raw.mask, path, raw.name, raw.wd, isdir=isdir, **moved)
        if raw.mask & ev.IN_IGNORED:
            self._dropped(raw.wd, place)
        elif raw.mask & ev.IN_MOVE_SELF and place.leaving:
            # Both halves of a rename come before it: this one went where nothing is watched.
            self._forget(place)
        elif raw.mask & ev.IN_ISDIR and raw.name and raw.mask & _CAME:
            self._came(place, raw)

    def _tell(
        self, mask: int, path: str, name: str = "", wd: int = -1, *, isdir: bool = False, **more: Any
    ) -> None:
        fields = {"wd": wd, "mask": mask, "path": path, "name": name, "dir": isdir, **more}
        self._out.append(ev.make_event(fields))

    def _moved(self, raw: ev.Raw, path: str, place: Place) -> dict[str, Any]:
        """Join the halves of a rename; return what is to be told besides."""
        more: dict[str, Any] = {"cookie": raw.cookie}
        if raw.mask & ev.IN_MOVED_FROM:
            child = place.children.get(raw.name) if raw.mask & ev.IN_ISDIR else None
            if child is not None:
                child.leaving = True
            self._moving[raw.cookie] = (_join(path, raw.name), child)
            if len(self._moving) > _MOVES:
                del self._moving[next(iter(self._moving))]
        elif raw.cookie in self._moving:
            more["src_pathname"] = self._moving[raw.cookie][0]
        return more

    def _came(self, parent: Place, raw: ev.Raw) -> None:
        """Follow a directory that was made, renamed or moved in."""
        _, mover = self._moving.pop(raw.cookie, ("", None)) if raw.cookie else ("", None)
        if self._excluded(parent, raw.name):
            return  # a directory that is watched leaves the watch with IN_MOVE_SELF
        try:
            descriptor = self._open(parent, raw.name)
        except OSError as error:
            if mover is not None:
                mover.settle(parent, raw.name)
            if error.errno not in _GONE:
                self._say(_join(self._path(parent), raw.name), error)
            return
        try:
            # Only the kernel knows which directory stands there by now: a watched one keeps its
            # number. One that is not watched, where one that is was moved to, came later still,
            # and an event of its own will tell.
            if mover is None and not self._watch.auto_add:
                return
            wd = self._add(descriptor, _join(self._path(parent), raw.name))
            place = self._places.get(wd)
            if place is not None:
                place.settle(parent, raw.name)
            elif wd >= 0 and mover is not None:
                self._instance.remove(wd)
                mover.settle(parent, raw.name)
            elif wd >= 0:
                place = self._place(wd, parent, raw.name)
                self._enter(place, descriptor, new=bool(raw.mask & ev.IN_CREATE))
        finally:
            os.close(descriptor)

    def _dropped(self, wd: int, place: Place) -> None:
        """The kernel watches a directory no longer."""
        del self._places[wd]
        if place.wd == wd:
            place.wd = -1
            if place.parent is not None and place.parent.children.get(place.name) is place:
                del place.parent.children[place.name]

    def _forget(self, top: Place) -> None:
        """Stop watching a directory and all below it."""
        if top.parent is not None and top.parent.children.get(top.name) is top:
            del top.parent.children[top.name]
        pending = [top]
        while pending:
            place = pending.pop()
            pending.extend(place.children.values())
            place.children = {}
            if self._places.pop(place.wd, None) is not None:
                self._instance.remove(place.wd)
            place.wd = -1

    # Directories

    def _begin(self, *, first: bool) -> None:
        """Watch the tree from its top: at the start, or again after events were lost."""
        try:
            descriptor = os.open(self._watch.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self._say(self._watch.path, error)
            return
        try:
            status = os.fstat(descriptor)
            quiet = self._mask & ~_LISTING
            deeper = self._watch.rec if first else self._watch.rec or self._watch.auto_add
            before = dict(self._places)
            wd = self._add(descriptor, self._watch.path, quiet if deeper else self._mask)
            if wd < 0:
                return
            self._identity = (status.st_dev, status.st_ino)
            self._root.wd = wd
            self._places[wd] = self._root
            if deeper:
                self._walk(first=first, before=before, quiet=quiet)
        finally:
            os.close(descriptor)

    def _walk(self, *, first: bool, before: dict[int, Place], quiet: int) -> None:
        """Watch what is below the top, without telling our own listing of it."""
        visited = [self._root]
        for place in visited:  # grows meanwhile
            known, place.children = place.children, {}
            for name in self._names(place):
                # Without auto_add, what was not watched at the start never is.
                if first or self._watch.auto_add or name in known:
                    child = self._visit(place, name, quiet)
                    visited += [child] if child is not None else []
        kept = {place.wd for place in visited}
        for wd, place in before.items():
            if wd not in kept and self._places.get(wd) is place:
                del self._places[wd]
                self._instance.remove(wd)
        if quiet != self._mask:
            for place in reversed(visited):
                self._reopen(place)

    def _visit(self, parent: Place, name: str, quiet: int) -> Place | None:
        try:
            descriptor = self._open(parent, name)
        except OSError as error:
            self._lost(parent, name, error)
            return None
        try:
            wd = self._add(descriptor, _join(self._path(parent), name), quiet)
            return self._place(wd, parent, name) if wd >= 0 else None
        finally:
            os.close(descriptor)

    def _names(self, place: Place) -> list[str]:
        """Return the names of the directories in a place that are to be watched."""
        try:
            descriptor = self._open(place)
        except OSError as error:
            self._lost(place, "", error)
            return []
        try:
            return [
                entry.name
                for entry in self._entries(descriptor)
                if entry.is_dir(follow_symlinks=False) and not self._excluded(place, entry.name)
            ]
        except OSError as error:
            self._lost(place, "", error)
            return []
        finally:
            os.close(descriptor)

    def _reopen(self, place: Place) -> None:
        try:
            descriptor = self._open(place)
        except OSError:
            return  # it left; whatever event told so is on its way
        try:
            if self._instance.add(descriptor, self._mask) != place.wd:
                self._pending.extend(self._instance.drain())
        except OSError as error:
            self._say(self._path(place), error)
        finally:
            os.close(descriptor)
