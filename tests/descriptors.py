"""A process that has no descriptor left, or many open."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Leave this process none meanwhile: whatever it opens fails with EMFILE."""
    used = max(map(int, os.listdir("/proc/self/fd")))
    with _holding(used + 8) as held:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield


@contextlib.contextmanager
def many_open() -> Iterator[None]:
    """Have what is opened meanwhile get numbers of which select(2) does not take any."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _holding(max(soft, 4096)) as held:
        # Some more: another thread may have closed one meanwhile.
        while sum(number >= 1024 for number in held) < 8:
            held.append(os.open(os.devnull, os.O_RDONLY))
        yield


@contextlib.contextmanager
def _holding(limit: int) -> Iterator[list[int]]:
    """Allow so many descriptors meanwhile; yield a list of those that are closed at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    held: list[int] = []
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
