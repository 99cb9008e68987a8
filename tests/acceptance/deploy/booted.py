"""A systemd of the tests' own, as the first process of name spaces that end with it.

Its root is this machine's, with all changes in memory; it sees no other process, no network and no
kernel settings that it could change.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.acceptance.deploy.units import DEPLOY, PROGRAM
from tests.checkout import ROOT
from tests.servers import require, tail
from tests.waiting import wait_until

SYSTEMD = "/usr/lib/systemd/systemd"
NOT_STARTED = ("sysctl", "modules-load", "binfmt", "remount-fs", "udevd", "udev-trigger")
"""Services that are about the machine."""
SCRIPT = f"""set -eu
top=$1; shift
mount -t tmpfs tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
cd "$top/root"
for place in "$@"; do mkdir -p ".$place"; mount --rbind "$place" ".$place"; done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
mkdir -p etc/systemd/system etc/sysusers.d srv/ftp mnt/storage etc/watchman opt/watchman/bin
find etc/systemd/system -name '*.wants' -prune -exec rm -r {{}} +
for name in {" ".join(NOT_STARTED)}; do
    ln -sf /dev/null "etc/systemd/system/systemd-$name.service"
done
[ ! -d root ] || chmod a+x root
echo uninitialized >etc/machine-id
mkdir -p old
pivot_root . old
umount -l old
echo booting
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin {SYSTEMD} --system \\
    --unit=basic.target --log-target=null --show-status=no </dev/null >/dev/null 2>&1
"""


class Booted:
    """A context manager; skips the test where this machine does not let it be made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "boot.log"
        self._pid = 0

    def __enter__(self) -> Booted:
        if os.geteuid() != 0 or not os.access(SYSTEMD, os.X_OK):
            pytest.skip("needs root and a systemd")
        top = self._directory / "booted"
        top.mkdir()
        # What may be mounts of their own, of which the new root sees nothing.
        places = sorted({str(ROOT), sys.prefix, sys.base_prefix} - {"/usr", "/"})
        spaces = ("pid", "mount", "uts", "ipc", "cgroup", "net")
        argv = [require("unshare"), "--fork", "--kill-child", "--propagation", "private"]
        argv += [f"--{space}" for space in spaces]
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [*argv, "sh", "-c", SCRIPT, "sh", str(top), *places],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._unshare.stdout is not None
        try:
            select.select([self._unshare.stdout], [], [], 20.0)
            if self._unshare.stdout.readline() != b"booting\n":
                pytest.skip(f"no systemd of its own can be had here: {tail(self._log)}")
            [child] = psutil.Process(self._unshare.pid).children()
            self._pid = child.pid
            self._await_boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _await_boot(self) -> None:
        # Only its socket tells that it can be talked to; "degraded" would do as well.
        try:
            wait_until(lambda: self._state() in {"running", "degraded"}, 40.0, "it has booted")
        except AssertionError as error:
            pytest.skip(f"no systemd of its own can be had here: {error}")

    def _state(self) -> str:
        return self.run("systemctl is-system-running").stdout.strip()

    def _end(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._pid:
                psutil.Process(self._pid).kill()
        self._unshare.kill()
        self._unshare.wait(20)
        if self._unshare.stdout is not None:
            self._unshare.stdout.close()

    def run(self, script: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script of the shell inside."""
        return subprocess.run(
            [require("nsenter"), f"--target={self._pid}", "--all", "sh", "-euc", script],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def do(self, script: str, text: str = "") -> str:
        """Run a script that must work; return what it prints."""
        done = self.run(script, text)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        self.do(f"mkdir -p {os.path.dirname(path)}; cat >{path}", text)

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.do(f"systemctl show --value --property={name} watchman")

    def install(self) -> None:
        """Install unit and user, with this interpreter and checkout as the command."""
        python, root = shlex.quote(sys.executable), shlex.quote(str(ROOT))
        command = f'PYTHONPATH={root} exec {python} -m watchman "$@"'
        self.write(PROGRAM, f"#!/bin/sh\n{command}\n")
        self.do(f"chmod 755 {PROGRAM}")
        for name, place in (
            ("sysusers.d/watchman.conf", "/etc/sysusers.d/watchman.conf"),
            ("watchman.service", "/etc/systemd/system/watchman.service"),
        ):
            self.write(place, (DEPLOY / name).read_text(encoding="utf-8"))
        self.do("systemd-sysusers && systemctl daemon-reload")
