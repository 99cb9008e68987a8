"""Who works in a file system that may hang, and whether it answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman import hanging, mounts, timelimit
from watchman.errors import JournalError
from watchman.journal import Journal
from watchman.model import Version

pytestmark = needs_fuse
VERSION = Version(1, 2, 3, 4)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[FuseServer]:
    with FuseServer(tmp_path / "share") as share:
        yield share
        share.go()


def test_it_is_known_where_calls_may_hang_without_one(tmp_path: Path, share: FuseServer) -> None:
    point = str(share.point)
    (tmp_path / "link").symlink_to(share.point / "inside")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("../..")
    share.suspend()  # so that each of these would hang
    table = mounts.mounts()
    assert mounts.trace(f"{point}/a/../b", table) == (f"{point}/b", point)
    assert mounts.trace(f"{tmp_path}/link/c", table) == (f"{point}/inside/c", point)
    assert mounts.trace(f"{tmp_path}/loop/c", table)[1] == ""
    assert mounts.trace(f"{tmp_path}/up/x", table) == (f"{tmp_path.parent.parent}/x", "")
    assert mounts.trace(str(tmp_path), table) == (os.path.realpath(tmp_path), "")
    assert hanging.points(f"{tmp_path}/link") == {point}
    assert hanging.points(str(tmp_path)) == {point}
    assert hanging.points(f"{tmp_path}/other") == frozenset()
    assert hanging.prefixes([str(tmp_path)]) == {f"{point}/": point}
    assert hanging.prefixes([f"{tmp_path}/link"]) == {f"{tmp_path}/link/": point}
    assert mounts.filesystem_type(f"{tmp_path}/link") == "fuse.tests"


@pytest.mark.parametrize("threads", [False, True])
def test_a_look_has_a_limit_of_time(share: FuseServer, threads: bool) -> None:
    (share.point / "file").write_text("x")
    release = threading.Event()
    other = threading.Thread(target=release.wait, daemon=True)
    if threads:
        other.start()
    size = timelimit.within(str(share.point), lambda: (share.point / "file").stat().st_size)
    assert size == 1
    with pytest.raises(FileNotFoundError):
        timelimit.within(str(share.point), lambda: os.stat(share.point / "none").st_size)
    share.suspend()
    with pytest.raises(TimeoutError, match="does not answer"):
        timelimit.within(str(share.point), lambda: os.stat(share.point / "file").st_size)
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="umount --force --lazy"):
        timelimit.within(str(share.point), lambda: os.stat(share.point / "file").st_size)
    assert time.monotonic() - begun < hanging.SILENT
    release.set()


def test_slow_is_not_hung(share: FuseServer) -> None:
    station = hanging.Station(["it"], [str(share.point)])
    with station:
        long_ago = time.monotonic() - 60
        station.since = long_ago
        assert station.hangs(time.monotonic()) == ""  # it is being asked
        wait_until(lambda: not _asks(), what="it answers")
        assert station.hangs(time.monotonic()) == ""
        share.suspend()
        wait_until(lambda: station.hangs(time.monotonic()) == str(share.point), what="it hangs")
        share.go()
        wait_until(lambda: station.hangs(time.monotonic()) == "", what="it answers again")
    assert station.since is None


def _asks() -> bool:
    return any(thread.name == "are-you-there" for thread in threading.enumerate())


def test_who_hangs_is_left_and_others_wait_for_it(share: FuseServer) -> None:
    (share.point / "file").write_text("x")
    where = hanging.points(str(share.point))
    share.suspend()
    thread = threading.Thread(target=os.stat, args=(share.point / "file",), daemon=True)
    thread.start()
    assert not hanging.join([thread], where, 60)
    hanging.leave([thread], where)
    assert not hanging.await_left(where, lambda: True)
    assert hanging.await_left(frozenset({"/elsewhere"}), lambda: False)
    came: list[bool] = []
    waiter = threading.Thread(
        target=lambda: came.append(hanging.await_left(where, lambda: False)), daemon=True
    )
    waiter.start()
    share.go()
    waiter.join(10)
    assert came == [True]
    assert not thread.is_alive()


def test_nobody_waits_in_what_was_mounted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old mount is given up; who hangs in it may do so for ever, and keeps its number."""
    table = {"/share": mounts.Mount(50, "nfs4", 7)}
    monkeypatch.setattr(mounts, "mounts", lambda: table)
    where = hanging.points("/share/uploads")
    release = threading.Event()
    thread = threading.Thread(target=release.wait, daemon=True)
    thread.start()
    hanging.leave([thread], where)
    assert not hanging.await_left(where, lambda: True)
    table["/share"] = mounts.Mount(51, "nfs4", 8)
    assert hanging.await_left(where, lambda: False)
    release.set()


def test_what_was_mounted_anew_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is held up by who asked the old mount; who works there still hangs."""
    table = {"/share": mounts.Mount(50, "nfs4", 7)}
    monkeypatch.setattr(mounts, "mounts", lambda: table)
    monkeypatch.setattr(hanging, "SILENT", 0.1)
    release = threading.Event()
    monkeypatch.setattr(hanging, "_statvfs", lambda _: release.wait())
    station = hanging.Station(["it"], ["/share"])
    station.since = time.monotonic() - 60
    wait_until(lambda: station.hangs(time.monotonic()) == "/share", what="it hangs")
    assert hanging.silent(["/share"]) == "/share"
    table["/share"] = mounts.Mount(51, "nfs4", 8)
    assert hanging.silent(["/share"]) == ""
    assert station.hangs(time.monotonic()) == "/share"
    wait_until(lambda: hanging.silent(["/share"]), what="the new one hangs as well")
    release.set()
    wait_until(lambda: not hanging.silent(["/share"]), what="both have answered")


def test_the_journal_takes_nothing_from_who_was_left(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    begin, raised = threading.Event(), list[BaseException]()

    def write() -> None:
        begin.wait()
        try:
            journal.record((), [("/late", VERSION)])
        except JournalError as error:
            raised.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    journal.shut_out(thread)
    begin.set()
    thread.join()
    journal.record((), [("/in time", VERSION)])
    assert len(raised) == 1
    assert journal.known.versions(["/late", "/in time"]) == {"/in time": VERSION}
    journal.close()
