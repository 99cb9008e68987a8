"""Daemons that are started by the launcher, killed and started again, and what came of it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import redis

import watchman
from tests import embedded
from tests.servers import tail
from tests.servers.rabbitmq import RabbitServer
from tests.waiting import wait_until

WATCHING = re.compile(rb"Watching \d+ director")
_PRODUCT = Path(watchman.__file__).parent.parent


class Launcher:
    """The program in :mod:`tests.faults.launcher`, running."""

    def __init__(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(_PRODUCT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=_PRODUCT,
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the launcher has ended"
        return json.loads(answer)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


class Daemon:
    """One process of the daemon."""

    def __init__(
        self, launcher: Launcher, config: Path, fault: tuple[str, str, int] | None = None
    ) -> None:
        self._launcher = launcher
        self.log = config.with_name("daemon.log")
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        self._status: int | None = None
        arguments = ["run", "--config", str(config)]
        self.pid = int(launcher.ask(start=arguments, log=str(self.log), fault=fault))

    @property
    def output(self) -> str:
        """What this process has written so far."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[self._begun :].decode("utf-8", "replace")

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._status is None:
            self._status = self._launcher.ask(poll=self.pid)
        return self._status

    def watches(self) -> bool:
        """True if it watches, or never will."""
        return self.status is not None or bool(WATCHING.search(self.output.encode()))

    def wait_watching(self) -> Daemon:
        try:
            wait_until(self.watches, 30, "the daemon watches")
        except AssertionError as error:
            raise AssertionError(tail(self.log)) from error
        assert self.status is None, tail(self.log)
        return self

    def wait_end(self, timeout: float = 30.0) -> int:
        wait_until(lambda: self.status is not None, timeout, f"the daemon ends: {tail(self.log)}")
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        """As ``kill -9`` does."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            assert self.wait_end() == -signal.SIGKILL

    def stop(self) -> None:
        """As ``kill`` does; fail unless it ends with status 0."""
        os.kill(self.pid, signal.SIGTERM)
        assert self.wait_end() == 0, tail(self.log)


class Sent(NamedTuple):
    """A message that a broker holds."""

    task_id: str
    path: str
    source: str
    files: tuple[str, ...] = ()
    """Of a set or a batch."""


def _read(text: str | bytes) -> Sent:
    message = json.loads(text)
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    headers = message["headers"]
    arguments, keywords, _ = json.loads(body)
    files = tuple(keywords.get("files", ()))
    return Sent(headers["id"], arguments[0], headers["watchman_source"], files)


def in_redis(port: int, queue: str = "celery") -> list[Sent]:
    """Return the messages in Redis, the one that is consumed first at the front."""
    with redis.Redis(port=port, socket_timeout=5) as client:
        values: Any = client.lrange(queue, 0, -1)
    return [_read(value) for value in reversed(values)]


def in_directory(state: Path) -> list[Sent]:
    """Return the messages of the embedded broker, the one that is consumed first at the front."""
    return [_read(path.read_bytes()) for path in embedded.messages(state)]


_taken: dict[str, list[Sent]] = {}


def in_rabbit(server: RabbitServer, queue: str) -> list[Sent]:
    """Return all messages that the queue has held since the first call, oldest first."""
    taken = _taken.setdefault(f"{server.url}{queue}", [])
    with server.connection() as connection:
        channel = connection.default_channel
        while True:
            message = channel.basic_get(queue, no_ack=True)
            if message is None:
                return list(taken)
            headers = message.headers
            path = json.loads(message.body)[0][0]
            taken.append(Sent(headers["id"], path, headers["watchman_source"]))


def count_in_redis(port: int, queue: str = "celery") -> int:
    with redis.Redis(port=port, socket_timeout=5) as client:
        count: Any = client.llen(queue)
    return int(count)


def check(files: Mapping[str, bytes], sent: Iterable[Sent], moves: Mapping[str, str]) -> None:
    """Every file has a task and is where the task says, unharmed; doubles have the same id.

    ``files`` are the uploads by their path before the move; ``moves`` as in MOVES. Each path was
    written once.
    """
    ids: dict[str, set[str]] = defaultdict(set)
    finals: dict[str, set[str]] = defaultdict(set)
    for message in sent:
        ids[message.source].add(message.task_id)
        finals[message.source].add(message.path)
    assert not files.keys() - ids.keys(), f"no task: {sorted(files.keys() - ids.keys())[:5]}"
    assert not ids.keys() - files.keys(), f"never written: {sorted(ids.keys() - files.keys())[:5]}"
    doubled = {source: many for source, many in ids.items() if len(many) > 1}
    assert not doubled, f"more than one id: {doubled}"
    for source, content in files.items():
        (final,) = finals[source]
        root = next((root for prefix, root in moves.items() if source.startswith(prefix)), None)
        if root is None:
            assert final == source
        else:
            assert final.startswith(root)
            assert not os.path.lexists(source), f"{source} is still there"
        assert Path(final).read_bytes() == content, f"{final} is not what was uploaded"


def wait_for_tasks(sources: Iterable[str], observe: Any, timeout: float = 30.0) -> list[Sent]:
    """Wait until what ``observe`` returns has a task for each path; return it."""
    wanted = set(sources)

    def there() -> list[Sent] | None:
        sent: list[Sent] = observe()
        return sent if wanted <= {message.source for message in sent} else None

    try:
        found = wait_until(there, timeout, f"tasks for {len(wanted)} files", interval=0.05)
    except AssertionError as error:
        missing = sorted(wanted - {message.source for message in observe()})
        raise AssertionError(f"{error}; missing are {missing[:20]}") from error
    assert found is not None
    return found


def killed_at_random(running: Daemon, chance: Random, start: Callable[[], Daemon]) -> Daemon:
    """Kill a daemon at any moment; return the one after it, which may not watch yet."""
    threading.Event().wait(chance.uniform(0.0, 0.6))
    assert running.status is None, running.output
    running.kill()
    following = start()
    if chance.random() < 0.5:
        following.wait_watching()
    return following
