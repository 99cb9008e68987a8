"""The daemon with the user, capabilities and limits of deploy/watchman.service."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import embedded
from tests.acceptance.daemon.site import Site, end
from tests.acceptance.daemon.test_systemd import Manager, told_to
from tests.acceptance.deploy.units import as_service, capabilities
from tests.servers import require
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = 65534
UPLOADER = 65533
SETTLE = 0.5
"""Seconds after which a file counts where no lease tells that it is open."""


@pytest.fixture
def service(users_site: Site) -> Site:
    """A site of the service's user, in whose directory somebody else uploads."""
    require("setpriv")
    require("prlimit")
    users_site.configure(f"WATCHES[0]['settle'] = {SETTLE}\n")
    users_site.data.chmod(0o2775)
    os.chown(users_site.data, UPLOADER, NOBODY)
    return users_site


def messages(site: Site) -> list[Path]:
    return embedded.messages(site.top / "var")


def upload(path: Path, text: str = "x") -> None:
    path.write_text(text)
    path.chmod(0o644)
    os.chown(path, UPLOADER, NOBODY)


def in_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def of_the_lease(site: Site) -> list[dict[str, Any]]:
    return [note for note in site.status()["notes"] if "lease" in note["message"]]


@pytest.mark.parametrize("with_lease", [True, False])
def test_an_upload_becomes_a_task(service: Site, with_lease: bool) -> None:
    assert capabilities() == ["lease"]
    service.prefix = as_service(NOBODY, capabilities() if with_lease else [])
    manager = Manager(str(service.top / "notify.socket"))
    os.chown(manager.address, NOBODY, NOBODY)
    try:
        with told_to(manager, service) as daemon:
            manager.expect("READY")
            state = in_status(daemon.pid)
            assert state["Uid"].split() == [str(NOBODY)] * 4
            assert (state["NoNewPrivs"], state["Umask"]) == ("1", "0077")
            assert int(state["CapEff"], 16) == int(state["CapBnd"], 16) == (1 << 28) * with_lease
            with (service.data / "open.csv").open("w") as held:
                os.chown(held.fileno(), UPLOADER, NOBODY)
                os.fchmod(held.fileno(), 0o644)
                held.write("half")
                held.flush()
                upload(service.data / "whole.csv")
                # Without the lease a file counts when it does not change, open or not.
                number = 1 if with_lease else 2
                wait_until(lambda: len(messages(service)) == number, 30.0, f"{number} tasks")
                assert bool(of_the_lease(service)) == (not with_lease)
                assert len(messages(service)) == number
                held.write(" and half")
            wait_until(lambda: len(messages(service)) == number + 1, 30.0, "the task of the other")
            os.kill(daemon.pid, signal.SIGTERM)
            manager.expect("STOPPING")
            assert daemon.wait(30) == 0
    finally:
        manager.close()


def test_moves_of_files_of_another_user_in_a_common_group(service: Site) -> None:
    storage = service.top / "storage"
    storage.mkdir()
    os.chown(storage, NOBODY, NOBODY)
    below = service.data / "anna"
    below.mkdir()
    os.chown(below, UPLOADER, NOBODY)
    below.chmod(0o2775)
    service.configure(f"MOVES = {{{str(service.data)!r}: {str(storage)!r}}}\n")
    service.prefix = as_service(NOBODY, capabilities())
    with service.popen("run") as daemon:
        try:
            wait_until(lambda: service.status()["state"] == "active", 30.0, "it watches")
            upload(below / "a.csv", "content")
            wait_until(lambda: messages(service), 30.0, "its task")
        finally:
            end(daemon.pid)
    moved = storage / "anna/a.csv"
    assert moved.read_text() == "content"
    assert (moved.stat().st_uid, moved.stat().st_gid) == (UPLOADER, NOBODY)  # renamed, not copied
    # Whoever could read it before the move still can: group and setgid bit are those of the source.
    made = moved.parent.stat()
    assert (made.st_gid, made.st_mode & 0o7777) == (NOBODY, 0o2775)
