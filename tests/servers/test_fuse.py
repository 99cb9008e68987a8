"""The FUSE file system that other tests use does what those tests take for granted."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman.mounts import filesystem_type

pytestmark = needs_fuse


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FuseServer]:
    with FuseServer(tmp_path / "share") as server:
        yield server


def test_it_is_a_file_system(server: FuseServer) -> None:
    top = server.point
    assert filesystem_type(str(top)) == "fuse.tests"
    (top / "d").mkdir()
    content = os.urandom(300_000)
    (top / "d" / "a").write_bytes(content)
    assert (top / "d" / "a").read_bytes() == content
    with (top / "d" / "a").open("ab") as file:
        file.write(b"more")
    assert (top / "d" / "a").stat().st_size == len(content) + 4
    os.truncate(top / "d" / "a", 10)
    assert (top / "d" / "a").read_bytes() == content[:10]
    os.utime(top / "d" / "a", ns=(5, 1_700_000_000_123_456_789))
    status = (top / "d" / "a").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (5, 1_700_000_000_123_456_789)
    os.chmod(top / "d" / "a", 0o640)
    assert stat.S_IMODE((top / "d" / "a").stat().st_mode) == 0o640


def test_names_can_be_changed(server: FuseServer) -> None:
    top = server.point
    (top / "d").mkdir()
    (top / "d" / "a").write_bytes(b"a")
    (top / "b").write_bytes(b"b")
    (top / "d" / "a").rename(top / "b")
    assert (top / "b").read_bytes() == b"a"
    os.link(top / "b", top / "c")
    assert (top / "c").stat().st_nlink == 2
    (top / "s").symlink_to("c")
    assert (top / "s").read_bytes() == b"a"
    (top / "b").rename(top / "d" / "x")
    with pytest.raises(OSError, match="not empty"):
        (top / "d").rmdir()
    (top / "d").rename(top / "e")
    assert sorted(os.listdir(top)) == ["c", "e", "s"]
    assert os.listdir(top / "e") == ["x"]
    (top / "e" / "x").unlink()
    (top / "e").rmdir()
    os.mkfifo(top / "fifo")
    assert stat.S_ISFIFO((top / "fifo").stat().st_mode)


def test_a_large_directory_is_listed(server: FuseServer) -> None:
    names = sorted(f"{number:0200}" for number in range(1000))
    for name in names:
        (server.point / name).touch()
    assert sorted(os.listdir(server.point)) == names


def test_a_remount_keeps_the_content_and_changes_the_numbers(server: FuseServer) -> None:
    file = server.point / "a"
    file.write_bytes(b"a")
    before = file.stat()
    server.remount()
    after = file.stat()
    assert file.read_bytes() == b"a"
    assert after.st_ino != before.st_ino
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    server.unmount()
    assert os.listdir(server.point) == []
    server.mount()
    assert os.listdir(server.point) == ["a"]


@pytest.mark.parametrize("how", ["hold", "suspend"])
def test_answers_can_be_held_back(server: FuseServer, how: str) -> None:
    (server.point / "a").write_bytes(b"a")
    getattr(server, how)()
    program = "import os, sys; print(os.stat(sys.argv[1]).st_size)"
    looker = subprocess.Popen(
        [sys.executable, "-c", program, server.point / "a"], stdout=subprocess.PIPE, text=True
    )
    if how == "hold":
        server.wait_for_somebody()
    wait_until(lambda: waits(looker.pid), what="it waits for the file system")
    assert looker.poll() is None
    server.go()
    assert looker.communicate(timeout=10)[0] == "1\n"


def waits(pid: int) -> bool:
    """Whether a process is in a call of the file system's."""
    return "request_wait_answer" in Path(f"/proc/{pid}/wchan").read_text("ascii")


def test_who_waits_can_be_killed_while_it_is_suspended(server: FuseServer) -> None:
    server.suspend()
    looker = subprocess.Popen([sys.executable, "-c", f"open('{server.point}/a')"])
    wait_until(lambda: waits(looker.pid), what="it waits for the file system")
    looker.kill()
    assert looker.wait(10) < 0


def test_who_waits_when_it_is_unmounted_gets_an_error(server: FuseServer) -> None:
    server.hold()
    program = (
        "import os, sys\ntry: os.stat(sys.argv[1])\nexcept OSError as error: print(error.errno)"
    )
    looker = subprocess.Popen(
        [sys.executable, "-c", program, server.point / "a"], stdout=subprocess.PIPE, text=True
    )
    server.wait_for_somebody()
    server.unmount()
    assert int(looker.communicate(timeout=10)[0]) in (errno.ECONNABORTED, errno.ENOTCONN)
