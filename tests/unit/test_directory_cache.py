"""Directories are kept open for a moment, and never more than so many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman import directory_cache
from watchman.directory_cache import DirectoryCache

GONE = -1


@pytest.fixture
def opened() -> list[str]:
    return []


@pytest.fixture
def directories(opened: list[str]) -> Iterator[DirectoryCache[str]]:
    def open_one(path: str) -> int:
        opened.append(path)
        return os.open(path, os.O_PATH) if os.path.exists(path) else GONE

    with DirectoryCache(open_one) as directories:
        yield directories


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def test_a_directory_is_opened_once(
    directories: DirectoryCache[str], opened: list[str], tmp_path: Path
) -> None:
    path = str(tmp_path)
    assert directories.get(path) == directories.get(path) >= 0
    assert directories.get(path + "/gone") == directories.get(path + "/gone") == GONE
    assert opened == [path, path + "/gone"]


def test_one_that_may_be_another_by_now_is_opened_again(
    directories: DirectoryCache[str],
    opened: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(tmp_path)
    directories.renew()
    directories.get(path)
    monkeypatch.setattr(directory_cache, "LIFETIME", 3600.0)
    directories.renew()
    directories.get(path)
    assert opened == [path]
    monkeypatch.setattr(directory_cache, "LIFETIME", 0.0)
    directories.renew()
    directories.get(path)
    assert opened == [path, path]


def test_they_are_few_and_closed_in_the_end(
    directories: DirectoryCache[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_cache, "MOST", 2)
    first, second = (directories.get(f"{tmp_path}{'/.' * n}") for n in (0, 1))
    assert is_open(first)
    assert is_open(second)
    third = directories.get(f"{tmp_path}/./.")
    assert third in {first, second}  # both were closed, and the lowest number is taken again
    directories.close()
    assert not is_open(first)
    assert not is_open(second)
