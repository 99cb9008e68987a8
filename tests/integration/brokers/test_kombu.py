"""Transports that are not ours: bounded in time, whatever they do."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
from celery.signals import before_task_publish

from tests.integration.brokers.messages import answers, message, messages, route
from tests.servers import free_port
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.brokers.kombu import MAX_STUCK, KombuPublisher
from watchman.brokers.redis import RedisPublisher
from watchman.model import ACCEPTED, Answer, Broker


def test_a_call_that_hangs_is_given_up_and_sends_nothing_more(
    redis_server: RedisServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without socket_timeout kombu waits for ever.
    publisher = KombuPublisher(Broker("broker", (redis_server.url,)), {})
    assert publisher.publish([message(route(queue))]) == [ACCEPTED]
    monkeypatch.setattr("watchman.brokers.kombu.STALL_SECONDS", 0.3)
    batch = messages(route(queue), 50)
    redis_server.pause()
    try:
        start = time.monotonic()
        for _ in range(MAX_STUCK + 2):
            assert answers(publisher.publish(batch)) == {Answer.AGAIN}
        assert len(publisher._stuck) == MAX_STUCK
        assert publisher.check() is not None
        assert time.monotonic() - start < 10
    finally:
        redis_server.resume()

    wait_until(
        lambda: not any(worker.thread.is_alive() for worker in publisher._stuck), what="the threads"
    )
    with redis_server.client() as client:
        assert client.llen(queue) < 1 + MAX_STUCK + 1
    wait_until(lambda: answers(publisher.publish(batch)) == {Answer.ACCEPTED}, what="accepted")
    publisher.close()


def test_a_broker_that_never_answers_is_asked_only_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("watchman.brokers.kombu.STALL_SECONDS", 0.01)
    publisher = KombuPublisher(Broker("broker", ("memory://",)), {})
    publisher._in_trouble = True
    wakes_up = threading.Event()
    hanging = SimpleNamespace(connect=lambda: wakes_up.wait(20), drop=lambda: None)
    monkeypatch.setattr(publisher, "new_connection", lambda: hanging)

    def asking() -> int:
        return sum(thread.name == "check" for thread in threading.enumerate())

    try:
        for _ in range(MAX_STUCK + 5):
            assert publisher.keepalive() is not None
        assert asking() == MAX_STUCK
    finally:
        wakes_up.set()
    wait_until(lambda: not asking(), what="the threads")
    monkeypatch.setattr("watchman.brokers.kombu.STALL_SECONDS", 10.0)
    assert publisher.keepalive() is None
    publisher.close()


def test_a_receiver_of_celery_that_raises_no_exception_keeps_no_other_task(
    tmp_path: Path, queue: str
) -> None:
    options = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path)}
    options["control_folder"] = str(tmp_path / "control")
    publisher = KombuPublisher(Broker("broker", ("filesystem://",), options), {})
    good, bad = message(route(queue)), message(route(queue)._replace(task="leaves"))

    def leave(sender: str, **_: Any) -> None:
        if sender == "leaves":
            raise SystemExit("no more")

    before_task_publish.connect(leave)
    try:
        (outcome,) = publisher.publish([bad])
        assert outcome.reason.endswith("SystemExit: no more")
        assert publisher.publish([good]) == [ACCEPTED]
    finally:
        before_task_publish.disconnect(leave)
        publisher.close()


def test_another_transport_is_reached_through_kombu(tmp_path: Path, queue: str) -> None:
    options = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path)}
    options["control_folder"] = str(tmp_path / "control")
    publisher = KombuPublisher(Broker("broker", ("filesystem://",), options), {})
    sent = message(route(queue))
    assert publisher.check() is None
    assert publisher.publish([sent]) == [ACCEPTED]
    with kombu.Connection("filesystem://", transport_options=options) as connection:
        got = connection.SimpleQueue(queue).get(block=False)
        assert got.headers["id"] == sent.task_id
    publisher.close()


@pytest.mark.parametrize("url", ["sqs://", "redis+socket:///run/none.sock", "mongodb://host/db"])
def test_a_publisher_is_opened_without_touching_anything(url: str, tmp_path: Path) -> None:
    publisher = open_publisher(Broker("broker", (url,)), {}, str(tmp_path))
    publisher.keepalive()
    publisher.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", [KombuPublisher, RedisPublisher])
def test_what_was_closed_holds_no_descriptor(
    redis_server: RedisServer, queue: str, made: type[KombuPublisher] | type[RedisPublisher]
) -> None:
    """Nor does an attempt that failed: an outage has thousands of them."""

    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    dead = f"redis://127.0.0.1:{free_port()}/0"
    gc.collect()
    gc.disable()  # it would find what nobody closed, some time
    try:
        before = held()
        for _ in range(5):
            publisher = made(Broker("broker", (redis_server.url,)), {})
            assert publisher.publish([message(route(queue))]) == [ACCEPTED]
            publisher.close()
        wait_until(lambda: held() == before, what="closed by its own thread")
        publisher = made(Broker("broker", (dead,)), {})
        for _ in range(5):
            assert answers(publisher.publish([message(route(queue))])) == {Answer.AGAIN}
        publisher.check()
        publisher.close()
        wait_until(lambda: held() == before, what="all closed")
    finally:
        gc.enable()
