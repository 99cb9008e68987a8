"""The one wrapper of an inotify instance: directories are added by descriptor, events come out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyinotify

from watchman.errors import SourceError
from watchman.sources.reader import EventReader, parse
from watchman.text import PATHS

IN_ACCESS: int = pyinotify.IN_ACCESS
IN_ATTRIB: int = pyinotify.IN_ATTRIB
IN_CLOSE_NOWRITE: int = pyinotify.IN_CLOSE_NOWRITE
IN_CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
IN_CREATE: int = pyinotify.IN_CREATE
IN_DELETE: int = pyinotify.IN_DELETE
IN_DELETE_SELF: int = pyinotify.IN_DELETE_SELF
IN_MODIFY: int = pyinotify.IN_MODIFY
IN_MOVED_FROM: int = pyinotify.IN_MOVED_FROM
IN_MOVED_TO: int = pyinotify.IN_MOVED_TO
IN_MOVE_SELF: int = pyinotify.IN_MOVE_SELF
IN_OPEN: int = pyinotify.IN_OPEN
IN_IGNORED: int = pyinotify.IN_IGNORED
IN_UNMOUNT: int = pyinotify.IN_UNMOUNT
IN_Q_OVERFLOW: int = pyinotify.IN_Q_OVERFLOW
IN_ISDIR: int = pyinotify.IN_ISDIR
IN_ONLYDIR: int = pyinotify.IN_ONLYDIR
IN_DONT_FOLLOW: int = pyinotify.IN_DONT_FOLLOW
IN_MASK_ADD: int = pyinotify.IN_MASK_ADD
IN_ONESHOT: int = pyinotify.IN_ONESHOT & 0xFFFFFFFF
ALL_EVENTS: int = pyinotify.ALL_EVENTS

# The two system calls without pyinotify's wrapper: it takes three times as long for each, and
# 50,000 directories are to be watched in half a second.
_libc = ctypes.CDLL(None, use_errno=True)
_add_watch = _libc.inotify_add_watch
_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_rm_watch = _libc.inotify_rm_watch
_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


class Raw(NamedTuple):
    """An event as the kernel tells it."""

    wd: int
    mask: int
    cookie: int
    """The same number in both halves of a rename; else 0."""
    name: str
    """Empty for the watched directory itself."""


def make_event(fields: Mapping[str, Any]) -> Any:
    """Return a ``pyinotify.Event`` with these attributes; it adds ``maskname`` and ``pathname``."""
    return pyinotify.Event(fields)


class Instance:
    """An inotify instance that pyinotify opens, with a thread that empties its queue.

    ``packs`` and ``patient_with`` are those of the :class:`EventReader`. Raises SourceError where
    the kernel gives no more instances.
    """

    def __init__(self, *, packs: bool = False, patient_with: int = 0) -> None:
        try:
            self.descriptor: int = pyinotify.WatchManager().get_fd()
        except OSError as error:
            raise SourceError(
                f"no inotify instance: {error}; raise /proc/sys/fs/inotify/max_user_instances"
            ) from error
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFD)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        self.reader = EventReader(self.descriptor, packs=packs, patient_with=patient_with)

    def start(self) -> None:
        """Begin to read events."""
        self.reader.start()

    def close(self) -> None:
        """Stop reading and give the instance back."""
        # In this order: the number may stand for another file as soon as it is given back.
        self.reader.stop()
        os.close(self.descriptor)

    def add(self, directory: int, mask: int) -> int:
        """Watch the directory that is open as ``directory``; return the watch's number.

        A directory that is watched already keeps its number and gets the new mask. Raises OSError.
        """
        # The descriptor's name in /proc stands for the very directory that was opened: it is
        # plain ASCII, never too long, and cannot be swapped for another.
        return self._add(b"/proc/self/fd/%d" % directory, mask)

    def add_here(self, mask: int) -> int:
        """Watch the working directory: half the time of :meth:`add`. Raises OSError."""
        return self._add(b".", mask)

    def _add(self, path: bytes, mask: int) -> int:
        wd: int = _add_watch(self.descriptor, path, mask)
        if wd < 0:
            code = ctypes.get_errno() or errno.EIO
            raise OSError(code, os.strerror(code))
        return wd

    def listen(self, path: str, mask: int) -> int:
        """Watch the file at ``path``; return the watch's number, -1 if that is not possible."""
        return int(_add_watch(self.descriptor, os.fsencode(path), mask))

    def remove(self, wd: int) -> None:
        """Stop watching; an IN_IGNORED follows unless the kernel has dropped it already."""
        _rm_watch(self.descriptor, wd)

    def wake(self) -> None:
        """Make :meth:`take` return at once."""
        self.reader.wake()

    def take(self, timeout: float | None) -> list[Raw]:
        """Return all events so far, waiting up to ``timeout`` seconds for the first."""
        return _with_names(self.reader.take(timeout))

    def drain(self) -> list[Raw]:
        """Return every event that happened before this call and was not returned yet."""
        return _with_names(self.reader.drain())


def _with_names(chunks: Iterable[bytes]) -> list[Raw]:
    return [
        Raw(wd, mask, cookie, name.rstrip(b"\0").decode(*PATHS))
        for chunk in chunks
        for wd, mask, cookie, name in parse(chunk)
    ]
