"""Looking at a watched tree from outside: how large it is, what it lies on, what can be tested."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from watchman import coverage
from watchman.errors import WatchmanError
from watchman.file_access import Seen, look
from watchman.model import Watch

_ENOUGH_DIRECTORIES = 1_000_000
_ENOUGH_SECONDS = 10.0


@dataclass
class TreeSize:
    """What a walk through a watched directory found."""

    directories: int = 1
    unreadable: list[str] = field(default_factory=list)
    """Directories that cannot be listed: nothing in them would be seen."""
    sample: str | None = None
    """A regular file, to try the lease test on."""
    whole: bool = True
    """False if the walk was ended early because of the tree's size."""


def walk(
    watch: Watch,
    rules: coverage.Rules,
    limit: int = _ENOUGH_DIRECTORIES,
    clock: Callable[[], float] = time.monotonic,
) -> TreeSize:
    """Count the directories that the watch would watch. Symlinks are not followed."""
    tree = TreeSize()
    deadline = clock() + _ENOUGH_SECONDS
    todo = [watch.path]
    while todo:
        if tree.directories > limit or clock() > deadline:
            tree.whole = False
            break
        directory = todo.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if _is_watched(watch, entry.path, rules):
                            tree.directories += 1
                            todo.append(entry.path)
                    elif tree.sample is None and entry.is_file(follow_symlinks=False):
                        tree.sample = entry.path
        except OSError:
            tree.unreadable.append(directory)
    return tree


def _is_watched(watch: Watch, directory: str, rules: coverage.Rules) -> bool:
    """Say whether a directory that is below the watch at a start is watched."""
    if not coverage.is_followed(watch, at_start=True):
        return False
    if watch.processor is not None:  # it gets all events, whatever IGNORE says
        return not coverage.is_excluded(watch, directory)
    if coverage.directory_left_out(watch, directory, rules) is not None:
        return False
    # What is announced as a whole is not watched itself.
    return not coverage.is_of_units(watch) or not rules.is_wanted(directory)


def lease_test(sample: str) -> bool:
    """Say whether the kernel tells us if that file is open for writing (model: "lease test")."""
    try:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    except ValueError:
        # Not the main thread: whoever runs us there ignores SIGIO, as the service does.
        before = None
    try:
        return look_at(sample) is not Seen.UNTESTED
    finally:
        if before is not None:
            signal.signal(signal.SIGIO, before)


def look_at(path: str) -> Seen:
    """Look at the entry as the service would."""
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return look(name, descriptor).seen
    finally:
        os.close(descriptor)


def watches_of_others(own: frozenset[int], proc: str = "/proc") -> int:
    """Count the directories and files that other processes of this user watch by inotify.

    They count against the same limit. ``own`` are processes that are left out, with their
    children. What cannot be read is left out, and after some seconds the rest.
    """
    count = 0
    deadline = time.monotonic() + _ENOUGH_SECONDS / 5
    with contextlib.suppress(OSError):
        for name in filter(str.isdecimal, os.listdir(proc)):
            if time.monotonic() > deadline:
                break
            directory = f"{proc}/{name}"
            with contextlib.suppress(OSError):
                if os.stat(directory).st_uid == os.geteuid() and not _is_of(own, directory, name):
                    count += _watches_of(directory)
    return count


def _is_of(own: frozenset[int], directory: str, name: str) -> bool:
    with open(f"{directory}/stat", "rb") as file:
        parent = int(file.read().rpartition(b")")[2].split()[1])
    return not own.isdisjoint({int(name), parent})


def _watches_of(process: str) -> int:
    count = 0
    for number in os.listdir(f"{process}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"{process}/fd/{number}") == "anon_inode:inotify":
                with open(f"{process}/fdinfo/{number}", "rb") as file:
                    count += sum(line.startswith(b"inotify ") for line in file)
    return count


def missing_instance(wanted: int) -> str | None:
    """Make so many inotify instances, and give them back; say why they cannot be had, or None."""
    from watchman.sources.instance import Instance

    made: list[Instance] = []
    try:
        made += [Instance() for _ in range(wanted)]
    except WatchmanError as error:
        return f"{error}, or user.max_inotify_instances"
    finally:
        for instance in made:
            instance.close()
    return None
