"""The snippets for logrotate, systemd-sysusers and systemd-tmpfiles, run by these programs."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.daemon.conftest import site as site  # noqa: PLC0414 — a fixture, for this module too
from tests.acceptance.daemon.site import Site, end
from tests.acceptance.deploy.units import CONFIG, DEPLOY, PROGRAM, UNIT, settings
from tests.checkout import ROOT
from tests.servers import require
from tests.waiting import wait_until

LOGROTATE = DEPLOY / "logrotate.d/watchman"
SYSUSERS = DEPLOY / "sysusers.d/watchman.conf"
TMPFILES = DEPLOY / "tmpfiles.d/watchman.conf"
OWN_LOG = """
LOGGING = {{
    'version': 1,
    'formatters': {{'f': {{'format': '%(name)s: %(message)s'}}}},
    'handlers': {{'file': {{'class': 'logging.FileHandler', 'filename': {!r}, 'formatter': 'f'}}}},
    'root': {{'level': 'INFO', 'handlers': ['file']}},
}}
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False
    )


class Logrotate:
    """logrotate with the snippet, for a site."""

    def __init__(self, site: Site) -> None:
        self._program = require("logrotate")
        self.logs = site.top / "logs"
        self.logs.mkdir(exist_ok=True)
        self._state = site.top / "logrotate.state"
        self._config = site.top / "logrotate.conf"
        own = f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
        notify = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m watchman"
        text = LOGROTATE.read_text(encoding="utf-8")
        for old, new in (
            ("/var/log/watchman/", f"{self.logs}/"),
            ("/var/lib/watchman/", f"{site.top}/var/"),
            ("su watchman watchman", f"su {own}"),
            (PROGRAM, notify),
            (CONFIG, str(site.top / "config.py")),
        ):
            assert old in text
            text = text.replace(old, new)
        self._config.write_text(text, encoding="utf-8")
        self._config.chmod(0o644)

    def rotate(self, *options: str) -> str:
        done = run(self._program, "--verbose", "--state", self._state, *options, self._config)
        assert done.returncode == 0, done.stderr
        assert "error: " not in done.stderr, done.stderr
        return done.stderr


def test_logrotate_understands_it_where_nothing_is_yet(site: Site) -> None:
    told = Logrotate(site).rotate("--debug")
    assert "rotating pattern: " in told
    assert "copytruncate" not in LOGROTATE.read_text().partition("{")[2]


def test_the_output_of_a_daemon_goes_on_in_a_new_file(site: Site) -> None:
    site.start()
    rotate = Logrotate(site)
    for number in (1, 2):
        # Until watchman has the new one, it writes to the old one: no line is lost.
        told = rotate.rotate("--force")
        assert f"renaming {site.out} to " in told
        wait_until(site.out.exists, what="it is opened again")
        wait_until(lambda: "Watching 1 directory" in site.out.read_text(), what="it is reloaded")
        (site.data / f"{number}.csv").write_text("x")
        wait_until(lambda: "Sending task" in site.out.read_text(), what="a line in the new file")
    assert "watchman.service: Watching 1" in site.out.with_name("watchman.out.1").read_text()
    site.stop()


def test_so_does_what_a_handler_writes_under_systemd(site: Site) -> None:
    rotate = Logrotate(site)
    log = rotate.logs / "watchman.log"
    site.configure(OWN_LOG.format(str(log)))
    with site.popen("run") as daemon:
        try:
            wait_until(lambda: log.exists() and "Watching 1" in log.read_text(), 30.0, "it watches")
            rotate.rotate("--force")
            wait_until(lambda: log.exists() and "Watching 1" in log.read_text(), 30.0, "again")
            assert "Watching 1 " in log.with_name("watchman.log.1").read_text()
            assert "Reloaded" not in log.with_name("watchman.log.1").read_text()
        finally:
            end(daemon.pid)


@as_root
def test_the_user_and_its_directories(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = run(require("systemd-sysusers"), f"--root={tmp_path}", SYSUSERS)
    assert done.returncode == 0, done.stderr
    [line] = [
        line for line in (tmp_path / "etc/passwd").read_text().splitlines() if "watchman" in line
    ]
    name, _, uid, gid, _, home, shell = line.split(":")
    [user] = settings(UNIT)["User"]
    assert (name, home) == (user, "/var/lib/watchman")
    assert shell.endswith("/nologin")
    done = run(require("systemd-tmpfiles"), "--create", f"--root={tmp_path}", TMPFILES)
    assert done.returncode == 0, done.stderr
    for path, mode in (("var/lib/watchman", 0o700), ("var/log/watchman", 0o750)):
        found = (tmp_path / path).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (int(uid), int(gid), mode)


def test_directories_are_those_of_the_unit() -> None:
    lines = re.findall(r"^d (\S+) 0?(\d+) (\S+) (\S+) -$", TMPFILES.read_text(), re.MULTILINE)
    found = settings(UNIT)
    [user], [group] = found["User"], found["Group"]
    expected = [
        (f"/var/{base}/{found[f'{kind}Directory'][0]}", found[f"{kind}DirectoryMode"][0])
        for kind, base in (("State", "lib"), ("Logs", "log"))
    ]
    assert lines == [(path, mode.lstrip("0"), user, group) for path, mode in expected]


def test_what_stands_in_for_places_is_not_cleaned_away(site: Site) -> None:
    from fnmatch import fnmatch

    from watchman.config import load
    from watchman.daemon import places

    [pattern] = re.findall(r"^x (\S+)$", TMPFILES.read_text(), re.MULTILINE)
    private = places.pid_file(load(str(site.top / "config.py"))).private
    assert fnmatch(f"/tmp/{os.path.basename(private)}", pattern)
