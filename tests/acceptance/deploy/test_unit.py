"""The unit is one that systemd takes, tight enough, and true of what notify does."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import readme
from tests.acceptance.deploy.units import CONFIG, DROP_INS, PROGRAM, UNIT, settings
from tests.checkout import ROOT
from tests.servers import require
from watchman.daemon.control import STOP_TIMEOUT
from watchman.errors import ConfigError
from watchman.status.overview import STALE

EXPOSURE = 25
"""Tenths of the 10 points of `systemd-analyze security` that are the most."""
CHOICES = [(), *((path.name,) for path in sorted(DROP_INS.iterdir()))]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require("systemd-analyze"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version").stdout)
    assert found is not None
    return int(found[1])


def installed(directory: Path, drop_ins: tuple[str, ...], program: str = PROGRAM) -> Path:
    """Copy the unit and some drop-ins, as an administrator does."""
    if "notify-reload.conf" in drop_ins and version() < 253:
        pytest.skip("Type=notify-reload needs systemd 253")
    unit = directory / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    assert f"\nExecStart={PROGRAM} run --config {CONFIG}\n" in text
    unit.write_text(text.replace(PROGRAM, program), encoding="utf-8")
    (directory / DROP_INS.name).mkdir()
    for name in drop_ins:
        shutil.copy(DROP_INS / name, directory / DROP_INS.name)
    return unit


def test_every_drop_in_is_looked_at() -> None:
    assert CHOICES == [(), ("moves.conf",), ("nfs.conf",), ("notify-reload.conf",)]


@pytest.mark.parametrize("drop_ins", CHOICES)
def test_systemd_understands_every_line(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    # It looks for the programs as well.
    unit = installed(tmp_path, drop_ins, sys.executable)
    done = analyze("verify", "--man=no", unit)
    told = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert (done.returncode, told) == (0, [])


def test_a_mistake_would_be_told(tmp_path: Path) -> None:
    unit = installed(tmp_path, (), sys.executable)
    unit.write_text(unit.read_text() + "[Service]\nProtectSistem=strict\n")
    done = analyze("verify", "--man=no", unit)
    assert "Unknown key name 'ProtectSistem'" in done.stderr.replace("key '", "key name '")


@pytest.mark.parametrize("drop_ins", CHOICES)
def test_it_is_tight(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    unit = installed(tmp_path, drop_ins)
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    assert "Overall exposure level for watchman.service" in done.stdout


def test_what_it_says_is_what_notify_does() -> None:
    found = settings(UNIT)
    assert found["Type"] == ["notify"]
    # The process that systemd has started is the one that speaks (daemon/test_systemd.py).
    assert found["NotifyAccess"] == ["main"]
    assert found["RestartPreventExitStatus"] == [str(ConfigError.exit_status)]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert signal.Signals["SIGHUP"]
    # Later than `status` says that it hangs, also where only every second feed is heard.
    assert int(found["WatchdogSec"][0]) / 2 > STALE
    assert int(found["TimeoutStopSec"][0]) > STOP_TIMEOUT
    assert found["StateDirectory"] == found["User"] == found["Group"] == ["watchman"]


def test_the_readme_installs_what_is_there(tmp_path: Path) -> None:
    commands = re.findall(r"^    \$ (.*)$", readme.SYSTEMD, re.MULTILINE)
    assert [command.split()[0] for command in commands[5:]] == [
        "systemd-sysusers",
        *["systemctl"] * 2,
    ]
    assert commands[0].endswith(f" -m venv {Path(PROGRAM).parents[1]}")
    assert commands[1] == f"{Path(PROGRAM).parent}/pip install --constraint constraints.txt ."
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "config.py").write_text("")
    for directory in ("etc/sysusers.d", "etc/systemd/system"):
        (tmp_path / directory).mkdir(parents=True)
    for command in commands[2:5]:
        here = command.replace(" /etc/", " etc/")
        assert here != command
        subprocess.run(here.split(), cwd=tmp_path, check=True)
    made = [path for path in (tmp_path / "etc").rglob("*") if path.is_file()]
    assert {f"/{path.relative_to(tmp_path)}" for path in made} == {
        CONFIG,
        "/etc/sysusers.d/watchman.conf",
        "/etc/systemd/system/watchman.service",
    }
    for name in re.findall(r"``(watchman\.service\.d/[\w.-]+)``", readme.SYSTEMD):
        assert (ROOT / "deploy" / name).exists()
    assert f"``STATE_DIR = '/var/lib/{settings(UNIT)['StateDirectory'][0]}'``" in readme.SYSTEMD
