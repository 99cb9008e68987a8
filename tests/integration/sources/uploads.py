"""What uploaders do, as programs and as calls that Python lacks; and waiting for what arrives."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.running import Remembering
from tests.waiting import wait_until
from watchman.pipeline import CLOCK_GRAIN_NS

RENAME_EXCHANGE = 2
LONG = bool(os.environ.get("WATCHMAN_LONG"))
"""Whether the long forms of the tests are asked for."""

BURST = """\
import os, sys
root, directories, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for n in range(directories):
    os.mkdir(f"{root}/d{n}")
for n in range(files):
    descriptor = os.open(f"{root}/d{n % directories}/f{n}", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    os.close(descriptor)
"""


def program(text: str, *arguments: str | Path) -> list[str]:
    """Return the command line of a Python program."""
    return [sys.executable, "-c", text, *map(str, arguments)]


def burst(root: Path, directories: int, files: int) -> None:
    """Write small files as fast as one process can."""
    subprocess.run(program(BURST, root, str(directories), str(files)), check=True, timeout=300)


def exchange(one: Path, other: Path) -> None:
    """Swap two directories in one instant, renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    done = libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), RENAME_EXCHANGE)
    assert done == 0, os.strerror(ctypes.get_errno())


def link_unnamed(descriptor: int, path: Path) -> None:
    """Give a file made with O_TMPFILE its name, linkat(2)."""
    # With a directory descriptor Python calls linkat(2), which can follow the link in /proc.
    proc = os.open("/proc/self/fd", os.O_PATH)
    os.link(str(descriptor), path, src_dir_fd=proc, follow_symlinks=True)
    os.close(proc)


def age(*paths: Path) -> None:
    """Wait until files count as older than a run that starts now, by their change time."""
    newest = max(path.stat().st_ctime_ns for path in paths)
    wait_until(lambda: time.time_ns() - newest > 2 * CLOCK_GRAIN_NS, what="the files age")


def arrive(sent: Remembering, paths: Iterable[Path | str], timeout: float = 20.0) -> None:
    """Wait until each path was sent; none is missing, none is doubled, and nothing else came."""
    expected = Counter(map(str, paths))
    count = expected.total()
    try:
        wait_until(lambda: len(sent.messages) >= count, timeout, f"{count} tasks")
    except AssertionError as error:
        missing = expected - Counter(sent.paths)
        raise AssertionError(f"{missing.total()} missing, such as {[*missing][:3]}") from error
    found = Counter(sent.paths)
    assert found == expected, (f"too many: {[*(found - expected)][:3]}", [*(expected - found)][:3])


def arrive_at_least(sent: Remembering, paths: Iterable[Path | str], timeout: float = 20.0) -> None:
    """Wait until each path was sent, once or more, for what is there more than once."""
    expected = set(map(str, paths))
    wait_until(lambda: expected <= set(sent.paths), timeout, f"{len(expected)} paths")


def await_count(sent: Remembering, count: int) -> None:
    """Wait until so many tasks were sent; not one more."""
    wait_until(lambda: len(sent.messages) >= count, 20, f"{count} tasks")
    assert len(sent.messages) == count
