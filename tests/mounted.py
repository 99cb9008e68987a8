"""File systems that a test mounts, and takes away again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def mount(path: Path, size: str = "8m") -> None:
    """Mount an empty file system of a size; without the right to, the test is skipped."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "watchman-test", str(path)]
    if subprocess.run(argv, check=False).returncode:
        pytest.skip("mounting is not allowed here")


def unmount(path: Path) -> None:
    """Take the file system at a path away, whoever uses it."""
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def mounted(path: Path, size: str = "8m") -> Iterator[Path]:
    """Have an empty file system at a path, which is made."""
    path.mkdir(exist_ok=True)
    mount(path, size)
    try:
        yield path
    finally:
        if os.path.ismount(path):
            unmount(path)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """Have a directory at another path as well, where nothing can be written."""
    place = path.with_name(f"{path.name}-read-only")
    place.mkdir()
    with bound(path, place):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place


@contextlib.contextmanager
def bound(path: Path, place: Path) -> Iterator[Path]:
    """Have a directory at another path as well, ``place``, which is there."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    if subprocess.run(["mount", "--bind", str(path), str(place)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        unmount(place)


def fill(path: Path) -> None:
    """Write a file that leaves not a byte free."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
