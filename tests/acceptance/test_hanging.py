"""A file system whose server sleeps holds up nobody but those who need it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.started import Daemon, notify
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until

LONG = os.environ.get("WATCHMAN_LONG") == "1"
pytestmark = needs_fuse

CONFIG = """
BROKERS = {{'b': 'redis://127.0.0.1:{port}/0'}}
WATCHES = [
    {{'path': '{top}/local', 'rec': True, 'auto_add': True, 'existing': 'all'}},
    {{'path': '{top}/share', 'rec': True, 'auto_add': True, 'existing': 'all',
      'settle': 0.1, 'interval': 0.3}},
]
PATTERNS = [('*', {{'broker': 'b', 'task': 't', 'options': {{'queue': '{queue}'}}}})]
MOVES = {{{moves}}}
"""
SECOND = 1.5
"""Seconds within which a task is there: one, and some for a slow machine."""
MANY = 60
"""Files that the mover has moved by its second process."""
END = 5.0
"""Seconds for an end."""


class Site:
    def __init__(self, top: Path, share: FuseServer, server: Any, queue: str) -> None:
        self.top = top
        self.local = top / "local"
        self.share = share
        self.server = server
        self.queue = queue
        self.config = top / "config.py"
        self.local.mkdir()
        self.configure()
        self.daemon = Daemon(self.config)

    def configure(self, moves: str = "") -> None:
        self.config.write_text(
            CONFIG.format(port=self.server.port, top=self.top, queue=self.queue, moves=moves)
        )

    def sent(self) -> list[str]:
        """The paths sent so far, relative."""
        with self.server.client() as client:
            found = client.lrange(self.queue, 0, -1)
        return sorted(path.removeprefix(f"{self.top}/") for path in map(path_of, found))

    def await_sent(self, *paths: str, seconds: float = 20.0) -> None:
        wait_until(lambda: set(paths) <= set(self.sent()), seconds, f"{paths} in {self.sent()}")

    def status(self) -> Any:
        return json.loads(notify("status", "--json", cwd=self.top, timeout=5).stdout)

    def troubles(self) -> dict[str, str]:
        return {one["subject"]: one["message"] for one in self.status()["troubles"]}

    def await_hang(self, seconds: float = 12.0) -> None:
        """Wait until it is known that the share hangs."""
        share = str(self.share.point)
        wait_until(lambda: share in self.troubles(), seconds, "status tells it", interval=0.2)
        assert f"the file system {share} (fuse.tests, watchman-tests) " in self.troubles()[share]
        assert "does not answer" in self.troubles()[share]

    def held_open(self) -> int:
        """How many descriptors and threads the daemon has, the journal's apart."""
        process = Path(f"/proc/{self.daemon.pid}")
        found = len(os.listdir(process / "task"))
        for link in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                found += "journal" not in os.readlink(link)
        return found

    def ends(self, number: int = signal.SIGTERM) -> None:
        begun = time.monotonic()
        self.daemon.stop(number)
        assert time.monotonic() - begun < END


def path_of(message: bytes) -> str:
    import base64

    body = json.loads(base64.b64decode(json.loads(message)["body"]))
    return str(body[0][0])


@pytest.fixture
def site(tmp_path: Path, redis_server: Any, queue_name: Any) -> Iterator[Site]:
    with FuseServer(tmp_path / "share") as share:
        site = Site(tmp_path, share, redis_server, queue_name("hanging"))
        yield site
        share.go()
        site.daemon.end()


@pytest.fixture(params=["hold", "suspend"] if LONG else ["hold"])
def stall(request: pytest.FixtureRequest, site: Site) -> Any:
    """Have the share give no more answers, in one of two ways."""
    return getattr(site.share, request.param)


def test_the_others_go_on_and_nothing_of_the_one_that_hangs_is_lost(site: Site, stall: Any) -> None:
    (site.share.point / "before").write_text("x")
    with site.daemon:
        site.await_sent("share/before")
        (site.share.point / "written").write_text("x")
        stall()
        for number in range(3):
            (site.local / f"file{number}").write_text("x")
            site.await_sent(f"local/file{number}", seconds=SECOND)
        site.await_hang()
        assert site.status()["state"] == "active"
        (site.local / "later").write_text("x")
        site.await_sent("local/later", seconds=SECOND)
        site.share.go()
        (site.share.point / "after").write_text("x")
        site.await_sent("share/written", "share/after")
        wait_until(lambda: site.troubles() == {}, what="it is over", interval=0.2)
        site.ends()
    assert site.sent() == sorted(
        ["local/later", "share/after", "share/before", "share/written"]
        + [f"local/file{number}" for number in range(3)]
    )


def test_a_stop_and_a_start_while_it_hangs(site: Site, stall: Any) -> None:
    with site.daemon:
        (site.share.point / "written").write_text("x")
        stall()
        site.await_hang()
        site.ends()
    begun = time.monotonic()
    with site.daemon:
        assert time.monotonic() - begun < 15
        site.await_hang()
        (site.local / "file").write_text("x")
        site.await_sent("local/file", seconds=SECOND)
        site.share.go()
        site.await_sent("share/written")
        site.ends()
    assert site.sent() == ["local/file", "share/written"]


def test_it_is_stopped_at_the_very_moment_it_begins_to_hang(site: Site, stall: Any) -> None:
    with site.daemon:
        (site.share.point / "written").write_text("x")
        stall()
        site.ends(signal.SIGINT)


def test_reloads_while_it_hangs(site: Site, stall: Any) -> None:
    with site.daemon:
        (site.share.point / "written").write_text("x")
        stall()
        site.await_hang()
        before = 0
        for number in range(1, 5):
            site.daemon.send(signal.SIGHUP)
            site.daemon.wait_for("Reloaded ", number)
            site.daemon.wait_for("watchman.service: Watching ", number + 1, timeout=30)
            (site.local / f"file{number}").write_text("x")
            site.await_sent(f"local/file{number}", seconds=SECOND)
            # One thread hangs, and another waits for it; more would be a leak.
            before = before or site.held_open()
        wait_until(lambda: site.held_open() <= before + 1, what="nothing leaks")
        site.share.go()
        site.await_sent("share/written")
        (site.share.point / "after").write_text("x")
        site.await_sent("share/after")
        site.ends()
    assert site.sent() == [*(f"local/file{n}" for n in range(1, 5)), "share/after", "share/written"]


def test_ready_deliveries_that_cannot_be_looked_at_hold_up_no_others(
    site: Site, stall: Any
) -> None:
    with site.daemon, contextlib.ExitStack() as put_right:
        put_right.callback(lambda: site.server.process or site.server.start())
        site.server.stop()
        for number in range(3):
            (site.share.point / f"ready{number}").write_text("x")
        wait_until(
            lambda: sum(row["count"] for row in site.status()["deliveries"]) == 3,
            what="they are recorded",
            interval=0.2,
        )
        site.daemon.wait_for("takes no tasks")
        stall()
        site.server.start()
        (site.local / "file").write_text("x")
        site.await_sent("local/file", seconds=10)
        for number in range(3):
            (site.local / f"file{number}").write_text("x")
            site.await_sent(f"local/file{number}", seconds=SECOND)
        wait_until(lambda: "tasks for broker b" in site.troubles(), interval=0.2)
        assert site.daemon.count("Cannot look at ") == 1
        site.share.go()
        site.await_sent(*(f"share/ready{number}" for number in range(3)), seconds=30)
        wait_until(lambda: site.troubles() == {}, what="it is over", interval=0.2)
        site.ends()
    assert len(site.sent()) == 7


def test_a_destination_that_hangs_holds_up_its_entry_only(site: Site, stall: Any) -> None:
    for name in ("local/a", "local/b", "store", "share/in"):
        (site.top / name).mkdir()
    site.configure(
        f"'{site.top}/local/a': '{site.top}/store', '{site.top}/local/b': '{site.share.point}/in'"
    )
    text = site.config.read_text().replace(f"'{site.top}/share',", f"'{site.top}/other',")
    (site.top / "other").mkdir()
    site.config.write_text(text)
    with site.daemon:
        (site.local / "b" / "first").write_text("x")
        site.await_sent("share/in/first")
        stall()
        for number in range(MANY):  # so many that the rename process is asked, and hangs
            (site.local / "b" / f"held{number}").write_text("x")
        for number in range(MANY):
            (site.local / "a" / f"many{number}").write_text("x")
        site.await_sent(*(f"store/many{number}" for number in range(MANY)), seconds=3 * SECOND)
        for number in range(3):
            (site.local / "a" / f"file{number}").write_text("x")
            site.await_sent(f"store/file{number}", seconds=2 * SECOND)
        subject = f"moving {site.local}/b to {site.share.point}/in"
        wait_until(lambda: subject in site.troubles(), 12, interval=0.2)
        site.daemon.send(signal.SIGHUP)
        site.daemon.wait_for("watchman.service: Watching ", 2, timeout=30)
        (site.local / "a" / "reloaded").write_text("x")
        site.await_sent("store/reloaded", seconds=2 * SECOND)
        site.share.go()
        site.await_sent(*(f"share/in/held{number}" for number in range(MANY)))
        (site.local / "b" / "after").write_text("x")
        site.await_sent("share/in/after")
        stall()
        (site.local / "b" / "last").write_text("x")
        site.daemon.wait_for("Notified of ", 2 * MANY + 7)
        site.ends()
    site.share.go()
    with site.daemon:
        site.await_sent("share/in/last")
    names = sorted(["after", "first", "last", *(f"held{number}" for number in range(MANY))])
    assert site.sent() == sorted(
        [f"share/in/{name}" for name in names]
        + [f"store/many{number}" for number in range(MANY)]
        + ["store/file0", "store/file1", "store/file2", "store/reloaded"]
    )
    assert sorted(path.name for path in (site.share.point / "in").iterdir()) == names
