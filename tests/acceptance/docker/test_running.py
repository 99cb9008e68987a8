"""The development set-up without an engine: its files, run as processes beside each other.

What only an engine gives, the names of services and the places in containers, is replaced.
"""

from __future__ import annotations

import ftplib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import readme
from tests.acceptance.docker.test_files import services
from tests.acceptance.started import environment
from tests.checkout import ROOT
from tests.servers import Process, free_port, require, tail
from tests.servers.greeting import start
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman import config

DOCKER = ROOT / "docker"
ENTRYPOINT = DOCKER / "entrypoint"
NOBODY = 65534
UPLOADER, WATCHMAN = 1001, 1000
"""The users and the group of the Dockerfile."""
CAP_LEASE = 28
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself other powers")


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return the text with each key replaced, all of which it must have."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def test_the_configuration_names_the_services(tmp_path: Path) -> None:
    (tmp_path / "srv/ftp").mkdir(parents=True)
    text = (DOCKER / "config.py").read_text(encoding="utf-8")
    (tmp_path / "config.py").write_text(readme.placed(text, tmp_path), encoding="utf-8")
    shutil.copy(DOCKER / "celeryconfig.py", tmp_path)
    loaded = config.load(str(tmp_path / "config.py"), environ={})
    assert loaded.warnings == ()
    urls = [url for broker in loaded.brokers.values() for url in broker.urls]
    hosts = {match[1] for url in urls if (match := re.search(r"(?:@|//)([\w-]+):\d+/", url))}
    assert hosts == {"rabbitmq", "redis"} <= set(services())
    # Each broker has a worker.
    workers = re.findall(r"BROKER_URL: (\S+)", "".join(services().values()))
    assert sorted(workers) == sorted(urls)
    # What is written down outlives the container.
    assert f"- state:{loaded.state_dir}\n" in services()["watchman"]


class Site(NamedTuple):
    """Directories that any user can reach, unlike pytest's own."""

    root: Path
    ftp: Path
    """The volume ftproot, as the first container that mounts it makes it."""


@pytest.fixture
def site() -> Iterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="watchman-docker-"))
    root.chmod(0o755)
    ftp = root / "srv/ftp"
    ftp.mkdir(parents=True)
    os.chown(ftp, UPLOADER, WATCHMAN)
    ftp.chmod(0o2775)
    shutil.copytree(DOCKER, root / "docker")
    yield Site(root, ftp)
    shutil.rmtree(root)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """What is put in here ends with the test, the last one first."""
    started: list[Process] = []
    yield started
    for process in reversed(started):
        process.stop()


def proftpd(site: Site) -> tuple[Process, int]:
    """Start the FTP server of the set-up; return it with its port."""
    program, ftpasswd = require("proftpd"), require("ftpasswd")
    port = free_port()
    changes = {
        "0.0.0.0": "127.0.0.1",
        "Port 2121": f"SocketBindTight on\nPort {port}",
        "PassivePorts 30000 30009": "PassivePorts 49152 65534",
        "User proftpd": "User nobody",
        "/run/": f"{site.root}/",
        "/etc/proftpd/passwd": f"{site.root}/passwd",
    }
    text = (DOCKER / "proftpd.conf").read_text(encoding="utf-8")
    settings = site.root / "proftpd.conf"
    settings.write_text(replaced(text, changes), encoding="utf-8")
    ids = [f"--uid={UPLOADER}", f"--gid={WATCHMAN}", f"--home={site.ftp}", "--shell=/bin/false"]
    subprocess.run(
        [ftpasswd, "--passwd", "--stdin", f"--file={site.root}/passwd", "--name=ftp", *ids],
        input="ftp\n",
        text=True,
        check=True,
        capture_output=True,
    )
    argv = [program, "--nodaemon", "--config", str(settings)]
    return start(argv, site.root / "proftpd.log", port, b"220"), port


def upload(port: int, name: str, content: bytes) -> None:
    with ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", port, timeout=20)
        ftp.login("ftp", "ftp")
        ftp.storbinary(f"STOR {name}", BytesIO(content))


def worker(site: Site, url: str, name: str) -> Process:
    """Start a worker with the set-up's tasks, and return it when it takes some."""
    argv = [sys.executable, "-m", "celery", "--app", "tasks", "worker", "--loglevel", "INFO"]
    argv += ["--pool", "solo", "--hostname", f"{name}@test"]
    log = site.root / f"{name}.log"
    here = str(site.root / "docker")
    started = Process(argv, log, environment(BROKER_URL=url, PYTHONPATH=here, C_FORCE_ROOT="1"))

    def ready() -> bool:
        assert started.running, tail(log)
        return f"{name}@test ready." in tail(log)

    try:
        wait_until(ready, 60.0, f"the worker: {tail(log)}")
    except BaseException:
        started.stop()
        raise
    return started


@as_root
def test_an_upload_becomes_a_task_that_the_worker_logs(
    site: Site,
    processes: list[Process],
    rabbit_server: RabbitServer,
    redis_server: RedisServer,
) -> None:
    rabbit_server.delete("celery")
    redis_url = f"redis://127.0.0.1:{redis_server.port}/7"
    changes = {
        "amqp://guest:guest@rabbitmq:5672//": rabbit_server.url,
        "redis://redis:6379/0": redis_url,
        "/var/lib/watchman": f"{site.root}/state",
    }
    settings = site.root / "docker/config.py"
    text = readme.placed(replaced(settings.read_text(encoding="utf-8"), changes), site.root)
    settings.write_text(text, encoding="utf-8")
    server, port = proftpd(site)
    processes.append(server)
    processes.append(worker(site, rabbit_server.url, "worker"))
    processes.append(worker(site, redis_url, "worker-3di"))
    argv = [str(ENTRYPOINT), sys.executable, "-m", "watchman"]
    log = site.root / "watchman.log"
    processes.append(Process(argv, log, environment(WATCHMAN_CONFIG=str(settings))))
    wait_until(lambda: "Watching 1 directory" in tail(log), 30.0, "it watches")

    for name, content, by in (("data.csv", b"", "worker"), ("grid.nc", b"12345", "worker-3di")):
        upload(port, name, content)
        words = f"{site.ftp}/{name} has {len(content)} bytes"
        place = site.root / f"{by}.log"
        wait_until(lambda: words in tail(place), 30.0, f"{words} in {place}")  # noqa: B023 — at once
    lines = [line.split("] ", 1)[1] for line in tail(log).splitlines() if "watchman.notify" in line]
    shown = re.findall(r"^ +watchman_1 +\| .*?\[INFO\] (.*)$", readme.DOCKER, re.MULTILINE)
    assert len(shown) == 2
    assert [line.replace(str(site.root), "") for line in lines[:2]] == shown
    # What was uploaded may be moved by watchman's group.
    status = (site.ftp / "data.csv").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (UPLOADER, WATCHMAN, 0o664)


@as_root
def test_as_process_1_it_ends_when_it_is_told_to(site: Site, processes: list[Process]) -> None:
    settings = site.root / "config.py"
    settings.write_text(f"WATCHES = [{{'path': '{site.ftp}'}}]\nPATTERNS = []\n")
    log = site.root / "log"
    argv = [require("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += [str(ENTRYPOINT), sys.executable, "-m", "watchman"]
    outside = Process(argv, log, environment(WATCHMAN_CONFIG=str(settings)))
    processes.append(outside)
    wait_until(lambda: "Watching 1 directory" in tail(log), 30.0, "it watches")
    children = Path(f"/proc/{outside.popen.pid}/task/{outside.popen.pid}/children")
    [inside] = map(int, children.read_text().split())
    assert f"NSpid:\t{inside}\t1\n" in Path(f"/proc/{inside}/status").read_text()
    assert b"watchman" in Path(f"/proc/{inside}/cmdline").read_bytes()
    os.kill(inside, signal.SIGTERM)
    assert outside.popen.wait(20) == 0, tail(log)
    assert tail(log).endswith("Watching has been stopped\n")


@as_root
@pytest.mark.parametrize("allowed", [True, False])
def test_the_read_lease_is_handed_on_if_the_container_has_it(site: Site, allowed: bool) -> None:
    if os.statvfs(site.root).f_flag & os.ST_NOSUID:
        pytest.skip(f"{site.root} is mounted with nosuid, where capabilities of files do not count")
    setpriv = require("setpriv")
    lease = site.root / "setpriv-lease"
    shutil.copy(setpriv, lease)
    # What setcap(8) writes for cap_lease+ep: linux/capability.h, VFS_CAP_REVISION_2.
    value = struct.pack("<5I", 0x02000001, 1 << CAP_LEASE, 0, 0, 0)
    os.setxattr(lease, "security.capability", value)
    argv = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    argv += ["--bounding-set", "-all,+lease" if allowed else "-all"]
    argv += [str(site.root / "docker/entrypoint"), "cat", "/proc/self/status"]
    done = subprocess.run(
        argv,
        env={"PATH": f"{site.root}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    [effective] = re.findall(r"^CapEff:\t(\w+)$", done.stdout, re.MULTILINE)
    assert int(effective, 16) == (1 << CAP_LEASE if allowed else 0)
    assert f"Uid:\t{NOBODY}\t" in done.stdout
