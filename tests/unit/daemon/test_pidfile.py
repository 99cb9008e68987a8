"""A pid file is taken over only from a watchman: PID_FILE may name anything by mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watchman.daemon import pidfile

LEFT = [b"", b"123\n", b"  7", b"-1\n", b"999999999\n", b"\0\0\0\0\0"]
"""What a watchman, or another such program, may have left there; zeros after a power cut."""
FOREIGN = [
    b"a year's work\n" * 100,
    b"garbage\n",
    b"12 13\n",
    b"1_000\n",
    b"1" * 100,
    b"\0" * 10_000,
    b"SQLite format 3\0",
]


@pytest.mark.parametrize("content", LEFT)
def test_what_was_left_is_taken_over_and_removed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pid"
    path.write_bytes(content)
    held = pidfile.claim(str(path))
    assert path.read_bytes() == b"%d\n" % os.getpid()
    held.remove()
    assert not path.exists()
    path.write_bytes(content)
    assert pidfile.clear(str(path)) is True
    assert not path.exists()


@pytest.mark.parametrize("content", FOREIGN)
def test_another_file_is_neither_emptied_nor_removed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pid"
    path.write_bytes(content)
    with pytest.raises(OSError, match="it holds something else than the number of a process"):
        pidfile.claim(str(path))
    assert pidfile.clear(str(path)) is False
    assert path.read_bytes() == content
