"""What ``notify status`` says of a daemon that runs, and of one that has ended: what is true."""

from __future__ import annotations

import os
import shutil
import signal
import time
from datetime import datetime
from typing import Any

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until


def ns(moment: str) -> int:
    """Return an ISO 8601 time in ns since the epoch."""
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {one["state"]: one["count"] for one in found["deliveries"]}


def test_it_is_of_now(site: Site) -> None:
    site.start()
    for number in range(1, 4):
        begun = time.time_ns()
        (site.data / f"d{number}").mkdir()
        (site.data / f"d{number}/{number}.csv").touch()
        wait_until(lambda number=number: counts(site.status()).get("sent") == number)  # type: ignore[misc]  # — binds the number
        found = site.status()
        assert ns(found["last_arrival"]) > begun - 10_000_000
        assert ns(found["last_sent"]) > begun - 10_000_000
        assert ns(found["last_heartbeat"]) > begun
        assert [watch["directories"] for watch in found["watches"]] == [1 + number]
    site.stop()


def test_what_was_said_last_is_all_there_is_of_one_that_is_stopped(site: Site) -> None:
    pid = site.start()
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        found = site.status()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found["state"] == "active"  # it may be a moment only
    assert time.monotonic() - begun < 20
    wait_until(lambda: ns(site.status()["last_heartbeat"]) > ns(found["last_heartbeat"]))
    site.stop()


def test_without_its_only_directory_it_waits(site: Site) -> None:
    shutil.rmtree(site.data)
    started = site.notify("start")
    assert started.returncode == 0
    done = site.notify("status")
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("watchman is waiting: process ")
    assert first.endswith("; nothing that it is to watch is there")
    assert f"{site.data}  0 directories" in done.stdout
    assert f"{site.data}  since " in done.stdout.partition("Troubles")[2]
    site.data.mkdir()
    wait_until(lambda: site.status()["state"] == "active", 20)
    assert site.notify("status").returncode == 0
    shutil.rmtree(site.data)
    wait_until(lambda: site.status()["state"] == "waiting", 20)
    site.stop()


def test_last_seen_is_the_end(site: Site) -> None:
    site.start()
    stopped = time.time_ns()
    site.stop()
    found = site.status()
    assert found["state"] == "inactive"
    assert ns(found["last_heartbeat"]) >= stopped // 1000 * 1000


def test_a_trouble_lasts_through_reloads(site: Site) -> None:
    late = site.top / "late"
    site.configure(f"WATCHES += [{{'path': {str(late)!r}}}]\n")
    site.start()
    [before] = site.status()["troubles"]
    told = site.top / "var/log/watchman.out"
    for _ in range(2):
        beat = ns(site.status()["last_heartbeat"])
        assert site.notify("reload").returncode == 0
        wait_until(lambda: "Reloaded" in told.read_text(), 20)
        wait_until(lambda: site.status()["troubles"] == [before], 20, "the same trouble")
        assert ns(site.status()["last_heartbeat"]) > beat
    late.mkdir()
    wait_until(lambda: not site.status()["troubles"], 20)
    shutil.rmtree(late)
    wait_until(lambda: bool(site.status()["troubles"]), 20)
    [after] = site.status()["troubles"]
    assert ns(after["since"]) > ns(before["since"])
    site.stop()


def test_what_gets_no_task_is_shown_and_recorded(site: Site) -> None:
    site.start()
    stray = site.data / "stray.dat"
    stray.touch()
    wait_until(lambda: bool(site.status()["notes"]), 20)
    text = site.notify("status").stdout
    assert f"{stray}: no task is sent, because no pattern" in text.partition("Notes")[2]
    done = site.notify("history", str(stray))
    assert done.stdout.splitlines() == [
        str(stray),
        "    no task was sent for what is there: no pattern matched it",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    [found] = parsed(site.notify("history", "--json", str(stray)).stdout)
    assert found == {"state": "noted", "source": str(stray), "reason": "no pattern matched it"}
    site.stop()


def test_brokers_that_are_down_from_the_start(site: Site) -> None:
    """Nothing has arrived yet, and nothing is to be sent."""
    pattern = "('{}/*.{}', {{'broker': '{}', 'task': 't'}})"
    names = ("redis", "amqp")
    site.configure(
        "BROKERS = {'redis': 'redis://127.0.0.1:1/0', 'amqp': 'amqp://127.0.0.1:1//'}\n"
        f"PATTERNS = [{', '.join(pattern.format(site.data, name, name) for name in names)}]\n"
    )
    site.start()

    def told() -> bool:
        found = site.status()["brokers"]
        return all("refused" in found[name]["trouble"] for name in names)

    wait_until(told, 40, "both are shown")
    shown = site.notify("status").stdout.partition("Troubles")[2]
    assert all(f"broker {name}" in shown for name in names)
    site.stop()
