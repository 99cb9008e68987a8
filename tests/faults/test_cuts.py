"""Ten messages through a proxy that cuts the connection after N bytes, for every N.

CI takes the edges and a sample; WATCHMAN_LONG=1 takes every byte in both directions.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest

from tests.faults.driver import in_redis
from tests.faults.proxy import Proxy, Way
from tests.integration.brokers.messages import messages, route
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.brokers import amqp as amqp_publisher
from watchman.brokers import amqp_connection, open_publisher
from watchman.brokers import redis as redis_publisher
from watchman.model import Answer, Broker, Message, Publisher

LONG = os.environ.get("WATCHMAN_LONG") == "1"
SEED = int(os.environ.get("WATCHMAN_SEED", "1"))
SAMPLE = 80
COUNT = 10
"""Messages in a batch."""


class Target:
    """A broker behind a proxy, and a way to read from it that does not go through it."""

    def __init__(self, proxy: Proxy, url: str, queue: str, take: Callable[[], set[str]]) -> None:
        self.proxy = proxy
        self.queue = queue
        self.take = take
        self._broker = Broker("b", (url,))

    def publisher(self) -> Publisher:
        return open_publisher(self._broker, {}, "/nonexistent")

    def batch(self) -> list[Message]:
        return messages(route(self.queue), COUNT)

    def measure(self) -> dict[Way, int]:
        """Return how many bytes the connection takes that publishes a batch, at least.

        RabbitMQ may confirm it in one frame or in several.
        """
        passed: list[dict[Way, int]] = []
        for _ in range(5):
            publisher = self.publisher()
            self.proxy.forget()
            accept_all(publisher, self.batch())
            passed.append(dict(self.proxy.longest))
            publisher.close()
            assert len(self.take()) == COUNT
        return {way: min(each[way] for each in passed) for way in Way}


def accept_all(publisher: Publisher, batch: list[Message]) -> None:
    """Send again until all is accepted, as a sender does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        outcomes = publisher.publish(batch)
        assert all(outcome.answer is not Answer.REFUSED for outcome in outcomes), outcomes
        batch = [
            each
            for each, outcome in zip(batch, outcomes, strict=True)
            if outcome.answer is Answer.AGAIN
        ]
        if not batch:
            return
    raise AssertionError(f"not accepted: {outcomes}")


@pytest.fixture
def on_redis(redis_server: RedisServer, queue_name: Callable[[str], str]) -> Iterator[Target]:
    queue = queue_name("cuts")
    with Proxy(redis_server.port) as proxy, redis_server.client() as client:

        def take() -> set[str]:
            found = {sent.task_id for sent in in_redis(redis_server.port, queue)}
            client.delete(queue)
            return found

        yield Target(proxy, f"redis://127.0.0.1:{proxy.port}/0", queue, take)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no publisher wait long for an answer."""
    monkeypatch.setitem(redis_publisher.DEFAULTS, "socket_timeout", 0.5)
    monkeypatch.setattr(amqp_connection, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(amqp_publisher, "CONFIRM_SECONDS", 0.5)


@pytest.fixture
def on_rabbit(rabbit_server: RabbitServer, queue_name: Callable[[str], str]) -> Iterator[Target]:
    queue = queue_name("cuts")
    direct: Any = amqp.Connection(f"127.0.0.1:{rabbit_server.port}")
    direct.connect()
    channel = direct.channel()

    def take() -> set[str]:
        found = set()
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.add(message.headers["id"])
        return found

    with Proxy(rabbit_server.port) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
        yield Target(proxy, url, queue, take)
    direct.close()
    rabbit_server.delete(queue)


@pytest.fixture(params=["redis", "rabbit"])
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.getfixturevalue(f"on_{request.param}")
    return target


def cuts(total: int) -> list[int]:
    """Return after how many bytes to cut: all, or the edges and a sample."""
    if LONG:
        return list(range(1, total + 1))
    edges = {*range(1, 4), *range(total - 12, total + 1)}
    chosen = random.Random(SEED).sample(range(1, total), min(SAMPLE, total - 1))
    return sorted(edges | set(chosen))


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())
def test_cut_at_every_byte(target: Target, way: Way) -> None:
    total = target.measure()[way]
    target.proxy.way = way
    publisher = target.publisher()
    failures = 0
    for number in cuts(total):
        batch = target.batch()
        target.proxy.limit, target.proxy.reset = number, bool(number % 2)
        outcomes = publisher.publish(batch)
        target.proxy.limit = None
        accepted = {
            each.task_id
            for each, outcome in zip(batch, outcomes, strict=True)
            if outcome.answer is Answer.ACCEPTED
        }
        rest = [each for each in batch if each.task_id not in accepted]
        failures += bool(rest)
        if rest:
            accept_all(publisher, rest)
        # What was accepted at first is not sent again: it must be there by itself.
        missing = {each.task_id for each in batch} - target.take()
        assert not missing, f"cut after {number} of {total}: {len(missing)} missing"
        publisher.close()
        publisher = target.publisher()
    publisher.close()
    # Only the last byte or so, when nobody waits for more, goes without a failure.
    assert failures >= len(cuts(total)) - 15


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())
@pytest.mark.parametrize("part", [0.2, 0.95])
def test_silent_in_the_middle(target: Target, way: Way, part: float, hasty: None) -> None:
    """A half-open connection ends as "try again", in bounded time, and never as a false "sent"."""
    number = int(target.measure()[way] * part)
    target.proxy.way, target.proxy.limit, target.proxy.silent = way, number, True
    publisher = target.publisher()
    batch = target.batch()
    outcomes = publisher.publish(batch)
    pairs = list(zip(batch, outcomes, strict=True))
    # On RabbitMQ the first message goes alone, and may have been confirmed before.
    accepted = {each.task_id for each, outcome in pairs if outcome.answer is Answer.ACCEPTED}
    left = [each for each, outcome in pairs if outcome.answer is Answer.AGAIN]
    assert len(left) >= COUNT - 1
    assert len(left) + len(accepted) == COUNT
    there = target.take()
    assert accepted <= there
    target.proxy.limit = None
    accept_all(publisher, left)
    assert {each.task_id for each in batch} <= there | target.take()
    publisher.close()


def test_a_slow_line_is_only_slow(target: Target) -> None:
    target.proxy.delay = 0.02
    publisher = target.publisher()
    batch = target.batch()
    outcomes = publisher.publish(batch)
    assert {outcome.answer for outcome in outcomes} == {Answer.ACCEPTED}
    assert {each.task_id for each in batch} == target.take()
    publisher.close()


def test_cut_while_idle(target: Target) -> None:
    publisher = target.publisher()
    accept_all(publisher, target.batch())
    target.proxy.cut()
    wait_until(lambda: not target.proxy.open_connections, 5, "the connection has ended")
    batch = target.batch()
    accept_all(publisher, batch)
    assert {each.task_id for each in batch} <= target.take()
    publisher.close()


def test_the_whole_daemon_through_cuts(
    on_redis: Target, tmp_path: Path, daemon: Callable[..., Any], redis_server: RedisServer
) -> None:
    """With the sender's own back-off: the connection dies again and again in mid-batch."""
    upload = tmp_path / "upload"
    upload.mkdir()
    config = tmp_path / "config.py"
    config.write_text(
        f"BROKERS = {{'b': 'redis://127.0.0.1:{on_redis.proxy.port}/0'}}\n"
        f"WATCHES = [{{'path': {str(upload)!r}, 'existing': 'all'}}]\n"
        f"PATTERNS = [('*', {{'broker': 'b', 'task': 't', 'options': "
        f"{{'queue': {on_redis.queue!r}}}}})]\n"
    )
    on_redis.proxy.limit = 6000  # five messages or so
    # All in one batch: of small ones two could go through one after the other.
    for number in range(200):
        (upload / f"{number}").write_text("x")
    running = daemon(config).wait_watching()
    wait_until(lambda: "takes no tasks" in running.output, 20)
    seen = on_redis.proxy.connections
    wait_until(lambda: on_redis.proxy.connections > seen + 1, 20, "it tries again")
    on_redis.proxy.limit = None
    paths = {str(upload / f"{number}") for number in range(200)}

    def arrived() -> bool:
        return {sent.path for sent in in_redis(redis_server.port, on_redis.queue)} == paths

    wait_until(arrived, 30, "all tasks")
    wait_until(lambda: "takes tasks again" in running.output, 10)
    assert running.output.count("takes no tasks") == 1
    ids: dict[str, set[str]] = {}
    for sent in in_redis(redis_server.port, on_redis.queue):
        ids.setdefault(sent.path, set()).add(sent.task_id)
    assert all(len(of_one) == 1 for of_one in ids.values())
    running.stop()
