"""The unit under a real systemd, with all that it forbids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deploy.booted import Booted
from tests.acceptance.deploy.units import CONFIG as CONFIG_FILE
from tests.acceptance.deploy.units import DROP_INS, PROGRAM
from tests.waiting import wait_until

CONFIG = """
BROKERS = {'local': 'filesystem://'}
WATCHES = [{'path': '/srv/ftp', 'rec': True, 'auto_add': True}]
PATTERNS = [('/srv/ftp/*.csv', {'broker': 'local', 'task': 'tasks.load'})]
MOVES = {'/srv/ftp': '/mnt/storage'}
STATE_DIR = '/var/lib/watchman'
"""
# The interpreter may be in /root. What seals the history gives way to others (nice), in a process
# that is only made when much of it is there.
DROP_IN = """[Service]
ProtectHome=no
ExecStartPost=/usr/bin/nice -n 19 /bin/true
WatchdogSec=2
RestartSec=0
"""
MESSAGES = "find /var/lib/watchman/broker -name '*.msg' ! -name '.*' | wc -l"
UPLOADER = 1001

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Booted]:
    """A machine on which watchman is installed and configured."""
    with Booted(tmp_path) as found:
        found.install()
        found.write("/etc/systemd/system/watchman.service.d/test.conf", DROP_IN)
        found.write(CONFIG_FILE, CONFIG)
        found.do("chown root:watchman /srv/ftp /mnt/storage; chmod 2775 /srv/ftp /mnt/storage")
        found.do("systemctl daemon-reload")
        yield found


def test_its_whole_life(machine: Booted) -> None:
    machine.do("systemctl start watchman")
    # `start` has waited for this.
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText") == "1 watch, 1 broker"
    pid = machine.show("MainPID")
    told = machine.do(f"cat /proc/{pid}/status")
    assert "\nNoNewPrivs:\t1\n" in told
    assert "\nSeccomp:\t2\n" in told
    assert f"\nCapEff:\t{1 << 28:016x}\n" in told

    # Somebody else's file, which only the lease can tell from one that is being written.
    machine.do("umask 022; mkdir -m 2775 /srv/ftp/anna; echo x >/srv/ftp/anna/a.csv")
    wait_until(lambda: machine.do(MESSAGES) == "1", 8.0, "its task", interval=0.2)
    assert machine.do("cat /mnt/storage/anna/a.csv; ls /srv/ftp/anna") == "x"

    machine.write(CONFIG_FILE, CONFIG + "BROKERS['b'] = 'filesystem://'\n")
    machine.do("systemctl reload watchman")
    wait_until(lambda: machine.show("StatusText") == "1 watch, 2 brokers", what="it is reloaded")
    assert machine.show("NRestarts") == "0"

    # It lives and does not watch.
    machine.do(f"kill -STOP {pid}")
    wait_until(lambda: machine.show("NRestarts") == "1", 20.0, "it is restarted", interval=0.2)
    wait_until(lambda: machine.show("ActiveState") == "active", 30.0, "it watches again")
    machine.do("umask 022; echo x >/srv/ftp/anna/b.csv")
    wait_until(lambda: machine.do(MESSAGES) == "2", 8.0, "the next task", interval=0.2)

    machine.do("systemctl stop watchman")
    assert machine.show("Result") == "success"
    machine.write(CONFIG_FILE, "PATTERNS = [")
    assert machine.run("systemctl start watchman").returncode != 0
    assert machine.show("ExecMainStatus") == "78"
    assert machine.show("ActiveState") == "failed"


def test_moves_of_what_is_only_its_owner_s(machine: Booted) -> None:
    name = "moves.conf"
    drop_in = (DROP_INS / name).read_text(encoding="utf-8")

    def upload(directory: str) -> None:
        give = f"-o {UPLOADER} -g {UPLOADER}"
        machine.do(f"install -d -m 755 {give} /srv/ftp/{directory}")
        # Under its name only when it has its owner: before that it may be moved.
        path = f"/srv/ftp/{directory}/a.csv"
        machine.do(f"install -m 600 {give} /etc/hostname {path}.part && mv {path}.part {path}")

    machine.do("systemctl start watchman")
    upload("anna")
    status = f"{PROGRAM} status --config {CONFIG_FILE} || :"  # as root; what is said counts
    wait_until(lambda: "/srv/ftp/anna" in machine.do(status).partition("Troubles")[2], 20.0)
    assert machine.do("find /mnt/storage -type f") == ""

    machine.write(f"/etc/systemd/system/watchman.service.d/{name}", drop_in)
    machine.do("systemctl daemon-reload; systemctl restart watchman")
    upload("bert")
    wait_until(lambda: machine.do(MESSAGES) == "2", 20.0, "their tasks", interval=0.2)
    moved = {"anna/a.csv": 600, "bert": 2755, "bert/a.csv": 600}  # as it was, with its parent's bit
    told = machine.do(f"cd /mnt/storage; stat -c '%n %u %g %a' {' '.join(moved)}")
    owned = [f"{path} {UPLOADER} {UPLOADER} {mode}" for path, mode in moved.items()]
    assert told.splitlines() == owned
    assert machine.do("find /srv/ftp -name '*.csv'") == ""
    done = machine.do(f"{PROGRAM} backup /tmp/b.tar --config {CONFIG_FILE}; tar -tvf /tmp/b.tar")
    assert "watchman/watchman" in done
