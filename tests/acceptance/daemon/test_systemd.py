"""What `notify run` tells systemd: a socket of the tests' own stands for $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.acceptance.daemon.site import Site, end
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until

WATCHDOG = 2.0
"""Seconds after which systemd would take the daemon for hung."""


class Told(NamedTuple):
    """A datagram: its assignments, and the process that sent it."""

    words: dict[str, str]
    pid: int


class Manager:
    """The end of $NOTIFY_SOCKET that systemd has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[Told] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(address.replace("@", "\0", 1))

    def close(self) -> None:
        self._socket.close()

    def hear(self, seconds: float) -> Told | None:
        """Return the next datagram, None if none comes in so many seconds."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        room = socket.CMSG_SPACE(struct.calcsize("3i"))
        text, [(_, _, credentials)], _, _ = self._socket.recvmsg(4096, room)
        words = dict(line.split("=", 1) for line in text.decode().split("\n"))
        self.told.append(Told(words, struct.unpack("3i", credentials)[0]))
        return self.told[-1]

    def expect(self, word: str, seconds: float = 30.0) -> dict[str, str]:
        """Return the next datagram but those that feed the watchdog; it must begin with a word."""
        deadline = time.monotonic() + seconds
        while True:
            told = self.hear(max(0.0, deadline - time.monotonic()))
            assert told is not None, f"no {word} within {seconds} s: {self.told}"
            if next(iter(told.words)) == word:
                return told.words
            assert "WATCHDOG" in told.words, f"{told.words} instead of {word}"


@pytest.fixture(params=["{}/notify.socket", "@watchman-test-{}"], ids=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    where = tmp_path if request.param[0] == "{" else os.getpid()
    found = Manager(request.param.format(where))
    yield found
    found.close()


@contextmanager
def told_to(manager: Manager, site: Site, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``notify run`` as systemd does, until the block ends."""
    words = {"NOTIFY_SOCKET": manager.address, **environment}
    before = site.prefix
    site.prefix = ("env", *(f"{name}={value}" for name, value in words.items()), *before)
    with site.popen("run") as daemon:
        site.prefix = before
        try:
            yield daemon
        finally:
            end(daemon.pid)


def watchdog(seconds: float = WATCHDOG) -> str:
    return str(int(seconds * 1e6))


def test_start_reload_and_stop(site: Site, manager: Manager) -> None:
    with told_to(manager, site) as daemon:
        assert manager.expect("READY") == {"READY": "1", "STATUS": "1 watch, 1 broker"}
        assert site.status()["state"] == "active"
        (site.top / "more").mkdir()
        site.configure(
            "BROKERS['other'] = 'filesystem://'\n"
            f"WATCHES += [{{'path': {str(site.top)!r} + name}} for name in ('/more', '/late')]\n"
        )
        before = time.monotonic_ns() // 1000
        assert site.notify("reload").returncode == 0
        reloading = manager.expect("RELOADING")
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.expect("READY")["STATUS"] == "3 watches, 2 brokers"
        # A mistake changes nothing, and systemd does not wait for ever.
        site.configure("PATTERNS = [")
        os.kill(daemon.pid, signal.SIGHUP)
        manager.expect("RELOADING")
        assert manager.expect("READY")["STATUS"] == "3 watches, 2 brokers"
        os.kill(daemon.pid, signal.SIGTERM)
        assert manager.expect("STOPPING") == {"STOPPING": "1"}
        assert daemon.wait(20) == 0
        assert manager.hear(0) is None
        # NotifyAccess=main takes no other's word.
        assert {told.pid for told in manager.told} == {daemon.pid}


def test_the_watchdog_is_fed_in_half_its_time_while_events_come(
    site: Site, manager: Manager
) -> None:
    with told_to(manager, site, WATCHDOG_USEC=watchdog()) as daemon:
        manager.expect("READY")
        assert manager.expect("WATCHDOG")["STATUS"] == "1 watch, 1 broker"
        fed = []
        for _ in range(3):
            manager.expect("WATCHDOG", WATCHDOG)
            fed.append(time.monotonic())
        assert fed[2] - fed[0] > WATCHDOG / 2  # twice in its time, not all the time
        os.kill(daemon.pid, signal.SIGSTOP)
        while manager.hear(0.0):
            pass
        assert manager.hear(WATCHDOG) is None
        os.kill(daemon.pid, signal.SIGCONT)
        manager.expect("WATCHDOG", 20.0)
        os.kill(daemon.pid, signal.SIGTERM)
        manager.expect("STOPPING")
        assert daemon.wait(20) == 0


@pytest.mark.parametrize("own", [True, False])
def test_the_watchdog_of_another_process_is_not_ours(
    site: Site, manager: Manager, own: bool
) -> None:
    # In a shell that notify takes the place of, as it does of bin/notify.
    number = "$$" if own else "1"
    site.prefix = ("sh", "-c", f'WATCHDOG_PID={number} exec "$@"', "sh")
    with told_to(manager, site, WATCHDOG_USEC=watchdog()):
        manager.expect("READY")
        assert bool(manager.hear(WATCHDOG)) == own


@pytest.mark.parametrize("usec", ["", "0", "-1", "1s"])
def test_no_watchdog_without_a_time(site: Site, manager: Manager, usec: str) -> None:
    with told_to(manager, site, WATCHDOG_USEC=usec):
        manager.expect("READY")
        assert manager.hear(WATCHDOG / 2) is None


def test_an_end_before_anything_is_watched_is_no_start(site: Site, manager: Manager) -> None:
    site.configure("PATTERNS = [")
    with told_to(manager, site) as daemon:
        assert daemon.wait(30) == 78
    assert manager.hear(0) is None


def test_who_starts_a_daemon_by_hand_says_nothing(site: Site, manager: Manager) -> None:
    site.prefix = ("env", f"NOTIFY_SOCKET={manager.address}")
    site.start()
    site.stop()
    assert manager.hear(0) is None


@pytest.mark.parametrize("address", ["relative", "vsock:2:1", "", "/nowhere/at/all"])
def test_a_socket_that_is_none_changes_nothing(site: Site, address: str) -> None:
    site.prefix = ("env", f"NOTIFY_SOCKET={address}", f"WATCHDOG_USEC={watchdog()}")
    with site.popen("run") as daemon:
        try:
            wait_until(lambda: site.status()["state"] == "active", 30.0, "it watches")
            os.kill(daemon.pid, signal.SIGTERM)
            assert daemon.wait(20) == 0
        finally:
            end(daemon.pid)


@needs_fuse
def test_where_a_child_watches_the_parent_speaks(site: Site, manager: Manager) -> None:
    with FuseServer(site.top / "share"):
        share = f"WATCHES += [{{'path': {str(site.top / 'share')!r}, 'interval': 0.3}}]\n"
        site.configure(share)
        with told_to(manager, site, WATCHDOG_USEC=watchdog()) as daemon:
            assert manager.expect("READY")["STATUS"] == "2 watches, 1 broker"
            manager.expect("WATCHDOG")
            site.configure(share + "BROKERS['other'] = 'filesystem://'\n")
            os.kill(daemon.pid, signal.SIGHUP)
            manager.expect("RELOADING")
            assert manager.expect("READY")["STATUS"] == "2 watches, 2 brokers"
            [child] = [
                child for child in psutil.Process(daemon.pid).children() if child.threads()[1:]
            ]
            # The parent lives, and says nothing of a child that does not watch.
            child.suspend()
            while manager.hear(0.0):
                pass
            assert manager.hear(WATCHDOG) is None
            child.resume()
            manager.expect("WATCHDOG", 20.0)
            os.kill(daemon.pid, signal.SIGTERM)
            manager.expect("STOPPING")
            assert daemon.wait(20) == 0
            assert {told.pid for told in manager.told} == {daemon.pid}
