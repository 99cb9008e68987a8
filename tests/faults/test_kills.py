"""kill -9 at random moments of a stream of uploads, with brokers that are restarted meanwhile.

WATCHMAN_LONG=1 makes it 1,000 kills over 100,000 uploads, with RabbitMQ beside Redis.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, Sent, check, in_rabbit, in_redis, wait_for_tasks
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

LONG = os.environ.get("WATCHMAN_LONG") == "1"
KILLS, UPLOADS = (1000, 100_000) if LONG else (25, 3_000)
SEED = int(os.environ.get("WATCHMAN_SEED", "1"))

CONFIG = """\
BROKERS = {brokers!r}
WATCHES = [{{'path': p, 'rec': True, 'auto_add': True}} for p in {watches!r}]
PATTERNS = [
    ('*.other', {{'broker': 'other', 'task': 'other_task', 'options': {{'queue': 'other'}}}}),
    ('*', {{'broker': 'redis', 'task': 'task'}}),
]
MOVES = {moves!r}
"""


class Uploads(threading.Thread):
    """Writes files as fast as it is allowed to: ``allowed`` counts them."""

    def __init__(self, directories: list[Path]) -> None:
        super().__init__(name="uploads")
        self.files: dict[str, bytes] = {}
        self.allowed = 0
        self.error: BaseException | None = None
        self._directories = directories
        self._chance = random.Random(SEED)

    def run(self) -> None:
        try:
            for number in range(UPLOADS):
                wait_until(lambda n=number: n < self.allowed, 120, "leave to upload")  # type: ignore[misc]  # — binds
                self._upload(number)
        except BaseException as error:  # noqa: BLE001 — the test looks at it
            self.error = error

    def _upload(self, number: int) -> None:
        chance = self._chance
        directory = chance.choice(self._directories) / chance.choice(["", "a", "b/c"])
        directory.mkdir(parents=True, exist_ok=True)
        # The same name in several watches that lead to one destination.
        path = directory / f"{number // 3}.{chance.choice(['csv', 'other'])}"
        if str(path) in self.files:  # it may have been moved away since
            path = path.with_name(f"again-{number}{path.suffix}")
        content = f"{number} {path}".encode() * chance.choice([1, 1, 200])
        written = path.with_name(f".in.{path.name}.") if chance.random() < 0.3 else path
        self.files[str(path)] = content
        written.write_bytes(content)
        if written != path:  # else it may have been moved away since
            written.rename(path)


@pytest.fixture
def redis_own(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(7200 if LONG else 120)
def test_random_kills_lose_nothing(
    tmp_path: Path,
    other_device: Path,
    redis_own: RedisServer,
    daemon: Callable[..., Daemon],
    request: pytest.FixtureRequest,
) -> None:
    chance = random.Random(SEED + 1)
    rabbit: RabbitServer | None = request.getfixturevalue("rabbit_server") if LONG else None
    watches = [tmp_path / "plain", tmp_path / "near", other_device / "far"]
    store = tmp_path / "store"
    for path in (*watches, store):
        path.mkdir()
    moves = {str(watches[1]): str(store), str(watches[2]): str(store)}
    config = tmp_path / "config.py"
    brokers = {"redis": redis_own.url, "other": rabbit.url if rabbit else redis_own.url}
    config.write_text(CONFIG.format(brokers=brokers, watches=list(map(str, watches)), moves=moves))
    daemon(config).wait_watching().kill()
    uploads = Uploads(watches)
    uploads.start()
    try:
        early = 0
        for cycle in range(KILLS):
            running = daemon(config)
            uploads.allowed += UPLOADS // KILLS
            if cycle % 5 == 4:
                running.wait_watching()
            threading.Event().wait(chance.uniform(0.0, 0.5))  # at any moment, the start included
            assert running.status is None, running.output
            early += not running.watches()
            running.kill()
            if cycle % 8 == 3:
                redis_own.stop(signal.SIGKILL)
            elif cycle % 8 == 4:
                redis_own.start()
            if rabbit is not None and cycle % 200 == 150:
                rabbit.kill()
                rabbit.start()
        assert 0 < early < KILLS
        if redis_own.process is None:
            redis_own.start()
    finally:
        uploads.allowed = UPLOADS
        uploads.join(600)
    assert uploads.error is None
    last = daemon(config).wait_watching()

    def everything() -> list[Sent]:
        sent = in_redis(redis_own.port) + in_redis(redis_own.port, "other")
        return sent if rabbit is None else sent + in_rabbit(rabbit, "other")

    sent = wait_for_tasks(uploads.files, everything, 900 if LONG else 60)
    last.stop()
    check(uploads.files, sent, moves)
    assert len(uploads.files) == len({message.path for message in sent}) == UPLOADS
    assert sum(path.is_file() for path in store.rglob("*")) == sum(
        path.startswith(tuple(moves)) for path in uploads.files
    )
