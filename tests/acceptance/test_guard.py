"""Where something may hang, a child watches and the daemon's process can always end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.started import Daemon, notify
from tests.servers import ended
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until

pytestmark = needs_fuse

CONFIG = """
import pyinotify

class Processor(pyinotify.ProcessEvent):
    def process_default(self, event):
        print('processed', event.pathname, flush=True)

BROKERS = {{'b': 'filesystem://'}}
WATCHES = [
    {{'path': '{top}/local', 'rec': True, 'auto_add': True}},
    {{'path': '{top}/share', 'interval': 0.3, 'settle': 0.1}},
    {{'path': '{top}/share/units', 'kind': 'directories', 'interval': 0.3}},
    {{'path': '{top}/share/raw', 'rec': True, 'mask': pyinotify.IN_CREATE, 'proc_fun': Processor}},
]
PATTERNS = [('*', {{'broker': 'b', 'task': 't'}})]
"""


@pytest.fixture
def share(tmp_path: Path) -> Iterator[FuseServer]:
    (tmp_path / "local").mkdir()
    (tmp_path / "share").mkdir()
    (tmp_path / "config.py").write_text(CONFIG.format(top=tmp_path))
    with FuseServer(tmp_path / "share") as share:
        (share.point / "units").mkdir()
        (share.point / "raw").mkdir()
        yield share
        share.go()


def sent(daemon: Daemon, count: int) -> None:
    daemon.wait_for("Sending task t", count)


def child_of(daemon: Daemon) -> psutil.Process:
    return next(
        child
        for child in psutil.Process(daemon.pid).children()
        if child.name() == psutil.Process(daemon.pid).name() and len(child.threads()) > 1
    )


def test_the_child_ends_with_the_daemon_and_the_daemon_with_the_child(
    tmp_path: Path, share: FuseServer
) -> None:
    with Daemon(tmp_path / "config.py") as daemon:
        child = child_of(daemon)
        daemon.kill()
        wait_until(lambda: ended(child), what="the kernel has ended the child")
        daemon.start()
        child = child_of(daemon)
        child.kill()
        assert daemon.process is not None
        assert daemon.process.popen.wait(10) == -signal.SIGKILL
        daemon.process = None
        daemon.start()
        (tmp_path / "local" / "file").write_text("x")
        sent(daemon, 1)
        daemon.stop()


def test_signals_and_numbers_are_the_daemons(tmp_path: Path, share: FuseServer) -> None:
    with Daemon(tmp_path / "config.py") as daemon:
        assert f'"pid": {daemon.pid},' in notify("status", "--json", cwd=tmp_path).stdout
        assert notify("status", cwd=tmp_path).stdout.startswith("watchman is active: process ")
        assert notify("reload", cwd=tmp_path).returncode == 0
        daemon.wait_for("Reloaded ")
        daemon.wait_for(" directories\n", 2)
        (share.point / "units" / "unit").mkdir()
        (share.point / "file").write_text("x")
        sent(daemon, 2)
        (share.point / "raw" / "file").write_text("x")
        daemon.wait_for(f"processed {share.point}/raw/file")
        os.rename(tmp_path / "var", tmp_path / "away")  # and the journal with it
        daemon.wait_for("removed or replaced", timeout=30)
        daemon.wait_for(" directories\n", 3, timeout=30)
        (tmp_path / "local" / "file").write_text("x")
        sent(daemon, 3)
        assert f'"pid": {daemon.pid},' in notify("status", "--json", cwd=tmp_path).stdout
        daemon.stop(signal.SIGINT)
    assert daemon.count("Watching has been stopped") == 1


def test_the_daemon_ends_with_a_child_that_is_killed_and_cannot_end(
    tmp_path: Path, share: FuseServer
) -> None:
    with Daemon(tmp_path / "config.py") as daemon:
        share.hold()
        share.wait_for_somebody()
        child_of(daemon).kill()
        assert daemon.process is not None
        assert daemon.process.popen.wait(10) == 1
        daemon.process = None
        assert daemon.count("that watched has died; its output tells why") == 1
        share.go()
        daemon.start()
        daemon.stop()


@pytest.mark.parametrize("how", ["hold", "suspend"])
def test_every_command_works_while_it_hangs(tmp_path: Path, share: FuseServer, how: str) -> None:
    getattr(share, how)()
    checked = notify("check", cwd=tmp_path, timeout=30)
    assert checked.returncode == 1
    assert f"the file system {share.point} (fuse.tests, watchman-tests) does not" in checked.stdout
    started = notify("start", cwd=tmp_path, timeout=30)
    assert started.returncode == 0, started.stderr
    status = notify("status", cwd=tmp_path, timeout=10).stdout
    assert status.startswith("watchman is active: process ")
    for name in ("", "/units", "/raw"):
        assert f"{share.point}{name} " in status.partition("Troubles")[2]
    assert notify("reload", cwd=tmp_path, timeout=10).returncode == 0
    stopped = notify("stop", cwd=tmp_path, timeout=20)
    assert (stopped.returncode, stopped.stdout) == (0, "Watching has been stopped.\n")
    assert notify("restart", cwd=tmp_path, timeout=30).returncode == 0
    assert notify("stop", cwd=tmp_path, timeout=20).returncode == 0


def test_what_is_mounted_later_is_watched_apart(tmp_path: Path, share: FuseServer) -> None:
    share.unmount()
    (tmp_path / "share" / "units").mkdir()
    (tmp_path / "share" / "raw").mkdir()
    with Daemon(tmp_path / "config.py") as daemon:
        assert not [child for child in psutil.Process(daemon.pid).children() if child.threads()[1:]]
        (tmp_path / "share" / "below").write_text("x")
        sent(daemon, 1)
        share.mount()
        daemon.wait_for("something is mounted that may hang")
        daemon.wait_for(" directories\n", 2)
        assert child_of(daemon).is_running()
        (share.point / "file").write_text("x")
        sent(daemon, 2)
        share.hold()
        (tmp_path / "local" / "file").write_text("x")
        sent(daemon, 3)
        share.wait_for_somebody()
        daemon.stop()
