"""A program that uploads plain files: ``python writer.py DIRECTORY FIRST LAST DIRECTORIES HELD``.

It makes the numbered files from FIRST up to and without LAST, spread over DIRECTORIES new or old
directories, one after another, each flushed to the disk as a file server would. Before the last
HELD of them it waits for the end of its input, so that what a test does meanwhile comes between.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def name_of(number: int, directories: int) -> str:
    """Return the relative path of a numbered file."""
    return f"dir{number % directories}/{number:05d}.nc"


def content_of(number: int) -> bytes:
    """Return what is in a numbered file."""
    return b"%d\n" % number * (1 + number % 3)


def start(
    root: Path, first: int, last: int, directories: int = 20, held: int = 0
) -> subprocess.Popen[bytes]:
    """Start uploading in another process, all but the last ``held`` files."""
    numbers = map(str, (first, last, directories, held))
    argv = [sys.executable, "-S", "-m", "tests.acceptance.writer", str(root), *numbers]
    return subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE)


def finish(writing: subprocess.Popen[bytes]) -> None:
    """Have it upload what is held back, and wait for its end."""
    writing.communicate(timeout=60)
    assert writing.returncode == 0


def main(root: str, first: int, last: int, directories: int, held: int) -> None:
    for number in range(first, last):
        if number == last - held:
            sys.stdin.read()
        path = os.path.join(root, name_of(number, directories))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content_of(number))
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
