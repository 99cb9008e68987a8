"""A broker that is down holds up only what is meant for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.started import NOTIFIED, Daemon
from tests.acceptance.workers import Bench, queued
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

COUNT, DIRECTORIES = 1000, 7
SILENCE, DELAY = 10.0, 8.0
"""Seconds for which a silent Redis is waited for, and less."""

CONFIG = """\
BROKERS = {{'lizard': {rabbit!r}, '3di': {{
    'url': {redis!r}, 'transport_options': {{'socket_timeout': {silence}}}}}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [
    ('{upload}/*.csv', {{'broker': 'lizard', 'task': 'lizard_task'}}),
    ('{upload}/*.nc', {{'broker': '3di', 'task': '3di_task'}}),
]
"""


def last_time(notify: Daemon, words: str) -> float:
    """Return when the log had the words last, in seconds, by its own times."""
    line = [line for line in notify.lines() if words in line][-1]
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


@contextmanager
def down(server: RedisServer, number: int) -> Iterator[None]:
    """Have it ended by a signal and started again; by SIGSTOP it only falls silent."""
    if number == signal.SIGSTOP:
        server.pause()
        yield
        server.resume()
    else:
        server.stop(number)
        yield
        assert server.process is None
        server.start()


@pytest.mark.parametrize(
    ("moving", "number"),
    [(False, signal.SIGKILL), (True, signal.SIGTERM), (True, signal.SIGSTOP)],
    ids=["killed", "ended", "silent"],
)
def test_redis_is_down_for_1000_uploads(
    moving: bool,
    number: int,
    upload: Path,
    storage: Path,
    daemon: Callable[..., Daemon],
    own_redis: RedisServer,
    on_rabbit: Bench,
) -> None:
    text = CONFIG.format(
        rabbit=on_rabbit.url, redis=own_redis.url, upload=str(upload), silence=SILENCE
    )
    if moving:
        text += f"MOVES = {{{str(upload)!r}: {str(storage)!r}}}\n"
    final = storage if moving else upload
    for directory in range(DIRECTORIES):
        (upload / f"d{directory}").mkdir()
    with daemon(text) as notify:
        (upload / "first.nc").touch()
        wait_until(lambda: queued(own_redis.url), what="Redis takes tasks")
        # Each of the two kinds comes into all of the directories.
        names = [f"d{n % DIRECTORIES}/{n:04d}.{('csv', 'nc')[n % 2]}" for n in range(COUNT)]
        csv = [str(final / name) for name in names if name.endswith(".csv")]
        with down(own_redis, number):
            for name in names:
                (upload / name).write_text(name)
            on_rabbit.wait_for(csv, 20)
            notify.wait_for(NOTIFIED, COUNT + 1)
            notify.wait_for("Broker 3di takes no tasks")
        wait_until(
            lambda: len({task.task_id for task in queued(own_redis.url)}) > COUNT // 2,
            60,
            "Redis's half is sent",
            interval=0.1,
        )
        notify.wait_for("Broker 3di takes tasks again")
        notify.stop()
    on_rabbit.flush()

    delay = last_time(notify, "Sending task lizard_task") - last_time(notify, ".csv")
    assert delay < DELAY, "RabbitMQ's half had to wait for Redis"
    assert sorted(task["args"][0] for task in on_rabbit.executed()) == sorted(csv)
    tasks = queued(own_redis.url)
    if number == signal.SIGSTOP:
        # What it was sent before it fell silent it found when it awoke: the same again.
        tasks = list(dict.fromkeys(tasks))
    expected = ["first.nc", *[name for name in names if name.endswith(".nc")]]
    assert [task.path for task in tasks] == [str(final / name) for name in expected]
    assert [task.source for task in tasks] == [str(upload / name) for name in expected]
    assert len({task.task_id for task in tasks}) == len(tasks) == len(expected)
    assert notify.count("Broker 3di takes no tasks") == 1
    assert notify.count("Broker lizard") == 0
