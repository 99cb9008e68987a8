"""The limits of the operating system, in words: what has run out, and what raises it."""

from __future__ import annotations

import contextlib
import errno
import resource
from operator import attrgetter
from typing import NamedTuple

LEAST_DESCRIPTORS = 128
"""Open files without which nothing works: what is always open, and a burst's first directories."""

_PROCESSES = (
    "no further thread or process can be started: {} for all processes of this user (ulimit -u), "
    "{} of address space (ulimit -v); raise them, or TasksMax= and LimitAS= of a systemd unit, or "
    "the limits of the container"
)
_MEMORY = (
    "out of memory: {} of address space are allowed (ulimit -v); raise it, or give the machine or "
    "the container more memory"
)
_DESCRIPTORS = (
    "too many open files: {} are allowed (ulimit -n); raise it to 4096, or LimitNOFILE= of a "
    "systemd unit"
)


def explain(error: BaseException) -> str | None:
    """Say in one line which limit the error, or what caused it, has met; None if none."""
    seen: BaseException | None = error
    while seen is not None:
        words = _explain(seen)
        if words is not None:
            return words
        seen = seen.__cause__ or seen.__context__
    return None


def too_few_descriptors() -> str | None:
    """Say in one line that fewer files may be open than are always needed; None if enough may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_DESCRIPTORS:
        return None
    return _DESCRIPTORS.format(soft)


class KernelLimit(NamedTuple):
    """A limit, and how it is called."""

    setting: str
    """For sysctl(8)."""
    number: int


def watch_limit(proc: str = "/proc/sys") -> KernelLimit | None:
    """Return how many directories this user may watch; None if the kernel does not tell.

    The lower one of two limits: each user's, and that of the user namespace, as in a container.
    """
    return _lower(proc, "fs.inotify.max_user_watches", "user.max_inotify_watches")


def instance_limit() -> KernelLimit | None:
    """Return the same of inotify instances."""
    return _lower("/proc/sys", "fs.inotify.max_user_instances", "user.max_inotify_instances")


def _explain(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    # fork(2) and pthread_create(3) say EAGAIN; Python makes a RuntimeError of the latter.
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _PROCESSES.format(_limit("NPROC"), _limit("AS", "bytes"))
    if isinstance(error, BlockingIOError) and error.filename is None:
        return _PROCESSES.format(_limit("NPROC"), _limit("AS", "bytes"))
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return _MEMORY.format(_limit("AS", "bytes"))
    if number == errno.EMFILE:
        return _DESCRIPTORS.format(_limit("NOFILE"))
    if number == errno.ENFILE:
        return "too many open files on this machine; raise it with sysctl fs.file-max"
    return None


def _limit(name: str, unit: str = "") -> str:
    soft, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    return f"{'any number' if soft == resource.RLIM_INFINITY else soft} {unit}".rstrip()


def _lower(proc: str, *settings: str) -> KernelLimit | None:
    found = []
    for setting in settings:
        path = f"{proc}/{setting.replace('.', '/')}"
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as opened:
            found.append(KernelLimit(setting, int(opened.read())))
    return min(found, key=attrgetter("number"), default=None)
