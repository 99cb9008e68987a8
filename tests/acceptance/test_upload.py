"""An upload through a real FTP server becomes one task, executed with the final path."""

from __future__ import annotations

import io
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.started import MOVING, NOTIFIED, SENDING, Daemon
from tests.acceptance.workers import Bench
from tests.servers.proftpd import ProFTPD
from tests.waiting import wait_until

COUNT = 300
CLIENTS = 2

CONFIG = """\
from collections import OrderedDict

ProFTPD = True

BROKERS = {{
    'lizard': {rabbit!r},
    '3di': {redis!r},
}}

WATCHES = [
    {{'path': {upload!r}, 'rec': True, 'auto_add': True}},
]

PATTERNS = OrderedDict([
    ('{upload}/*/events/*.csv', {{'broker': 'lizard', 'task': 'process_events'}}),
    ('{upload}/*.csv', {{'broker': 'lizard', 'task': 'process_timeseries'}}),
    ('{upload}/*.nc', {{'broker': '3di', 'task': '3di_task'}}),
])

MOVES = {{
    {upload!r}: {storage!r},
}}
"""
CELERYCONFIG = """\
CELERYD_HIJACK_ROOT_LOGGER = False
CELERY_ROUTES = {'lizard_nxt.tasks.import_raster_task': {'queue': 'single_worker'}}
"""
KINDS = (
    ("events/{}.csv", "process_events"),
    ("raw/{}.csv", "process_timeseries"),
    ("grids/{}.nc", "3di_task"),
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
MODES = [
    pytest.param({}, id="plain"),
    pytest.param({"hidden_stores": True}, id="HiddenStores"),
    pytest.param({"hidden_stores": True, "group_owner": "daemon"}, id="GroupOwner", marks=as_root),
]


def plan() -> dict[str, str]:
    """Return the task for each relative path."""
    planned = {}
    for number in range(COUNT):
        name, task = KINDS[number % len(KINDS)]
        planned[f"user{number % 6}/run{number}/" + name.format(number)] = task
    return planned


def content(path: str) -> bytes:
    return f"{path},{'x' * (len(path) % 13)}\n".encode()


def upload_part(server: ProFTPD, paths: list[str]) -> None:
    """MKD, MKD, STOR at once, as a client does that mirrors a tree."""
    made = set()
    with server.ftp(timeout=30) as ftp:
        for path in paths:
            above = path.split("/")[:-1]
            for depth in range(1, len(above) + 1):
                directory = "/".join(above[:depth])
                if directory not in made:
                    ftp.mkd(directory)
                    made.add(directory)
            ftp.storbinary(f"STOR {path}", io.BytesIO(content(path)))


class Halfway:
    """An upload that stays half-done until it is told to go on."""

    def __init__(self, server: ProFTPD, name: str) -> None:
        self._ftp = server.ftp(timeout=60)
        self._data = self._ftp.transfercmd(f"STOR {name}")
        self._rest = content(name)
        self._data.sendall(self._rest[:5])
        hidden = f".in.{name}." if server.hidden_stores else name
        there = server.root / hidden
        wait_until(lambda: there.exists() and there.stat().st_size == 5, what=f"{there}")

    def finish(self) -> None:
        self._data.sendall(self._rest[5:])
        self._data.close()
        self._ftp.voidresp()

    def close(self) -> None:
        self._data.close()
        self._ftp.close()


def check_task(task: dict[str, Any], source: Path, final: Path, size: int) -> None:
    headers = task["headers"]
    assert task["args"] == [str(final)]
    assert task["kwargs"] == {}
    assert task["opened"] == [size]
    assert headers["watchman_source"] == str(source)
    assert headers["watchman_size"] == size
    assert headers["watchman_mtime"] == pytest.approx(final.stat().st_mtime, abs=1e-3)
    assert final.stat().st_mtime - 1 < headers["watchman_arrived"] < time.time()
    assert headers["watchman_host"] == socket.gethostname()


@pytest.mark.parametrize("mode", MODES)
def test_300_uploads_into_new_directories(
    mode: dict[str, Any],
    ftp_directory: Path,
    storage: Path,
    daemon: Callable[..., Daemon],
    on_rabbit: Bench,
    on_redis: Bench,
) -> None:
    planned = plan()
    with ProFTPD(ftp_directory, **mode) as server:
        root = server.root
        notify = daemon(
            CONFIG.format(
                rabbit=on_rabbit.url, redis=on_redis.url, upload=str(root), storage=str(storage)
            )
        )
        notify.config.with_name("celeryconfig.py").write_text(CELERYCONFIG)
        with notify, closing(Halfway(server, "slow.csv")) as slow:
            parts = [list(planned)[client::CLIENTS] for client in range(CLIENTS)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda part: upload_part(server, part), parts))
            upload_part(server, ["other/readme.txt"])
            benches = {path: on_redis if path.endswith(".nc") else on_rabbit for path in planned}
            for bench in (on_rabbit, on_redis):
                bench.wait_for(str(storage / path) for path in planned if benches[path] is bench)
            wait_until((storage / "other/readme.txt").exists, what="the file without a task")
            assert not (storage / "slow.csv").exists()
            slow.finish()
            on_rabbit.wait_for([str(storage / "slow.csv")])
            notify.stop()
        for bench in (on_rabbit, on_redis):
            bench.flush()

    benches["slow.csv"], planned["slow.csv"] = on_rabbit, "process_timeseries"
    tasks = {bench: {t["args"][0]: t for t in bench.executed()} for bench in (on_rabbit, on_redis)}
    for path, name in planned.items():
        task = tasks[benches[path]].get(str(storage / path))
        assert task is not None, f"no task for {path}"
        assert task["name"] == name
        check_task(task, root / path, storage / path, len(content(path)))
    for bench in (on_rabbit, on_redis):
        mine = [path for path in planned if benches[path] is bench]
        assert len(bench.executed()) == len(mine), "a task was doubled, or is for something else"
    assert len({task["id"] for both in tasks.values() for task in both.values()}) == len(planned)

    every = {*planned, "other/readme.txt"}
    moved = {str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()}
    assert moved == every
    assert all((storage / path).read_bytes() == content(path) for path in every)
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    check_log(notify, every, len(planned))


def check_log(notify: Daemon, every: set[str], tasks: int) -> None:
    lines = notify.lines()
    assert not [line for line in lines if ".in." in line or "[ERROR]" in line]
    notified = Counter(line.partition(NOTIFIED)[2] for line in lines if NOTIFIED in line)
    assert set(notified.values()) == {1}
    assert len(notified) == len(every)
    moving = [re.search(rf"{MOVING}\S*/root/(\S+) to \S*/storage/(\S+)$", line) for line in lines]
    assert Counter((m[1], m[2]) for m in moving if m) == Counter((path, path) for path in every)
    assert sum(SENDING in line for line in lines) == tasks
