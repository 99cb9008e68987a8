"""Writes small files as an upload server would, from a process of its own.

``python writer.py ROOT FILES DIRECTORIES [RATE [gzip]]``: as fast as one process can, or RATE files
a second; with ``gzip`` what is in them is compressed. Prints one line of JSON at the end: ``begin``
and ``end`` on the system-wide monotonic clock, in seconds. With a rate, ``closed`` holds for each
file when it was closed, in ns.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time

CONTENT = b"a,b\n1,2\n"


def path_of(root: str, number: int, directories: int) -> str:
    """Return the path of a file: one directory after the other, so that each gets its share."""
    return f"{root}/d{number % directories:03d}/f{number:07d}.csv"


def make_directories(root: str, directories: int) -> None:
    """Make the directories that the files go to."""
    for number in range(directories):
        os.makedirs(f"{root}/d{number:03d}", exist_ok=True)


def write(path: str, content: bytes) -> int:
    """Write one new file; return the monotonic time in ns just before it was closed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, content)
    # Before and not behind close(2): the kernel may run the watcher before it comes back to us.
    closing = time.monotonic_ns()
    os.close(descriptor)
    return closing


def main(root: str, count: str, below: str, per_second: str = "0", kind: str = "") -> None:
    """Write the files and say when."""
    files, directories, rate = int(count), int(below), float(per_second)
    content = gzip.compress(CONTENT) if kind == "gzip" else CONTENT
    closed = []
    begin = time.monotonic()
    for number in range(files):
        if rate:
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            closed.append(write(path_of(root, number, directories), content))
        else:
            write(path_of(root, number, directories), content)
    json.dump({"begin": begin, "end": time.monotonic(), "closed": closed}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
