"""The exact events of a watch, as ``pyinotify.Event`` objects, for a processor of the user's own.

A processor gets the events of its watch's mask and those that the kernel never leaves out
(IN_IGNORED, IN_UNMOUNT, IN_Q_OVERFLOW), in the kernel's order. The kernel is asked for more where
that is needed to follow directories; those events go no further.

* ``rec`` and ``auto_add`` mean what they mean in pyinotify's ``add_watch``: watch what is below
  at the start; watch what is made or moved there later. The tuple form has neither, as in the
  system it comes from: it is about the directory itself and what is directly in it.
* A directory is watched before it is listed. What was made in a new one before it was watched is
  told as IN_CREATE and, where nobody is writing any more, IN_CLOSE_WRITE. Of what is inside a
  directory that is moved in nothing is told: nothing happened to it.
* After an overflow the tree is walked again, and the processor gets one IN_Q_OVERFLOW with the
  watch's path; what was lost is not made up.
* Listing a new directory is itself seen as IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE by a watch that
  asks for these.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchman.file_access import Seen, look
from watchman.model import Watch
from watchman.processors.exact_tree import Entry, ExactTree, WatchedDirectory
from watchman.sources import instance as ev
from watchman.sources.at_start import AtStart
from watchman.sources.listener import UnwatchedListener

_ALWAYS = ev.IN_IGNORED | ev.IN_UNMOUNT
_SELF = ev.IN_DELETE_SELF | ev.IN_MOVE_SELF
_CAME = ev.IN_CREATE | ev.IN_MOVED_TO
_MOVED = ev.IN_MOVED_FROM | ev.IN_MOVED_TO
_NAMES = _CAME | ev.IN_MOVED_FROM | ev.IN_DELETE
_CLOSED = (Seen.COMPLETE, Seen.UNTESTED)
_ROOT_LOST = _SELF | ev.IN_UNMOUNT | ev.IN_IGNORED
_HELD = 10_000
"""Events of a directory that is away that are kept; the oldest go first."""
_HALVES = 4096
"""First halves of renames that are kept; the second one of most follows at once, or never."""


class _Half(NamedTuple):
    """The second half of a rename, joined with the first if that was seen."""

    fields: Mapping[str, Any] = {}
    """Attributes that the event has besides."""
    child: WatchedDirectory | None = None
    """The watched directory that was renamed."""
    inside: bool = False
    """It came from within the watch."""


class ExactEvents:
    """The events of one watch. Used from one thread."""

    def __init__(
        self, watch: Watch, listener: UnwatchedListener, at_start: AtStart | None = None
    ) -> None:
        self._watch = watch
        mask = ev.ALL_EVENTS if watch.mask is None else watch.mask
        self._wanted = mask & ev.ALL_EVENTS | _ALWAYS
        self._instance = ev.Instance()
        self._tree = ExactTree(
            watch, self._instance, _kernel_mask(watch, mask), listener, at_start or AtStart()
        )
        self._halves: dict[int, tuple[str, WatchedDirectory | None]] = {}
        """By cookie: the path that was left, and the watched directory that left it."""
        self._pending: deque[ev.Raw] = deque()
        self._ahead: dict[tuple[int, str], int] = {}
        """All that the pending events tell of each (directory, name)."""
        self._coming: Counter[tuple[int, str]] = Counter()
        """How many pending events say that a directory of that name came or left."""
        self._missed: dict[tuple[WatchedDirectory, str], bool] = {}
        """Directories that could not be found under the path known so far."""
        self._out: list[Any] = []
        self._left_at: int | None = None
        """How many events there are up to the one that says that the root is lost, if one does."""
        self.away = False
        """Whether the watch's path is not the directory that is watched."""
        self._held: deque[Any] = deque(maxlen=_HELD)
        """Events while it is away."""
        self.overflows = 0

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._tree.by_wd)

    def start(self) -> None:
        """Read events from now on; return when everything is watched."""
        self._instance.start()
        self._tree.begin(first=True)

    def close(self) -> None:
        """Stop, and give the inotify instance back."""
        self._instance.close()

    def wake(self) -> None:
        """Make :meth:`take` return at once."""
        self._instance.wake()

    def check_root(self) -> None:
        """Look whether the watch's path is the directory that is watched; start over if not."""
        watched, was_away = self._tree.root.wd, self.away
        self.away = not self._tree.check_root()
        if watched != self._tree.root.wd:
            self._held.clear()  # another directory has taken the path
        elif was_away and not self.away:
            self._enter_missed()
            self._instance.wake()  # what was held is to be told now

    def take(self, timeout: float | None) -> list[Any]:
        """Return the events so far, waiting up to ``timeout`` seconds for the first."""
        self._receive(self._instance.take(timeout))
        while self._pending:
            raw = self._pending.popleft()
            if raw.mask & ev.IN_ISDIR and raw.mask & _NAMES:
                self._coming[raw.wd, raw.name] -= 1
            self._handle(raw)
        self._ahead.clear()
        self._coming.clear()
        return self._told()

    def _told(self) -> list[Any]:
        """Return what the processor gets now, and keep what happens while the root is away.

        It happens elsewhere then, unless the directory comes back.
        """
        events, self._out = self._out, []
        there = 0
        if not self.away:
            # It is back since a check of the root; it may have left again since then.
            there = len(self._held) + (self._left_at or 0)
            events = [*self._held, *events]
            self._held.clear()
        root = self._tree.root.wd
        if self._left_at is not None:
            self._left_at = None
            self.check_root()
        if root not in (self._tree.root.wd, -1):
            return events[:there]  # the rest happened in a directory that is no longer watched
        if self.away:
            self._held.extend(events[there:])
            return events[:there]
        events = [*self._held, *events]
        self._held.clear()
        return events

    def _receive(self, events: Sequence[ev.Raw]) -> None:
        self._pending.extend(events)
        if self._watch.auto_add:
            for raw in events:
                key = raw.wd, raw.name
                self._ahead[key] = self._ahead.get(key, 0) | raw.mask
                if raw.mask & ev.IN_ISDIR and raw.mask & _NAMES:
                    self._coming[key] += 1

    def _handle(self, raw: ev.Raw) -> None:
        if raw.mask & ev.IN_Q_OVERFLOW:
            self.overflows += 1
            self._tell(raw.mask, self._watch.path, wd=raw.wd)
            self._missed.clear()
            self._tree.begin(first=False)
            return
        directory = self._tree.by_wd.get(raw.wd)
        if directory is None:
            return
        path = self._tree.path(directory)
        half = self._join(raw, directory) if raw.mask & _MOVED else _Half()
        if raw.mask & self._wanted:
            isdir = bool(raw.mask & (ev.IN_ISDIR | _SELF))
            self._tell(raw.mask, path, raw.name, raw.wd, isdir=isdir, **half.fields)
        if directory is self._tree.root and raw.mask & _ROOT_LOST:
            self._left_at = len(self._out)
        if raw.mask & ev.IN_IGNORED:
            self._tree.dropped(raw.wd)
        elif raw.mask & ev.IN_MOVE_SELF and directory.leaving:
            # Both halves of a rename come before it: this one went where nothing is watched.
            self._tree.forget(directory)
        elif raw.mask & ev.IN_ISDIR and raw.name:
            self._missed.pop((directory, raw.name), None)
            if raw.mask & (ev.IN_MOVED_FROM | ev.IN_DELETE):
                self._tree.gone(directory, raw.name)
            if raw.mask & (ev.IN_MOVED_FROM | ev.IN_DELETE) and raw.name not in directory.children:
                self._tree.left(directory, raw.name, raw.cookie)
            if raw.mask & _CAME:
                self._came(directory, raw, half)

    def _tell(
        self,
        mask: int,
        path: str,
        name: str = "",
        wd: int = -1,
        *,
        isdir: bool = False,
        **more: Any,
    ) -> None:
        fields = {"wd": wd, "mask": mask, "path": path, "name": name, "dir": isdir, **more}
        self._out.append(ev.make_event(fields))

    def _join(self, raw: ev.Raw, directory: WatchedDirectory) -> _Half:
        """Keep the first half of a rename, and find it for the second."""
        if raw.mask & ev.IN_MOVED_FROM:
            child = directory.children.get(raw.name) if raw.mask & ev.IN_ISDIR else None
            if child is not None:
                child.leaving = True
            self._halves[raw.cookie] = (self._tree.path(directory, raw.name), child)
            if len(self._halves) > _HALVES:
                del self._halves[next(iter(self._halves))]
        elif raw.cookie in self._halves:
            source, child = self._halves.pop(raw.cookie)
            return _Half({"cookie": raw.cookie, "src_pathname": source}, child, inside=True)
        return _Half({"cookie": raw.cookie})

    def _came(self, parent: WatchedDirectory, raw: ev.Raw, half: _Half) -> None:
        """Follow a directory that was made, renamed or moved in."""
        if self._tree.excluded(parent, raw.name):
            return  # one that is watched is let go at its IN_MOVE_SELF
        if half.child is not None:
            half.child.settle(parent, raw.name)
            self._enter_missed()
        elif self._watch.auto_add and self._tree.is_new(parent, raw.name, raw.cookie):
            # One that was made here and renamed before it was watched is as good as new.
            made = bool(raw.mask & ev.IN_CREATE) or (half.inside and self._watch.rec)
            self._enter(parent, raw.name, new=made)

    def _enter_missed(self) -> None:
        """Look again for directories that were not where they had to be."""
        missed, self._missed = self._missed, {}
        for (directory, name), new in missed.items():
            self._enter(directory, name, new=new)

    def _enter(self, parent: WatchedDirectory, name: str, *, new: bool) -> None:
        """Watch a directory and all below it; tell what is in it if it was made just now."""
        top = self._attach(parent, name, new=new)
        queue = [] if top is None else [top]
        for directory in queue:  # grows meanwhile
            closed = set()
            left_out: set[str] = set()
            with self._tree.listing(directory) as (descriptor, entries):
                if new:  # what is moved in is new, with all that is in it
                    left_out = self._tree.left_out(directory, descriptor, entries)
                if new and self._wanted & ev.IN_CLOSE_WRITE:
                    closed = {
                        entry.name
                        for entry in entries
                        if entry.is_file and look(entry.name, descriptor).seen in _CLOSED
                    }
            # What happened since the directory is watched is told by the kernel alone.
            self._receive(self._instance.drain())
            for entry in entries:
                if new:
                    self._make_up(directory, entry, closed=entry.name in closed)
                follow = entry.is_dir and entry.name not in left_out
                if follow and not self._tree.excluded(directory, entry.name):
                    child = self._attach(directory, entry.name, new=new)
                    queue += [] if child is None else [child]

    def _attach(self, parent: WatchedDirectory, name: str, *, new: bool) -> WatchedDirectory | None:
        """Have the directory ``name`` watched; return it if it was not watched before."""
        if parent.wd < 0:
            return None
        found = self._tree.add(parent, name)
        self._receive(self._instance.drain())
        if self._coming[parent.wd, name]:
            # What is there now may not be what the event was about: the last one will tell.
            if found is not None:
                self._tree.release(found)
            return None
        if found is None:
            # It is there, for nothing says that it left: under a path that we will learn of.
            self._missed[parent, name] = new
            return None
        known = found.wd in self._tree.by_wd
        directory = self._tree.settle(found, parent, name)
        return None if known else directory

    def _make_up(self, directory: WatchedDirectory, entry: Entry, *, closed: bool) -> None:
        """Tell what the kernel could not: what was there before the directory was watched."""
        name, isdir = entry.name, entry.is_dir
        ahead = self._ahead.get((directory.wd, name), 0)
        path = self._tree.path(directory)
        if self._wanted & ev.IN_CREATE and not ahead & _CAME:
            mask = ev.IN_CREATE | (ev.IN_ISDIR if isdir else 0)
            self._tell(mask, path, name, directory.wd, isdir=isdir)
        if closed and not ahead & (ev.IN_CLOSE_WRITE | ev.IN_MOVED_TO):
            self._tell(ev.IN_CLOSE_WRITE, path, name, directory.wd)


def _kernel_mask(watch: Watch, wanted: int) -> int:
    """Return what the kernel is asked for: what is wanted, and what tells where things are."""
    mask = wanted & ~(ev.IN_DONT_FOLLOW | ev.IN_MASK_ADD) | ev.IN_ONLYDIR
    if mask & ev.IN_ONESHOT:
        return mask
    mask |= ev.IN_MOVE_SELF
    if watch.rec or watch.auto_add:
        mask |= _MOVED
    if watch.auto_add:
        mask |= ev.IN_CREATE | ev.IN_DELETE
    return mask
