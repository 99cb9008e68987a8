"""kill -9 at random moments of a stream of uploads, with brokers that are restarted meanwhile.

Among the uploads are large files, and directories are renamed away and back; the daemon is told to
reload now and then. WATCHMAN_LONG=1 makes it 1,000 kills over 100,000 uploads, with RabbitMQ
beside Redis; WATCHMAN_KILLS another number of kills.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.driver import Daemon, Sent, in_rabbit, in_redis
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import State

LONG = os.environ.get("WATCHMAN_LONG") == "1"
KILLS = int(os.environ.get("WATCHMAN_KILLS", "1000" if LONG else "25"))
UPLOADS = KILLS * (100 if LONG else 60)
SEED = int(os.environ.get("WATCHMAN_SEED", "1"))

LARGE = 3 << 20
AWAY = "-away"

CONFIG = """\
BROKERS = {brokers!r}
WATCHES = [{{'path': p, 'rec': True, 'auto_add': True}} for p in {watches!r}]
PATTERNS = [
    ('*.other', {{'broker': 'other', 'task': 'other_task', 'options': {{'queue': 'other'}}}}),
    ('*', {{'broker': 'redis', 'task': 'task'}}),
]
MOVES = {moves!r}
"""


class Upload(NamedTuple):
    """A file, and what is in it: ``piece``, which no other file has, so many ``times``."""

    piece: bytes
    times: int

    @property
    def content(self) -> bytes:
        return self.piece * self.times


class Uploads(threading.Thread):
    """Writes files as fast as it is allowed to: ``allowed`` counts them.

    One directory at a time is away, under another name in the watch or outside of it.
    """

    def __init__(self, watches: list[Path]) -> None:
        super().__init__(name="uploads")
        self.files: dict[str, Upload] = {}
        self.times_away: Counter[str] = Counter()
        """How often a file's directory was away since it was written."""
        self.allowed = 0
        self.error: BaseException | None = None
        self._watches = watches
        self._away: tuple[Path, Path] | None = None
        """The directory that is away, and where it is."""
        self._returning = 0.0
        """With what chance it comes back before an upload: soon, or after a kill or two."""
        self._chance = random.Random(SEED)

    def run(self) -> None:
        try:
            for number in range(UPLOADS):
                wait_until(lambda n=number: n < self.allowed, 120, "leave to upload")  # type: ignore[misc]  # — binds
                if self._away is not None and self._chance.random() < self._returning:
                    self._come_back()
                elif self._away is None and self._chance.random() < 0.03:
                    self._go_away()
                self._upload(number)
            if self._away is not None:
                self._come_back()
        except BaseException as error:  # noqa: BLE001 — the test looks at it
            self.error = error

    def _go_away(self) -> None:
        watch = self._chance.choice(self._watches)
        directory = watch / self._chance.choice(["a", "b", "b/c"])
        if not directory.exists():
            return
        away = directory.with_name(directory.name + AWAY)
        if self._chance.random() < 0.3:
            away = watch.with_name(f"outside-{watch.name}") / directory.name
            away.parent.mkdir(exist_ok=True)
        directory.rename(away)
        self._away = directory, away
        self._returning = self._chance.choice([0.5, 0.005])
        within = f"{directory}/"
        self.times_away.update(path for path in self.files if path.startswith(within))

    def _come_back(self) -> None:
        assert self._away is not None
        directory, away = self._away
        away.rename(directory)
        self._away = None

    def _upload(self, number: int) -> None:
        chance = self._chance
        directory = chance.choice(self._watches) / chance.choice(["", "a", "b/c"])
        while self._away is not None and directory.is_relative_to(self._away[0]):
            directory = chance.choice(self._watches)
        directory.mkdir(parents=True, exist_ok=True)
        # The same name in several watches that lead to one destination.
        path = directory / f"{number // 3}.{chance.choice(['csv', 'other'])}"
        if str(path) in self.files:  # it may have been moved away since
            path = path.with_name(f"again-{number}{path.suffix}")
        piece = f"{number} {path}".encode()
        times = LARGE // len(piece) + 1 if number % 200 == 0 else chance.choice([1, 1, 200])
        upload = Upload(piece, times)
        written = path.with_name(f".in.{path.name}.") if chance.random() < 0.3 else path
        self.files[str(path)] = upload
        written.write_bytes(upload.content)
        if written != path:  # else it may have been moved away since
            written.rename(path)


def is_settled(state: Path) -> bool:
    """Whether nothing is under way: neither being moved nor sent."""
    with open_reader(str(state)) as journal:
        return not {State.MOVING, State.READY} & {found for _, found in journal.counts()}


def home(source: str) -> str:
    """Return the path at which a file was uploaded, whatever its directory's name was since."""
    return source.replace(f"{AWAY}/", "/")


def check(uploads: Uploads, sent: Sequence[Sent], moves: Mapping[str, str], store: Path) -> None:
    """Nothing is lost, truncated or without a task; doubles have the same id.

    A directory that comes back may be another arrival, each time; so may be what is in it.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for message in sent:
        found[home(message.source)][message.task_id].add(message.path)
    assert found.keys() == uploads.files.keys()
    announced: set[str] = set()
    for path, ids in found.items():
        finals = set().union(*ids.values())
        # Away and back are two arrivals at most, each time.
        most = 1 + 2 * uploads.times_away[path]
        assert len(ids) <= most, f"{path} has too many ids: {ids}"
        assert len(finals) <= most, f"{path} has too many copies: {ids}"
        if path.startswith(tuple(moves)):
            assert not os.path.lexists(path), f"{path} is still there"
            announced |= finals
        else:
            assert path in finals, f"no task: {path}"
            finals = {path}
        for final in finals:
            content = Path(final).read_bytes()
            assert content == uploads.files[path].content, f"{final} is not {path}"
    there = {str(path) for path in store.rglob("*") if path.is_file()}
    assert there == announced, f"no task: {sorted(there - announced)[:5]}"


@pytest.mark.timeout(7200 if LONG else 120)
def test_random_kills_lose_nothing(
    tmp_path: Path,
    other_device: Path,
    own_redis: RedisServer,
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
    brokers = {"redis": own_redis.url, "other": rabbit.url if rabbit else own_redis.url}
    config.write_text(CONFIG.format(brokers=brokers, watches=list(map(str, watches)), moves=moves))
    daemon(config).wait_watching().kill()
    uploads = Uploads(watches)
    uploads.start()
    try:
        early = reloads = 0
        for cycle in range(KILLS):
            running = daemon(config)
            uploads.allowed += UPLOADS // KILLS
            if cycle % 5 == 4:
                running.wait_watching()
            threading.Event().wait(chance.uniform(0.0, 0.5))  # at any moment, the start included
            assert running.status is None, running.output
            early += not running.watches()
            if cycle % 10 == 4 or (running.watches() and chance.random() < 0.3):
                os.kill(running.pid, signal.SIGHUP)
                reloads += 1
                threading.Event().wait(chance.uniform(0.0, 0.3))
                assert running.status is None, running.output
            running.kill()
            if cycle % 8 == 3:
                own_redis.stop(signal.SIGKILL)
            elif cycle % 8 == 4:
                own_redis.start()
            if rabbit is not None and cycle % 200 == 150:
                rabbit.kill()
                rabbit.start()
        assert 0 < early < KILLS
        assert reloads
        if own_redis.process is None:
            own_redis.start()
    finally:
        uploads.allowed = UPLOADS
        uploads.join(600)
    assert uploads.error is None
    last = daemon(config).wait_watching()

    def everything() -> list[Sent]:
        sent = in_redis(own_redis.port) + in_redis(own_redis.port, "other")
        return sent if rabbit is None else sent + in_rabbit(rabbit, "other")

    def all_sent() -> list[Sent] | None:
        assert last.status is None, last.output
        sent = everything()
        there = {message.path for message in sent} | {home(message.source) for message in sent}
        staying = {path for path in uploads.files if not path.startswith(tuple(moves))}
        complete = uploads.files.keys() <= there and staying <= {message.path for message in sent}
        moved = complete and not any(map(os.path.lexists, uploads.files.keys() - staying))
        return sent if moved and is_settled(tmp_path / "var") else None

    sent = wait_until(
        all_sent, 900 if LONG else 60, "a task for each file, in its place", interval=0.5
    )
    assert sent is not None
    last.stop()
    check(uploads, everything(), moves, store)
    assert len(uploads.files) == UPLOADS
    assert uploads.times_away
    assert "Traceback" not in last.log.read_text("utf-8", "replace")
