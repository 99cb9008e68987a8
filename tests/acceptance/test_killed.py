"""``kill -9`` in the middle of uploads: nothing lost, nothing doubled without a mark."""

from __future__ import annotations

import collections
import io
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.acceptance import writer
from tests.acceptance.started import MOVING, NOTIFIED, SENDING, Daemon
from tests.acceptance.workers import Bench, queued
from tests.servers import ended
from tests.servers.proftpd import ProFTPD
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

LONG = os.environ.get("WATCHMAN_LONG") == "1"
PHASES, WRITTEN, BY_FTP = 4, 1150 if LONG else 450, 100 if LONG else 50
"""Phases, and the files of each that come as plain writes and by FTP; 5,000 in all with
WATCHMAN_LONG=1."""
KILLS = PHASES - 1

CONFIG = """\
BROKERS = {{'3di': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [('{upload}/*.nc', {{'broker': '3di', 'task': '3di_task'}})]
MOVES = {{{upload!r}: {storage!r}}}
"""


def upload_by_ftp(server: ProFTPD, phase: int) -> list[str]:
    names = [f"ftp{phase}/{number}.nc" for number in range(BY_FTP)]
    with server.ftp(timeout=30) as ftp:
        ftp.mkd(f"ftp{phase}")
        for name in names:
            ftp.storbinary(f"STOR {name}", io.BytesIO(name.encode()))
    return names


@pytest.mark.parametrize("seed", [2])
def test_uploads_and_three_kills(
    seed: int,
    proftpd_hidden: ProFTPD,
    storage: Path,
    daemon: Callable[..., Daemon],
    on_redis: Bench,
) -> None:
    chance = random.Random(seed)
    instants = [
        (words, chance.randrange(50, WRITTEN * 2 // 3)) for words in (NOTIFIED, MOVING, SENDING)
    ]
    chance.shuffle(instants)
    root = proftpd_hidden.root
    expected: dict[str, bytes] = {}
    notify = daemon(CONFIG.format(url=on_redis.url, upload=str(root), storage=str(storage)))
    with ThreadPoolExecutor(1) as pool, notify:
        for phase in range(PHASES):
            first = phase * WRITTEN
            numbers = range(first, first + WRITTEN)
            expected |= {writer.name_of(n, 20): writer.content_of(n) for n in numbers}
            before = {words: notify.count(words) for words, _ in instants}
            writing = writer.start(root, first, first + WRITTEN, held=50)
            sending = pool.submit(upload_by_ftp, proftpd_hidden, phase)
            if phase < KILLS:
                words, further = instants[phase]
                notify.wait_for(words, before[words] + further, 30)
                notify.kill()
            writer.finish(writing)
            expected |= {name: name.encode() for name in sending.result(60)}
            if phase < KILLS:
                notify.start()
        assert len(expected) == PHASES * (WRITTEN + BY_FTP)
        on_redis.wait_for([str(storage / name) for name in expected], 60)
        notify.stop()
    on_redis.flush()

    executed = on_redis.executed()
    assert {task["name"] for task in executed} == {"3di_task"}
    ids = collections.defaultdict(set)
    for task in executed:
        ids[task["args"][0]].add(task["id"])
    assert set(ids) == {str(storage / name) for name in expected}
    assert {len(same) for same in ids.values()} == {1}
    assert len({task["id"] for task in executed}) == len(expected)
    for task in executed:
        name = task["args"][0].removeprefix(f"{storage}/")
        assert task["opened"] == [len(expected[name])]
        assert task["headers"]["watchman_source"] == f"{root}/{name}"

    found = {str(p.relative_to(storage)): p.read_bytes() for p in storage.rglob("*") if p.is_file()}
    assert found == expected
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert notify.count("[ERROR]") == notify.count("Traceback") == 0


def unread_bytes(port: int) -> int:
    """Return how many bytes wait for the server on a port of 127.0.0.1 (proc(5), net/tcp).

    Only on established connections (01): the end of one that was closed counts as a byte.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f"0100007F:{port:04X}"
    established = [row for row in rows if row[1] == local and row[3] == "01"]
    return sum(int(row[4].partition(":")[2], 16) for row in established)


def test_a_task_that_was_taken_and_not_noted_is_sent_again_under_its_id(
    upload: Path, storage: Path, tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    notify = daemon(CONFIG.format(url=server.url, upload=str(upload), storage=str(storage)))
    try:
        with notify:
            (upload / "first.nc").write_text("first")
            wait_until(lambda: queued(server.url), what="a connection to Redis")
            server.pause()
            (upload / "second.nc").write_text("second")
            wait_until(lambda: unread_bytes(server.port), what="the task is on its way")
            notify.kill()
            server.resume()
            wait_until(lambda: len(queued(server.url)) == 2, what="Redis takes what was sent")
            notify.start()
            wait_until(lambda: len(queued(server.url)) == 3, what="it is sent again")
            notify.stop()
        tasks = queued(server.url)
    finally:
        server.stop()
    names = ["first.nc", "second.nc", "second.nc"]
    assert [task.path for task in tasks] == [str(storage / name) for name in names]
    assert tasks[1] == tasks[2]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended, be it that nobody has taken note of it yet."""
    return [process for process in processes if not ended(process)]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_second_process_ends_with_the_daemon(
    end: str, upload: Path, storage: Path, daemon: Callable[..., Daemon], on_redis: Bench
) -> None:
    config = CONFIG.format(url=on_redis.url, upload=str(upload), storage=str(storage))
    with daemon(config) as notify:
        (helper,) = alive(psutil.Process(notify.pid).children())
        getattr(notify, end)()
        wait_until(lambda: not alive([helper]), what="the helper to end")
