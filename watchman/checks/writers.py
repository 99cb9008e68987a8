"""Who has a file open for writing, as far as /proc tells this user."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from watchman.timelimit import Effort

_WORK, _LONG = 0.25, 1.0
"""Seconds of work, and by the clock, after which nobody else is looked at."""


@dataclass(frozen=True)
class Writer:
    """A process that has a file open for writing."""

    pid: int
    command: str
    user: str


def writers_of(status: os.stat_result) -> list[Writer]:
    """Return who has the file of that device and inode open for writing.

    A live memory map without a descriptor is not seen, nor who may not be looked at.
    """
    writers: list[Writer] = []
    effort = Effort(_WORK, _LONG)
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        if effort.spent:
            break
        # It belongs to somebody else, or has ended.
        with contextlib.suppress(OSError):
            if any(_is_open(descriptor, status) for descriptor in _descriptors(name)):
                writers.append(_writer(name))
    return writers


def _descriptors(pid: str) -> Iterator[tuple[str, str]]:
    """Yield a process's descriptors: the pid, and the number."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        yield pid, number


def _is_open(descriptor: tuple[str, str], status: os.stat_result) -> bool:
    pid, number = descriptor
    try:
        found = os.stat(f"/proc/{pid}/fd/{number}")
        if (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino):
            return False
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    except FileNotFoundError:
        return False  # it has just been closed
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def _writer(pid: str) -> Writer:
    command, uid = "", os.stat(f"/proc/{pid}").st_uid
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
        command = os.fsdecode(file.read().strip())
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"uid {uid}"
    return Writer(int(pid), command, user)
