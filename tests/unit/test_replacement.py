"""A file is replaced whole, and what a killed process left of that goes away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from watchman.replacement import remove_left, replace


def test_it_is_replaced_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "file.prom"
    before = os.umask(0o077)
    try:
        replace(str(file), b"one", 0o644)
        replace(str(file), b"two", 0o644)
    finally:
        os.umask(before)
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == [file.name]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        replace(str(tmp_path / "taken"), b"words")
    assert os.listdir(tmp_path) == ["taken"]


def test_what_was_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "file")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # As SIGKILL does it: nobody cleans up.
        patch.setattr(os, "replace", die)
        patch.setattr(os, "unlink", die)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                replace(file, b"words")
    old, new = os.listdir(tmp_path)
    long_ago = time.time() - 3600
    os.utime(tmp_path / old, (long_ago, long_ago))
    others = {
        ".file.longer.0123456789abcdef.new",
        ".file.old",
        ".other.0123456789abcdef.new",
        "file",
    }
    for name in others:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (long_ago, long_ago))
    remove_left(file)
    # The young one may be somebody's who is at it.
    assert set(os.listdir(tmp_path)) == {new, *others}
    remove_left(str(tmp_path / "nowhere" / "file"))
