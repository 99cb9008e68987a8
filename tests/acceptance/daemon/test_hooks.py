"""Hooks of a real daemon: they are told, and whatever they do, files go their way."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.integration.monitoring.receiver import Event, Receiver, writing, written
from tests.waiting import wait_until

BROKER = "BROKERS['away'] = 'redis://127.0.0.1:1/0'\n"
TO_AWAY = BROKER + "PATTERNS = [('*', {'broker': 'away', 'task': 't'})]\n"


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def wait_for(events: list[Event] | Path, number: int, seconds: float = 40.0) -> list[Event]:
    def told() -> list[Event] | None:
        found = written(events) if isinstance(events, Path) else events
        return found if len(found) >= number else None

    return wait_until(told, seconds, f"{number} events")


def test_troubles_by_url_and_failures_by_command(site: Site, receiver: Receiver) -> None:
    failed, recovered = site.top / "failed", site.top / "recovered"
    (site.top / "alerts.py").write_text(
        "import json\n\n\ndef told(event):\n"
        f"    with open({str(recovered)!r}, 'a') as file:\n"
        "        print(json.dumps(event), file=file)\n"
    )
    hooks = (
        f"ON_TROUBLE = 'http://{receiver.address}/'\nON_RECOVERED = 'alerts.told'\n"
        f"ON_FAILED = {writing(failed)!r}\n"
    )
    try:
        site.configure(TO_AWAY + hooks)
        site.start()
        for number in range(30):
            (site.data / f"{number}.csv").touch()
        wait_for(receiver.events, 1)
        shutil.move(site.data, site.top / "elsewhere")
        wait_for(receiver.events, 2)
        shutil.move(site.top / "elsewhere", site.data)
        [first] = wait_for(recovered, 1)
        # With its broker the deliveries for it fail.
        site.configure(hooks)
        assert site.notify("reload").returncode == 0
        [event] = wait_for(failed, 1)
        wait_until(lambda: "30 tasks for it have failed" in site.out.read_text(), 20)
    finally:
        site.stop()
        receiver.close()
    subjects = [one["subject"] for one in receiver.events]
    assert subjects == ["broker away", str(site.data)]
    assert "refused" in receiver.events[0]["message"]
    assert (first["event"], first["subject"]) == ("recovered", str(site.data))
    assert event["count"] == 30
    assert len(event["deliveries"]) == 10
    assert {one["reason"] for one in event["deliveries"]} == {
        "the pattern's broker no longer exists"
    }
    assert site.out.read_text().count("hook ON_") == 0


def test_hooks_that_hang_and_fail_hold_up_nothing(site: Site) -> None:
    pids = site.top / "pids"
    hanging = [
        sys.executable,
        "-c",
        f"import os, signal; open({str(pids)!r}, 'w').write(str(os.getpid())); signal.pause()",
    ]
    away = site.top / "away"
    site.configure(
        f"WATCHES += [{{'path': {str(away)!r}}}]\n"
        f"ON_TROUBLE = {hanging!r}\n"
        "ON_RECOVERED = ['/nonexistent/program']\n"
    )
    site.start()
    wait_until(lambda: pids.exists() and pids.read_text(), 20, "it hangs")
    for number in range(200):
        (site.data / f"{number}.csv").touch()
    wait_until(lambda: site.out.read_text().count("Sending task") == 200, 20, "files go on")
    away.mkdir()
    wait_until(lambda: "hook ON_RECOVERED: the command" in site.out.read_text(), 30, "it is said")
    shown = site.notify("status").stdout.partition("Troubles")[2]
    assert "hook ON_RECOVERED" in shown
    assert "cannot be run: No such file or directory" in shown
    site.stop()
    # It went with the daemon.
    wait_until(lambda: not os.path.exists(f"/proc/{pids.read_text()}"), 20, "it is gone")
    assert "Traceback" not in site.out.read_text() + site.err.read_text()


def test_a_dry_run_calls_none(site: Site) -> None:
    told = site.top / "told"
    metrics = site.top / "watchman.prom"
    site.configure(
        f"WATCHES += [{{'path': '{site.top}/away'}}]\nON_TROUBLE = {writing(told)!r}\n"
        f"METRICS_FILE = {str(metrics)!r}\n"
    )
    with site.popen("run", "--dry-run") as process:
        assert process.stderr is not None
        # The third line of a dry run that watches; the trouble is said before it.
        for line in process.stderr:
            if "Watching 1 director" in line:
                break
        process.terminate()
        process.communicate(timeout=30)
    assert not told.exists()
    assert not metrics.exists()
    site.start()
    wait_for(told, 1)
    wait_until(metrics.exists, 20)
    site.stop()
