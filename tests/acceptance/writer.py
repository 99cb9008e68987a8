"""A program that uploads plain files: ``python writer.py DIRECTORY FIRST LAST DIRECTORIES``.

It makes the numbered files from FIRST up to and without LAST, spread over DIRECTORIES new or old
directories, one after another, each flushed to the disk as a file server would.
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


def start(root: Path, first: int, last: int, directories: int = 20) -> subprocess.Popen[bytes]:
    """Start uploading in another process."""
    numbers = [str(first), str(last), str(directories)]
    argv = [sys.executable, "-S", "-m", "tests.acceptance.writer", str(root), *numbers]
    return subprocess.Popen(argv, cwd=Path(__file__).parents[2])


def main(root: str, first: int, last: int, directories: int) -> None:
    for number in range(first, last):
        path = os.path.join(root, name_of(number, directories))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content_of(number))
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
