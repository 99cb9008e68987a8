"""A watchman that is asked from another container, where its process has no number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.servers import require
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make PID namespaces")
ELSEWHERE = "a process in another container or on another host"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Each command runs in a PID namespace of its own, and what it starts ends with it."""
    unshare = (require("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc")
    return Site(tmp_path, prefix=unshare)


def test_it_is_active_and_not_to_be_stopped_from_here(site: Site) -> None:
    with site.popen("run") as running:
        try:
            wait_until(lambda: site.status()["state"] == "active", 30.0, "it watches")
            found = site.status()
            assert (found["pid"], len(found["watches"])) == (0, 1)
            told = site.notify("status").stdout
            assert told.startswith("watchman is active: in another container, since ")
            stop = site.notify("stop")
            assert stop.returncode == 1
            # 'kill 0' would end whoever types it.
            assert stop.stderr == (
                f"notify: No pid file exists at {site.pid_file}. But {ELSEWHERE} watches in the "
                "foreground: stop it where it was started.\n"
            )
            for command in ("start", "run", "reload"):
                done = site.notify(command)
                assert done.returncode == 1, command
                assert ELSEWHERE in done.stderr, command
                assert " 0" not in done.stderr, command
            assert site.status()["state"] == "active"
        finally:
            running.kill()
