"""One inotify instance: directories are added by descriptor, whole events come out."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyinotify

from watchman.errors import SourceError
from watchman.sources.reader import Reader

IN_ACCESS: int = pyinotify.IN_ACCESS
IN_CLOSE_NOWRITE: int = pyinotify.IN_CLOSE_NOWRITE
IN_CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
IN_CREATE: int = pyinotify.IN_CREATE
IN_DELETE: int = pyinotify.IN_DELETE
IN_DELETE_SELF: int = pyinotify.IN_DELETE_SELF
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

_EVENT = struct.Struct("iIII")


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
    """An inotify instance, with a thread that empties its queue. Raises SourceError."""

    def __init__(self) -> None:
        self._syscalls = pyinotify.INotifyWrapper.create()
        self._descriptor = self._syscalls.inotify_init()
        if self._descriptor < 0:
            raise SourceError(
                f"no inotify instance: {self._syscalls.str_errno()}; raise "
                "/proc/sys/fs/inotify/max_user_instances"
            )
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFD)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        self._reader = Reader(self._descriptor)

    def start(self) -> None:
        """Begin to read events."""
        self._reader.start()

    def close(self) -> None:
        """Stop reading and give the instance back."""
        self._reader.stop()
        os.close(self._descriptor)

    def add(self, descriptor: int, mask: int) -> int:
        """Watch the directory that is open as ``descriptor``; return its number.

        A directory that is watched already keeps its number and gets the new mask. Raises OSError.
        """
        # The name in /proc stands for the very directory that was opened.
        path = f"/proc/self/fd/{descriptor}"
        wd: int = self._syscalls.inotify_add_watch(self._descriptor, path, mask)
        if wd < 0:
            code = self._syscalls.get_errno() or errno.EIO
            raise OSError(code, os.strerror(code))
        return wd

    def remove(self, wd: int) -> None:
        """Stop watching; an IN_IGNORED follows unless the kernel has dropped it already."""
        self._syscalls.inotify_rm_watch(self._descriptor, wd)

    def wake(self) -> None:
        """Make :meth:`take` return at once."""
        self._reader.wake()

    def take(self, timeout: float | None) -> list[Raw]:
        """Return all events so far, waiting up to ``timeout`` seconds for the first."""
        return _parse(self._reader.take(timeout))

    def drain(self) -> list[Raw]:
        """Return every event that happened before this call and was not returned yet."""
        return _parse(self._reader.drain())


def _parse(chunks: Iterable[bytes]) -> list[Raw]:
    events = []
    for chunk in chunks:
        offset = 0
        while offset < len(chunk):
            wd, mask, cookie, length = _EVENT.unpack_from(chunk, offset)
            offset += _EVENT.size
            name = os.fsdecode(chunk[offset : offset + length].rstrip(b"\0"))
            events.append(Raw(wd, mask, cookie, name))
            offset += length
    return events
