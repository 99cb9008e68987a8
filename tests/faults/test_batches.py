"""Batches by the daemon: killed, told to reload, without its broker, and in a burst.

WATCHMAN_LONG=1 makes the burst 20,000 files, and restarts RabbitMQ too; and it kills at 300 random
moments instead of 8, WATCHMAN_KILLS at so many, WATCHMAN_SEED at others.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from amqp.exceptions import NotFound

from tests import embedded
from tests.faults.driver import Daemon, killed_at_random
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.worker import CeleryWorker
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import State

LONG = os.environ.get("WATCHMAN_LONG") == "1"
BURST = 20_000 if LONG else 1000
KILLS = int(os.environ.get("WATCHMAN_KILLS", "300" if LONG else "8"))
SEED = int(os.environ.get("WATCHMAN_SEED", "5"))
CONFIG = """\
BROKERS = {{'b': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [
    ('*.alone', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}}}}),
    ('*.main', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}},
                 'with': ['{{stem}}.side', '{{stem}}.more?'], 'set_after': 0.1}}),
    ('*', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}}, 'batch': {batch!r}}}),
]
MOVES = {moves!r}
"""


class Task(NamedTuple):
    """What a worker would get."""

    task_id: str
    path: str
    files: tuple[str, ...]
    """Empty where it has no such argument."""


def read(text: str | bytes) -> Task:
    message = json.loads(text)
    (path, *_), kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return Task(message["headers"]["id"], path, tuple(kwargs.get("files", ())))


class Site:
    """A directory to upload into, and a configuration; ``batch`` as PATTERNS has it."""

    def __init__(self, root: Path, url: str, batch: dict[str, Any], *, moved: bool = False) -> None:
        self.upload, self.store = root / "upload", root / "store"
        self.upload.mkdir()
        self.store.mkdir()
        self.final = self.store if moved else self.upload
        self.config = root / "config.py"
        self.state = root / "var"
        self.url, self.queue, self.batch = url, f"batches{root.name}", batch
        self.written: list[str] = []
        self.configure()

    def configure(self) -> None:
        moves = {str(self.upload): str(self.store)} if self.final == self.store else {}
        self.config.write_text(
            CONFIG.format(
                url=self.url,
                upload=str(self.upload),
                queue=self.queue,
                batch=self.batch,
                moves=moves,
            )
        )

    def write(self, *names: str) -> None:
        for name in names:
            path = self.upload / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.fsencode(name))
            self.written.append(str(self.final / name))

    def in_directory(self) -> list[Task]:
        return [read(path.read_bytes()) for path in embedded.messages(self.state)]

    def in_redis(self) -> list[Task]:
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            values: Any = client.lrange(self.queue, 0, -1)
        return [read(value) for value in reversed(values)]

    def wait(self, observe: Callable[[], list[Task]], seconds: float = 60.0) -> list[Task]:
        """Wait until all that was written is announced, and check that nothing is twice."""

        def is_announced() -> bool:
            return set(self.written) <= set(announced(observe()))

        wait_until(is_announced, seconds, "all files are announced", interval=0.05)
        found = observe()
        check(found, self.written)
        return found

    def waiting(self) -> int:
        """How many deliveries wait."""
        with open_reader(str(self.state)) as found:
            return found.counts().get(("b", State.READY), (0, 0))[0]


def announced(tasks: Iterable[Task]) -> list[str]:
    return [path for task in tasks for path in task.files or (task.path,)]


def check(tasks: Sequence[Task], written: Sequence[str]) -> None:
    """Each file is in one task, and a task that was sent twice is the same."""
    same: dict[str, set[Task]] = defaultdict(set)
    for task in tasks:
        same[task.task_id].add(task)
        assert not task.files or task.path == task.files[0]
    assert [many for many in same.values() if len(many) > 1] == []
    times = Counter(announced(set(tasks)))
    assert times == Counter(set(written))


POINTS = [
    *(("inside record after", 1), ("record after", 1), ("complete batches before", 1)),
    *(("complete batches after", 1), ("publish before", 1), ("publish after", 1)),
    *(("publish after", 2), ("note sent before", 1), ("note sent after", 1)),
]
MOVING = [("note ready before", 1), ("note ready after", 1), ("note ready after", 2)]


@pytest.mark.parametrize(
    ("point", "count", "moved"),
    [*((*point, False) for point in POINTS), *((*point, True) for point in MOVING)],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_killed_and_restarted(
    point: str, count: int, moved: bool, tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    batch = {"size": 3, "seconds": 0.3, "by": "directory"}
    site = Site(tmp_path, "filesystem://", batch, moved=moved)
    daemon(site.config).wait_watching().stop()
    first = daemon(site.config, ("kill", point, count)).wait_watching()
    for number in range(4):
        site.write(*(f"{directory}/{number}" for directory in "ab"), f"{number}.alone")
        wait_until(
            lambda: first.status is not None or site.waiting() == 0, 20, f"{point} or all is sent"
        )
    assert first.wait_end() == -signal.SIGKILL
    second = daemon(site.config).wait_watching()
    site.write("a/later", "b/later")
    tasks = site.wait(site.in_directory)
    second.stop()
    assert all(len({os.path.dirname(path) for path in task.files}) <= 1 for task in tasks)
    assert max(len(task.files) for task in tasks) <= 3


@pytest.mark.timeout(7200 if LONG else 120)
@pytest.mark.parametrize("moved", [False, True], ids=["in-place", "moved"])
def test_random_kills(tmp_path: Path, moved: bool, daemon: Callable[..., Daemon]) -> None:
    """At any moment, while files come, are moved and sent, and batches of several sizes fill up."""
    chance = random.Random(SEED + moved)
    site = Site(tmp_path, "filesystem://", {"size": 3, "seconds": 0.2}, moved=moved)
    running = daemon(site.config).wait_watching()
    for number in range(KILLS // 2):
        for part in range(chance.randrange(1, 4)):
            end = chance.choice(["", "", ".alone"])
            names = [f"{chance.choice('ab')}/{number}-{part}-{n}{end}" for n in range(5)]
            site.write(*names[: chance.randrange(1, 6)])
        if running.watches() and chance.random() < 0.3:
            os.kill(running.pid, signal.SIGHUP)
        # What was recorded keeps the batch that it had.
        site.batch = {"size": chance.choice([1, 2, 4]), "seconds": chance.choice([0.1, 0.4])}
        if chance.random() < 0.5:
            site.batch["by"] = "directory"
        site.configure()
        running = killed_at_random(running, chance, lambda: daemon(site.config))
    running.wait_watching()
    site.write("a/later", "b/later.alone")
    tasks = site.wait(site.in_directory, 600 if LONG else 60)
    wait_until(lambda: site.waiting() == 0, 60, "all is noted")
    running.stop()
    assert max(len(task.files) for task in tasks) > 1
    assert "Traceback" not in running.log.read_text("utf-8", "replace")


def test_what_waits_is_kept_over_a_stop_and_a_reload_as_it_was_recorded(
    tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    site = Site(tmp_path, "filesystem://", {"size": 4, "seconds": 600})
    first = daemon(site.config).wait_watching()
    site.write("1", "2", "3")
    wait_until(lambda: site.waiting() == 3, what="they are recorded")
    site.batch = {"size": 2, "seconds": 600}
    site.configure()
    os.kill(first.pid, signal.SIGHUP)
    wait_until(lambda: first.output.count("Watching") == 2, what="it has reloaded")
    site.write("4", "5", "6")
    wait_until(lambda: len(announced(site.in_directory())) == 2, what="a new one is full")
    wait_until(lambda: site.waiting() == 4, what="that is noted")
    first.stop()  # and nothing is sent because of that
    assert site.waiting() == 4
    site.batch = {"size": 4, "seconds": 600}
    site.configure()
    second = daemon(site.config).wait_watching()
    site.write("7", "8")
    wait_until(lambda: len(site.in_directory()) == 2, what="the first is full")
    second.stop()
    names = [[os.path.basename(path) for path in task.files] for task in site.in_directory()]
    assert sorted(map(len, names)) == [2, 4]
    assert names[1][:3] == ["1", "2", "3"]


def test_redis_is_away_while_files_come(
    tmp_path: Path, own_redis: RedisServer, daemon: Callable[..., Daemon]
) -> None:
    site = Site(tmp_path, own_redis.url, {"size": 10, "seconds": 0.2})
    running = daemon(site.config).wait_watching()
    site.write("first")
    wait_until(site.in_redis, what="it is sent")
    own_redis.stop(signal.SIGKILL)
    site.write(*(f"{number}.alone" for number in range(3)))
    wait_until(lambda: "takes no tasks" in running.output, what="that is seen")
    for start in range(0, 100, 4):
        site.write(*map(str, range(start, start + 4)))
    wait_until(lambda: site.waiting() == 103, what="all is recorded")
    running.kill()
    running = daemon(site.config).wait_watching()
    own_redis.start()
    tasks = site.wait(site.in_redis)
    running.stop()
    # They filled up while nothing could be sent.
    assert len([task for task in tasks if len(task.files) == 10]) >= 8


@pytest.mark.skipif(not LONG, reason="restarts RabbitMQ: with WATCHMAN_LONG=1")
def test_rabbitmq_is_away_while_files_come(
    tmp_path: Path, rabbit_server: RabbitServer, daemon: Callable[..., Daemon]
) -> None:
    site = Site(tmp_path, rabbit_server.url, {"size": 10, "seconds": 0.2})
    site.queue = "batches"
    site.configure()
    taken: list[Task] = []

    def in_rabbit() -> list[Task]:
        # While the broker is new, there may be no queue yet.
        with contextlib.suppress(NotFound), rabbit_server.connection() as connection:
            while True:
                message = connection.default_channel.basic_get("batches", no_ack=True)
                if message is None:
                    break
                (path, *_), kwargs, _ = json.loads(message.body)
                taken.append(Task(message.headers["id"], path, tuple(kwargs.get("files", ()))))
        return list(taken)

    running = daemon(site.config).wait_watching()
    site.write("first")
    wait_until(lambda: "Sending task" in running.output, what="it is sent")
    rabbit_server.kill()
    for start in range(0, 100, 4):
        site.write(*map(str, range(start, start + 4)))
    wait_until(lambda: site.waiting() >= 100, what="all is recorded")
    rabbit_server.start()
    site.wait(in_rabbit, 120)
    running.stop()


def test_a_burst_is_as_many_tasks_as_it_fills(
    tmp_path: Path, redis_server: RedisServer, daemon: Callable[..., Daemon]
) -> None:
    site = Site(tmp_path, redis_server.url, {"size": 100, "seconds": 5})
    running = daemon(site.config).wait_watching()
    site.write(*(f"d{number % 10}/{number}" for number in range(BURST)))
    tasks = site.wait(site.in_redis, 300)
    running.stop()
    assert BURST // 100 <= len(tasks) <= BURST // 100 + 3


def test_a_stock_worker_gets_the_files(
    tmp_path: Path, redis_server: RedisServer, daemon: Callable[..., Daemon]
) -> None:
    site = Site(tmp_path, redis_server.url, {"size": 3, "seconds": 600}, moved=True)
    running = daemon(site.config).wait_watching()
    site.write("a", "ü", "c")
    strange = os.fsdecode(b"\xff'\"\n.alone")
    site.write(strange)
    site.write("s.side", "s.main")
    with CeleryWorker(site.url, tmp_path / "worker", ["t"], queues=[site.queue]) as worker:
        done = worker.wait_for(3)
    running.stop()
    by_files = {len(one["kwargs"].get("files", ())): one for one in done}
    assert by_files.keys() == {0, 2, 3}
    several = by_files[3]
    assert sorted(several["kwargs"]["files"]) == sorted(site.written[:3])
    assert several["args"] == several["kwargs"]["files"][:1]
    assert several["headers"]["watchman_source"].startswith(str(site.upload))
    # Of a set the one that the pattern matches comes first, and the headers tell of it.
    of_set = by_files[2]
    assert of_set["kwargs"] == {"files": site.written[:-3:-1]}
    assert of_set["args"] == [site.written[-1]]
    assert of_set["opened"] == [len("s.main")]
    assert of_set["headers"]["watchman_source"] == str(site.upload / "s.main")
    assert of_set["headers"]["watchman_size"] == len("s.main")
