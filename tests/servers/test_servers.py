"""The transfer servers that other tests upload with do what those tests take for granted."""

from __future__ import annotations

import grp
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers import ended
from tests.servers.greeting import greets
from tests.servers.proftpd import ProFTPD
from tests.servers.sftp import OpenSSH
from tests.waiting import wait_until


@contextmanager
def events_of(directory: Path) -> Iterator[list[tuple[str, str]]]:
    """Collect (event, name) for all that happens in one directory until the block ends."""
    import pyinotify

    seen: list[tuple[str, str]] = []
    manager = pyinotify.WatchManager()
    notifier = pyinotify.Notifier(
        manager, lambda event: seen.append((event.maskname, event.name)), timeout=100
    )
    manager.add_watch(str(directory), pyinotify.ALL_EVENTS, quiet=False)
    try:
        yield seen
        # The kernel queues an event before the call that caused it returns to the server.
        while notifier.check_events():
            notifier.read_events()
            notifier.process_events()
    finally:
        notifier.stop()


def names(seen: list[tuple[str, str]], event: str) -> list[str]:
    return [name for kind, name in seen if kind == event]


def test_plain_files_are_written_under_their_final_name(ftp_directory: Path) -> None:
    with ProFTPD(ftp_directory) as server:
        with server.ftp() as ftp, events_of(server.root) as seen:
            ftp.storbinary("STOR a.csv", io.BytesIO(b"1,2\n"))
        assert (server.root / "a.csv").read_bytes() == b"1,2\n"
        assert names(seen, "IN_CLOSE_WRITE") == ["a.csv"]
        assert names(seen, "IN_MOVED_TO") == []


def test_hidden_stores_renames_the_finished_file(ftp_directory: Path) -> None:
    with ProFTPD(ftp_directory, hidden_stores=True) as server:
        with server.ftp() as ftp, events_of(server.root) as seen:
            ftp.storbinary("STOR a.csv", io.BytesIO(b"1,2\n"))
        assert (server.root / "a.csv").read_bytes() == b"1,2\n"
        assert names(seen, "IN_CLOSE_WRITE") == [".in.a.csv."]
        assert names(seen, "IN_MOVED_TO") == ["a.csv"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_group_owner_makes_directories_under_another_name(ftp_directory: Path) -> None:
    with ProFTPD(ftp_directory, hidden_stores=True, group_owner="daemon") as server:
        with server.ftp() as ftp, events_of(server.root) as seen:
            ftp.mkd("new")
            ftp.storbinary("STOR new/a.csv", io.BytesIO(b"1,2\n"))
        made = server.root / "new"
        assert (made / "a.csv").read_bytes() == b"1,2\n"
        assert grp.getgrgid(made.stat().st_gid).gr_name == "daemon"
        created = names(seen, "IN_CREATE|IN_ISDIR")
        assert [name[:4] for name in created] == [".dst"]
        assert names(seen, "IN_MOVED_TO|IN_ISDIR") == ["new"]


def test_the_end_takes_the_sessions_along(ftp_directory: Path) -> None:
    with ProFTPD(ftp_directory) as server:
        client = server.ftp()
        assert server.process is not None
        family = psutil.Process(server.process.popen.pid).children(recursive=True)
        assert family, "no session process for a client that is logged in"
    client.close()
    wait_until(lambda: all(map(ended, family)), what="the sessions have ended")
    assert not greets(server.port, b"220")


def test_proftpd_speaks_sftp(ftp_directory: Path, tmp_path: Path) -> None:
    local = tmp_path / "a.csv"
    local.write_bytes(b"1,2\n")
    with ProFTPD(ftp_directory, sftp=True) as server:
        server.sftp().batch(f"put {local} a.part", "rename a.part a.csv")
        assert (server.root / "a.csv").read_bytes() == b"1,2\n"


def test_openssh_renames_in_two_ways(ftp_directory: Path, tmp_path: Path) -> None:
    local = tmp_path / "a.csv"
    local.write_bytes(b"1,2\n")
    with OpenSSH(ftp_directory) as server:
        with events_of(server.root) as seen:
            server.sftp().batch(
                f"put {local} a.part",
                "rename a.part posix.csv",
                f"put {local} b.part",
                "rename -l b.part standard.csv",
            )
        assert sorted(os.listdir(server.root)) == ["posix.csv", "standard.csv"]
        assert names(seen, "IN_MOVED_TO") == ["posix.csv"]
        # link and unlink: a new name appears, and nothing is closed or moved under it.
        assert "standard.csv" in names(seen, "IN_CREATE")
        assert "standard.csv" not in names(seen, "IN_CLOSE_WRITE")
