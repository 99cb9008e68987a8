"""One inotify instance, opened through pyinotify, and the calls that change what it watches."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

import pyinotify

from watchman.errors import SourceError

# The two system calls without pyinotify's wrapper: it takes three times as long for each, and
# 50,000 directories are to be watched in half a second.
_libc = ctypes.CDLL(None, use_errno=True)
_add_watch = _libc.inotify_add_watch
_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_rm_watch = _libc.inotify_rm_watch
_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


class Kernel:
    """An inotify instance. Raises SourceError where the kernel gives no more of them."""

    def __init__(self) -> None:
        try:
            self.descriptor: int = pyinotify.WatchManager().get_fd()
        except OSError as error:
            raise SourceError(
                f"no inotify instance: {error}; raise /proc/sys/fs/inotify/max_user_instances"
            ) from error
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFD)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)

    def watch(self, directory: int, mask: int) -> int:
        """Watch the directory that is open as ``directory``; return the watch's number.

        A directory that is watched already keeps its number. Raises OSError.
        """
        # The descriptor's name in /proc stands for the very directory that was opened: it is
        # plain ASCII, never too long, and cannot be swapped for another.
        return self._watch(b"/proc/self/fd/%d" % directory, mask)

    def watch_here(self, mask: int) -> int:
        """Watch the working directory: half the time of :meth:`watch`. Raises OSError."""
        return self._watch(b".", mask)

    def _watch(self, path: bytes, mask: int) -> int:
        wd: int = _add_watch(self.descriptor, path, mask)
        if wd < 0:
            code = ctypes.get_errno() or errno.EIO
            raise OSError(code, os.strerror(code))
        return wd

    def listen(self, path: str, mask: int) -> int:
        """Watch the file at ``path``; return the watch's number, -1 if that is not possible."""
        return int(_add_watch(self.descriptor, os.fsencode(path), mask))

    def forget(self, wd: int) -> None:
        """Stop watching; an IN_IGNORED follows unless the kernel has dropped it already."""
        _rm_watch(self.descriptor, wd)

    def close(self) -> None:
        """Give the instance back."""
        os.close(self.descriptor)
