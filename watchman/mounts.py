"""What kind of file system a path is on."""

from __future__ import annotations

import os
import re

REMOTE = frozenset(
    {
        *("9p", "afs", "autofs", "ceph", "cifs", "davfs", "fuse", "fuse.glusterfs", "fuse.s3fs"),
        *("fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "vboxsf"),
        *("virtiofs", "vmhgfs"),
    }
)
"""Types of file systems that others can write to without a kernel event here."""


def filesystem_type(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that ``path`` is on, such as ``ext4``; "" if unknown.

    See proc_pid_mountinfo(5). Where several are mounted on one point, the last is on top.
    """
    path = os.path.realpath(path).rstrip("/") + "/"
    longest, found = 0, ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = _unescape(left.split(" ")[4]).rstrip("/") + "/"
        if path.startswith(point) and len(point) >= longest:
            longest, found = len(point), right.split(" ")[0]
    return found


def _unescape(text: str) -> str:
    r"""Undo the kernel's octal escapes: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
