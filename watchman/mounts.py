"""What kind of file system a path is on, and when that changes."""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from watchman.model import Method, Watch
from watchman.text import normal_path

MOUNTINFO = "/proc/self/mountinfo"
_DEVICE, _POINT = 2, 4

REMOTE = frozenset(
    {
        *("9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "gfs2"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs"),
        *("prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
    }
)
"""Types of file systems that others can write to without a kernel event here; and ``fuse.*``."""
_LINKS = 40
"""Symlinks that the kernel follows on the way to one path."""

_RENUMBERED = frozenset(
    {
        *("9p", "cifs", "davfs", "exfat", "fuse", "fuseblk", "msdos", "ncpfs", "prl_fs"),
        *("smb2", "smb3", "smbfs", "vboxsf", "vfat", "virtiofs", "vmhgfs"),
    }
)
"""Types that may number their inodes anew with each mount; and ``fuse.*``."""


class Mount(NamedTuple):
    """One line of mountinfo, see proc_pid_mountinfo(5)."""

    id: int
    """Unique as long as it is mounted."""
    type: str
    """Such as ``ext4``."""
    device: int
    """The ``st_dev`` of what is in it (Btrfs has other numbers)."""
    source: str = ""
    """What is mounted, such as ``host:/export``; it may mean nothing."""


class Stability(NamedTuple):
    """What the numbers of a file system are worth, when two looks at a path are compared."""

    inodes_last: bool
    """A file has the same inode number after the next mount."""
    ctime_tells: bool
    """The ctime is kept by this host's kernel or the server's: each write or rename changes it."""


_by_device: dict[int, Stability] = {}
"""What was asked for since something was mounted or unmounted."""


def stability_of(filesystem: str) -> Stability:
    """Return what the numbers of a file system of this type are worth."""
    lasting = not (filesystem in _RENUMBERED or filesystem.startswith("fuse."))
    # Those that number anew and are not remote (vfat …) have their ctimes from the kernel.
    return Stability(lasting, ctime_tells=lasting or not is_remote(filesystem))


def stability(device: int) -> Stability:
    """Return what the numbers of the file system ``device`` (an ``st_dev``) are worth."""
    found = _by_device.get(device)
    if found is None:
        types = {mount.device: mount.type for mount in mounts().values()}
        found = _by_device[device] = stability_of(types.get(device, ""))
    return found


def is_remote(filesystem: str) -> bool:
    """Say whether a file system of this type can change without a kernel event here."""
    return filesystem in REMOTE or filesystem.startswith("fuse.")


def may_hang(filesystem: str) -> bool:
    """Say whether a call into a file system of this type may wait for a program or another host."""
    return is_remote(filesystem) or filesystem == "fuseblk"


def is_polled(watch: Watch) -> bool:
    """Say whether a watch is polled: it says so, or its file system gives no events."""
    if watch.method is Method.AUTO:
        return is_remote(filesystem_type(watch.path))
    return watch.method is Method.POLL


def mounts(path: str = MOUNTINFO) -> dict[str, Mount]:
    """Return what is mounted, by mount point; where several are, the last is on top."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return dict(_parsed(file.read()))
    except OSError:
        return {}


@lru_cache(maxsize=1)
def _parsed(text: str) -> Mapping[str, Mount]:
    """Return what a mountinfo tells: it is asked for often, and seldom another."""
    found: dict[str, Mount] = {}
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        fields = left.split(" ")
        if dash and len(fields) > _POINT:
            major, _, minor = fields[_DEVICE].partition(":")
            device = os.makedev(int(major), int(minor))
            kind, _, rest = right.partition(" ")
            source = _unescape(rest.partition(" ")[0])
            found[_unescape(fields[_POINT])] = Mount(int(fields[0]), kind, device, source)
    return found


def mount_id(path: str) -> int | None:
    """Return the id of the mount that ``path`` lies in; None where the kernel does not tell.

    Two bind mounts of one file system have one device number, and no file can be renamed from
    one to the other (EXDEV). Raises OSError where there is no such path.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("mnt_id:"):
                    return int(line.partition(":")[2])
    except (FileNotFoundError, ValueError):
        return None  # no /proc
    finally:
        os.close(descriptor)
    return None


def trace(path: str, table: dict[str, Mount]) -> tuple[str, str]:
    """Return a path without symlinks, and the first mount on the way to it that may hang.

    "" if none may. Such a file system is not asked for anything: symlinks in it stay as they are.
    """
    rest = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    current, links = "/", 0
    while True:
        mount = table.get(current)
        if mount is not None and may_hang(mount.type):
            return _join(current, rest), current
        if not rest:
            return current, ""
        part = rest.pop()
        if part == "..":
            current = os.path.dirname(current)
            continue
        try:
            target = os.readlink(f"{current.rstrip('/')}/{part}")
        except OSError:  # no symlink, or nothing
            current = f"{current.rstrip('/')}/{part}"
            continue
        links += 1
        if links > _LINKS:
            return _join(current, [*rest, part]), ""
        rest += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        if target.startswith("/"):
            current = "/"


def _join(current: str, rest: list[str]) -> str:
    return normal_path("/".join((current, *reversed(rest))))


def real_path(path: str) -> str:
    """Return a path without symlinks, as far as no file system is asked that may hang."""
    return trace(path, mounts())[0]


def leads_to(point: str, path: str) -> bool:
    """Say whether ``path`` is ``point`` or below it."""
    return f"{path}/".startswith(f"{point.rstrip('/')}/")


def filesystem_type(path: str, mountinfo: str = MOUNTINFO) -> str:
    """Return the type of the file system that ``path`` is on, such as ``ext4``; "" if unknown."""
    table = mounts(mountinfo)
    path = trace(path, table)[0].rstrip("/") + "/"
    longest, found = 0, ""
    for point, mount in table.items():
        prefix = point.rstrip("/") + "/"
        if path.startswith(prefix) and len(prefix) >= longest:
            longest, found = len(prefix), mount.type
    return found


def below(path: str, table: dict[str, Mount]) -> dict[str, Mount]:
    """Return what is mounted below ``path``, by the path as it is spelt there."""
    real = trace(path, table)[0].rstrip("/") + "/"
    prefix = path.rstrip("/") + "/"
    return {
        prefix + point[len(real) :]: mount
        for point, mount in table.items()
        if point.startswith(real) and len(point) > len(real)
    }


class Changes:
    """Tells when something was mounted or unmounted: mountinfo can be polled (proc(5))."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._descriptor = -1
        self._pending = False
        """Whether there was a change of which nobody has been told."""
        self._open()

    def _open(self) -> None:
        with contextlib.suppress(OSError):  # no /proc, or no descriptor is left
            self._descriptor = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._descriptor, select.POLLPRI)

    def any(self) -> bool:
        """Whether there was a change since the last call.

        One is kept until it can be read what it was: the kernel tells of it once.
        """
        if self._descriptor < 0:
            self._open()
            self._pending = self._descriptor >= 0
        self._pending |= bool(self._poll.poll(0))
        if not (self._pending and mounts()):
            return False
        self._pending = False
        _by_device.clear()  # a device's number may be another file system's now
        return True

    def close(self) -> None:
        """Let go of mountinfo."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


class MountTable:
    """What :func:`mounts` returns, read anew only after a change: for who looks at many paths."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._table = mounts()

    def read(self) -> dict[str, Mount]:
        """Return what is mounted now."""
        if self._changes.any():
            self._table = mounts()
        return self._table


def _unescape(text: str) -> str:
    r"""Undo the kernel's octal escapes: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
