"""The unit of ``notify web``: systemd takes it, it is tight, and it fits its command."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from tests import readme
from tests.acceptance.deploy.booted import Booted
from tests.acceptance.deploy.test_booted import CONFIG as CONFIG_TEXT
from tests.acceptance.deploy.test_unit import EXPOSURE, analyze
from tests.acceptance.deploy.units import CONFIG, DEPLOY, PROGRAM, UNIT, settings
from tests.waiting import wait_until
from watchman.errors import ConfigError
from watchman.web.command import web

WEB_UNIT = DEPLOY / "watchman-web.service"
WHAT_IT_NEEDS_OF_THE_OTHER = ("User", "Group")


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = tmp_path / WEB_UNIT.name
    unit.write_text(WEB_UNIT.read_text(encoding="utf-8").replace(PROGRAM, sys.executable))
    done = analyze("verify", "--man=no", unit)
    told = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])


def test_it_is_tight() -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", WEB_UNIT)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    assert "Overall exposure level for watchman-web.service" in done.stdout


def test_it_can_write_nothing_and_has_no_powers() -> None:
    found = settings(WEB_UNIT)
    writing = {"ReadWritePaths", "StateDirectory", "LogsDirectory", "RuntimeDirectory"}
    assert not writing & found.keys()
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert found["IPAddressDeny"] == ["any"]


def test_it_is_beside_the_daemon() -> None:
    found, daemons = settings(WEB_UNIT), settings(UNIT)
    assert found["ExecStart"] == [f"{PROGRAM} web --config {CONFIG}"]
    for name in WHAT_IT_NEEDS_OF_THE_OTHER:
        assert found[name] == daemons[name]
    assert found["RestartPreventExitStatus"] == [str(ConfigError.exit_status)]
    [listen] = [one for one in web.params if one.name == "address"]
    assert isinstance(listen, click.Option)
    address = f"http://{listen.default}/"
    assert address in WEB_UNIT.read_text(encoding="utf-8")
    assert re.findall(r"http://127\.0\.0\.1:900[2-9]/", readme.TEXT) == [address]


@pytest.mark.timeout(300)
def test_it_shows_a_daemon_whose_files_it_cannot_write(tmp_path: Path) -> None:
    read = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9002/{}').read().decode())"
    )
    with Booted(tmp_path) as machine:

        def page(path: str = "") -> str:
            done = machine.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(read.format(path))}")
            return done.stdout

        machine.install()
        machine.write("/etc/systemd/system/watchman-web.service", WEB_UNIT.read_text("utf-8"))
        for unit in ("watchman", "watchman-web"):  # the interpreter may be in /root
            drop_in = f"/etc/systemd/system/{unit}.service.d/test.conf"
            machine.write(drop_in, "[Service]\nProtectHome=no\n")
        machine.write(CONFIG, CONFIG_TEXT)
        machine.do("chown root:watchman /srv/ftp /mnt/storage; chmod 2775 /srv/ftp /mnt/storage")
        machine.do("ip link set lo up; systemctl daemon-reload")
        machine.do("systemctl start watchman watchman-web; echo x >/srv/ftp/a.csv")
        wait_until(
            lambda: "/mnt/storage/" in page(), 30.0, "the page of a moved file", interval=0.5
        )
        assert ">Active</h1>" in page()
        wait_until(lambda: ">sent<" in page("files"), 20.0, "it is sent", interval=0.5)
        machine.do("systemctl stop watchman")
        wait_until(lambda: ">Inactive</h1>" in page(), 20.0, "it says so", interval=0.5)
        pid = machine.do("systemctl show --value --property=MainPID watchman-web")
        told = machine.do(f"cat /proc/{pid}/status")
        assert "\nSeccomp:\t2\n" in told
        assert f"\nCapEff:\t{0:016x}\n" in told
        machine.do("systemctl stop watchman-web")
        result = machine.do("systemctl show --value --property=Result watchman-web")
        assert result == "success"
