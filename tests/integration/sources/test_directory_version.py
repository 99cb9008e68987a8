"""What tells directories apart, and what a walk below one sees."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman.directory_identity import birth_ns, identify
from watchman.sources.directory_version import walk_inside


@pytest.fixture
def above(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the directory that holds the one under test."""
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_an_identity_survives_changes_inside(tmp_path: Path, above: int) -> None:
    (tmp_path / "a").mkdir()
    before = identify("a", above)
    assert before is not None
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "a").chmod(0o700)
    os.utime(tmp_path / "a", (1, 1))
    after = identify("a", above)
    assert after is not None
    assert after[0] == before[0]
    assert before[0].size == 0


@needs_fuse
def test_an_identity_fits_into_64_bits_with_a_sign(tmp_path: Path) -> None:
    """As SQLite takes it; other inode numbers give other identities."""
    with FuseServer(tmp_path / "fuse") as server:
        (server.point / "a").mkdir()
        above = os.open(server.point, os.O_PATH | os.O_DIRECTORY)
        found = []
        try:
            for inode in (1 << 63, (1 << 64) - 1, (1 << 63) - 1):
                server.claim(server.point / "a", inode=inode, birth_ns=(1 << 62) * 10**9)
                identity = identify("a", above)
                assert identity is not None
                found.append((identity[0].inode, identity[0].mtime_ns))
        finally:
            os.close(above)
    assert found == [(number, (1 << 63) - 1) for number in (-(1 << 63), -1, (1 << 63) - 1)]


def test_only_directories_have_one(tmp_path: Path, above: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/tmp")
    assert [identify(name, above) for name in ("file", "link", "nothing")] == [None] * 3
    assert birth_ns("nothing", above) == 0


def test_an_empty_name_is_the_directory_itself(tmp_path: Path, above: int) -> None:
    (tmp_path / "a").mkdir()
    inside = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert identify("", inside) == identify("a", above) is not None
    finally:
        os.close(inside)


def test_birth_is_when_it_was_made(tmp_path: Path, above: int) -> None:
    (tmp_path / "b\udcff").mkdir()
    birth = birth_ns("b\udcff", above)
    if not birth:
        pytest.skip("this file system keeps no birth time")
    assert birth == (tmp_path / "b\udcff").stat().st_ctime_ns


@pytest.mark.parametrize(
    "change",
    [
        lambda deep: (deep / "new").touch(),
        lambda deep: (deep / "file").unlink(),
        lambda deep: (deep / "file").write_bytes(b"longer than before"),
        lambda deep: (deep / "file").chmod(0o600),
        lambda deep: (deep / "file").rename(deep.parent / "moved"),
    ],
)
def test_a_walk_sees_every_change(
    tmp_path: Path, above: int, change: Callable[[Path], object]
) -> None:
    def facts() -> tuple[int, int, int, int]:
        found = walk_inside("top", above)
        assert not found.busy
        return found.entries, found.size, found.mtime_ns, found.ctime_ns

    deep = tmp_path / "top" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x")
    (deep / "out").symlink_to("/")
    before = facts()
    assert before == facts()
    assert before[0] == 5
    # Before Linux 6.13 two changes within one tick of the clock have the same time.
    wait_until(lambda: time.time_ns() > before[3] + 20_000_000, what="another tick")
    change(deep)
    assert facts() != before


def test_a_walk_sees_a_writer(tmp_path: Path, above: int) -> None:
    (tmp_path / "top" / "a").mkdir(parents=True)
    with (tmp_path / "top" / "a" / "file").open("wb"):
        assert walk_inside("top", above).busy
    assert not walk_inside("top", above).busy


def test_a_walk_ends_where_it_is_too_deep(tmp_path: Path, above: int) -> None:
    descriptor = os.dup(above)
    for _ in range(150):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert walk_inside("d", above).entries == 101
