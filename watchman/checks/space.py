"""How much room there is where watchman writes: once for each file system."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

from watchman import timelimit
from watchman.checks.result import Check
from watchman.model import Config
from watchman.text import size

NONE_LEFT = 16 << 20
"""Bytes below which a file system counts as full."""
LITTLE = 1 << 30
"""Bytes below which there is a note."""
FEW_FILES = 10_000
"""Files (inodes) below which there is one."""


def check_space(config: Config) -> list[Check]:
    """Say how much is free where STATE_DIR, LOG_DIR and the destinations are.

    A file system that does not answer is left out: other checks tell of it.
    """
    places = [("STATE_DIR", config.state_dir), ("LOG_DIR", config.log_dir)]
    places += [
        (f"moves to {root}", root) for root in dict.fromkeys(root for _, root in config.all_moves)
    ]
    uses: dict[int, list[str]] = {}
    rooms: dict[int, os.statvfs_result] = {}
    for use, path in places:
        there = _existing(path)
        try:
            device, room = timelimit.within(there, functools.partial(_room, there))
        except OSError:
            continue
        uses.setdefault(device, []).append(use)
        rooms[device] = room
    return [_check(uses[device], room) for device, room in rooms.items()]


def _existing(path: str) -> str:
    """Return the path, or the first directory above it that is there."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _room(path: str) -> tuple[int, os.statvfs_result]:
    return os.stat(path).st_dev, os.statvfs(path)


def _check(uses: Iterable[str], room: os.statvfs_result) -> Check:
    subject = f"space for {', '.join(dict.fromkeys(uses))}"
    free = room.f_bavail * room.f_frsize
    detail = f"{size(free)} free of {size(room.f_blocks * room.f_frsize)}"
    # File systems without a fixed number of files (btrfs) say 0 of 0.
    files = room.f_favail if room.f_files else None
    if free < NONE_LEFT or files == 0:
        what = detail if free < NONE_LEFT else "no further file can be made (inodes)"
        return Check(subject, False, what, "make room: nothing is recorded or moved there")
    if free < LITTLE:
        return Check(subject, True, detail, "make room soon")
    if files is not None and files < FEW_FILES:
        return Check(subject, True, f"{detail}, but only {files} files (inodes)", "make room soon")
    return Check(subject, True, detail)
