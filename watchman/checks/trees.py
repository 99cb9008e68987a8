"""Looking at a watched tree from outside: how large it is, what it lies on, what can be tested."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from watchman import coverage
from watchman.errors import WatchmanError
from watchman.filesystem import Seen, look
from watchman.model import Watch

_ENOUGH_DIRECTORIES = 1_000_000
_ENOUGH_SECONDS = 10.0


@dataclass
class Tree:
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
    limit: int = _ENOUGH_DIRECTORIES,
    clock: Callable[[], float] = time.monotonic,
) -> Tree:
    """Count the directories that the watch would watch. Symlinks are not followed."""
    tree = Tree()
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
                        followed = coverage.is_followed(watch, at_start=True)
                        if followed and not coverage.is_excluded(watch, entry.path):
                            tree.directories += 1
                            todo.append(entry.path)
                    elif tree.sample is None and entry.is_file(follow_symlinks=False):
                        tree.sample = entry.path
        except OSError:
            tree.unreadable.append(directory)
    return tree


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


def watch_limit(
    file: str = "/proc/sys/fs/inotify/max_user_watches",
    of_namespace: str = "/proc/sys/user/max_inotify_watches",
) -> int | None:
    """Return how many directories this user may watch; None if the kernel does not tell.

    The lower one of two limits: each user's, and that of the user namespace, as in a container.
    """
    limits = [_number(file), _number(of_namespace)]
    return min((limit for limit in limits if limit is not None), default=None)


def missing_instance(wanted: int) -> str | None:
    """Make so many inotify instances, and give them back; say why they cannot be had, or None."""
    from watchman.sources.kernel import Kernel

    made: list[Kernel] = []
    try:
        made += [Kernel() for _ in range(wanted)]
    except WatchmanError as error:
        return f"{error}, or user.max_inotify_instances"
    finally:
        for kernel in made:
            kernel.close()
    return None


def _number(file: str) -> int | None:
    try:
        with open(file, encoding="ascii") as opened:
            return int(opened.read())
    except (OSError, ValueError):
        return None
