"""Who takes tasks from a broker: stock workers are asked, and the broker itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.brokers.conftest import make
from tests.servers.rabbitmq import RabbitServer
from tests.servers.worker import CeleryWorker
from watchman import brokers
from watchman.brokers.worker_inspection import Workers, ask
from watchman.model import Broker

TASKS = ("tests.note", "tests.other")


@pytest.mark.parametrize("kind", ["redis", "rabbitmq", "filesystem"])
def test_a_stock_worker_says_what_it_knows_and_takes(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    queue_name: Callable[[str], str],
) -> None:
    under_test = make(kind, request, tmp_path / "state")
    queue, missing = queue_name("taken"), queue_name("missing")
    broker = Broker("broker", (under_test.url,))
    # Dead ones before it, as for sending: the next URL is tried.
    if kind != "filesystem":
        dead = under_test.url.partition("://")[0] + "://127.0.0.1:1//"
        broker = Broker("broker", (dead, under_test.url))
    state = str(tmp_path / "state")
    options = under_test.options
    worker = CeleryWorker(
        under_test.url, tmp_path / "worker", TASKS, queues=[queue], transport_options=options
    )
    with worker:
        found = brokers.ask_workers(broker, {}, state, [queue, missing], ["amq.topic", missing])
    assert found.problem == ""
    ((name, tasks),) = found.tasks.items()
    assert tasks >= set(TASKS)
    assert found.queues == {name: {queue}}
    amqp = kind == "rabbitmq"
    assert found.consumers == ({queue: 1, missing: None} if amqp else {})
    assert found.exchanges == ({"amq.topic": True, missing: False} if amqp else {})


def test_nothing_is_made_by_asking(
    rabbit_server: RabbitServer, tmp_path: Path, queue_name: Callable[[str], str]
) -> None:
    name = queue_name("never")
    # Asked again, it would be there, had the first time made it.
    for _ in range(2):
        found = brokers.ask_workers(Broker("b", (rabbit_server.url,)), {}, "/none", [name], [name])
        assert found == Workers(consumers={name: None}, exchanges={name: False})
    embedded = Broker("b", ("filesystem://",))
    assert brokers.ask_workers(embedded, {}, str(tmp_path / "none"), [name], []) == Workers()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_broker_that_accepts_and_says_nothing_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://user:sesame@127.0.0.1:{silent.getsockname()[1]}/0"
        began = time.monotonic()
        found = ask(Broker("b", (url,)), {}, "/none", ["q"], [], longest=1.0)
        assert time.monotonic() - began < 10
    assert found == Workers("no answer within 1 s")


def test_why_a_broker_cannot_be_asked_is_told_without_its_password() -> None:
    url = "redis://:sesame@127.0.0.1:1/0"
    found = brokers.ask_workers(Broker("b", (url,)), {}, "/none", ["q"], [])
    assert "refused" in found.problem
    assert "sesame" not in found.problem
    assert "\n" not in found.problem
