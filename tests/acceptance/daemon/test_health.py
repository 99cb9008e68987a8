"""``notify health``: red within 45 s for what is really wrong, and green again after it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import Any

import pytest

from tests.acceptance.daemon.site import Site
from tests.mounted import fill, mount, mounted, unmount
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

SECONDS = 45.0
OK, WARNING, CRITICAL, UNKNOWN = range(4)


def judged(site: Site, *options: str) -> tuple[int, str]:
    done = site.notify("health", *options)
    assert done.stderr == ""
    [line] = done.stdout.splitlines()
    return done.returncode, line


def wait_for(site: Site, level: int, words: str, *options: str) -> str:
    """Wait until it is judged so; return the line."""
    last: list[tuple[int, str]] = []

    def so() -> bool:
        last[:] = [judged(site, *options)]
        return last[0][0] == level and words in last[0][1]

    try:
        wait_until(so, SECONDS, words, interval=0.5)
    except AssertionError:
        raise AssertionError(last) from None
    return last[0][1]


def test_green_red_and_not_to_be_told(site: Site) -> None:
    site.start()
    assert judged(site) == (
        OK, "OK: watchman is active | waiting=0 oldest=0.0s;;600 failed=0;0"
    )  # fmt: skip
    site.stop()
    status, line = judged(site, "--max-age", "1.5h", "--max-failed", "7")
    assert status == CRITICAL
    assert line == (
        "CRITICAL: watchman is not running | waiting=0 oldest=0.0s;;5400 failed=0;7"
    )  # fmt: skip
    found: dict[str, Any] = json.loads(site.notify("health", "--json").stdout)
    assert found == {"level": "CRITICAL", "reasons": ["watchman is not running"]}
    (site.top / "config.py").write_text("STATE_DIR = 5\n")
    (site.top / "config.py").with_name(".config.py.places").unlink(missing_ok=True)
    shutil.rmtree(site.top / "var")
    status, line = judged(site)
    assert (status, line[:20]) == (UNKNOWN, "UNKNOWN: STATE_DIR: ")


@pytest.mark.parametrize("age", ["", "5x", "-1", "nan", "1e3", "10 m", "m"])
def test_what_is_no_length_of_time(site: Site, age: str) -> None:
    done = site.notify("health", "--max-age", age)
    assert done.returncode == 2
    assert "is no length of time: write 90s, 10m, 2h or 1d" in done.stderr


def test_a_process_that_is_stopped(site: Site) -> None:
    pid = site.start()
    site.hang(pid)
    try:
        wait_for(site, CRITICAL, "watchman has given no sign of work for ")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(site, OK, "active")
    site.stop()


def test_a_root_that_is_unmounted(site: Site) -> None:
    with mounted(site.data):
        site.start()
        assert judged(site)[0] == OK
        unmount(site.data)
        line = wait_for(site, CRITICAL, f"nothing is mounted at {site.data} any more")
        assert line.count(str(site.data)) == 2
        # Neither a reload, which logrotate asks for too.
        out = site.out.read_text()
        assert site.notify("reload").returncode == 0
        wait_until(lambda: "Reloaded" in site.out.read_text()[len(out) :], 20)
        wait_for(site, CRITICAL, "any more")
        mount(site.data)
        wait_for(site, OK, "active")
        (site.data / "a.csv").touch()
        wait_until(lambda: "Sending task" in site.out.read_text(), 20, "it is watched")
        site.stop()


def test_a_directory_that_is_removed(site: Site) -> None:
    other = site.top / "other"
    other.mkdir()
    site.configure(f"WATCHES += [{{'path': {str(other)!r}}}]\n")
    site.start()
    shutil.rmtree(other)
    wait_for(site, CRITICAL, f"{other}: No such file or directory")
    other.mkdir()
    wait_for(site, OK, "active")
    shutil.rmtree(site.data)
    shutil.rmtree(other)
    wait_for(site, CRITICAL, "nothing that it is to watch is there")
    site.stop()


def test_a_broker_that_is_down_for_too_long(site: Site, own_redis: RedisServer) -> None:
    site.configure(f"BROKERS = {{'local': {own_redis.url!r}}}\n")
    site.start()
    (site.data / "1.csv").touch()
    wait_until(lambda: "Sending task" in site.out.read_text(), 20)
    own_redis.stop()
    (site.data / "2.csv").touch()
    wait_for(site, CRITICAL, "tasks wait for broker local for ", "--max-age", "2s")
    wait_for(site, CRITICAL, "broker local takes no tasks for ", "--max-age", "2s")
    assert judged(site)[0] == OK  # ten minutes are not over
    own_redis.start()
    line = wait_for(site, OK, "active", "--max-age", "2s")
    assert "waiting=0 " in line
    site.stop()


def test_a_failed_delivery_is_something_to_look_at(site: Site, own_redis: RedisServer) -> None:
    own_redis.stop()
    broker = f"BROKERS['other'] = {own_redis.url!r}\n"
    site.configure(f"{broker}PATTERNS = [('*', {{'broker': 'other', 'task': 't'}})]\n")
    site.start()
    (site.data / "1.csv").touch()
    wait_until(lambda: "takes no tasks" in site.out.read_text(), 20)
    site.configure()
    assert site.notify("reload").returncode == 0
    line = wait_for(site, WARNING, "1 delivery has failed: 'notify failed' tells why")
    assert line.endswith(" failed=1;0")
    assert judged(site, "--max-failed", "1")[0] == OK
    site.stop()


def test_a_full_disk(site: Site) -> None:
    state = site.top / "var"
    with mounted(state):
        site.start()
        assert judged(site)[0] == OK
        filler = state / "filler"
        fill(filler)
        # With nothing to record, and with something.
        wait_for(site, CRITICAL, f"less than 1 MB is free in {state}")
        (site.data / "1.csv").touch()
        wait_for(site, CRITICAL, "less than 1 MB is free")
        filler.unlink()
        wait_for(site, OK, "active")
        wait_until(lambda: "Sending task" in site.out.read_text(), 20)
        site.stop()
