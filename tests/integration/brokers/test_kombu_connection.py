"""Accepted means stored: what kombu's virtual transports would drop without a word."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.common import Broadcast

from tests.integration.brokers.messages import message, route
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.brokers.filesystem import embedded_options
from watchman.model import ACCEPTED, Answer, Broker, Publisher, Route


class Place:
    """A broker with a virtual transport, and a look into it from outside."""

    def __init__(self, url: str, state_dir: Path, options: dict[str, Any]) -> None:
        self.url, self.state_dir, self.options = url, state_dir, options

    def publisher(self, **settings: Any) -> Publisher:
        return open_publisher(Broker("broker", (self.url,)), settings, str(self.state_dir))

    def connection(self) -> kombu.Connection:
        return kombu.Connection(self.url, transport_options=self.options)

    def bind(self, queue: kombu.Queue) -> None:
        with self.connection() as connection:
            queue(connection.default_channel).declare()

    def count(self, queue: str) -> int:
        with self.connection() as connection:
            return int(connection.default_channel._size(queue))


@pytest.fixture(params=["redis", "filesystem"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "filesystem":
        return Place("filesystem://", tmp_path, embedded_options(str(tmp_path)))
    return Place(request.getfixturevalue("redis_server").url, tmp_path, {})


@pytest.fixture
def publisher(place: Place) -> Iterator[Publisher]:
    opened = place.publisher()
    yield opened
    opened.close()


def to_exchange(exchange: str, key: str, **options: Any) -> Route:
    return Route("broker", "t", options={"exchange": exchange, "routing_key": key, **options})


def test_an_exchange_without_a_queue_is_tried_again_until_there_is_one(
    place: Place, publisher: Publisher, queue: str
) -> None:
    exchange = f"{queue}ex"
    lost = message(to_exchange(exchange, "k"))
    good = message(route(queue))

    for _ in range(2):
        said, kept = publisher.publish([lost, good])
        assert said.answer is Answer.AGAIN
        assert said.target == f"exchange '{exchange}', routing key 'k'"
        assert "no queue is bound" in said.reason
        assert kept is ACCEPTED

    place.bind(kombu.Queue(f"{queue}bound", kombu.Exchange(exchange, "direct"), "k"))
    assert publisher.publish([lost]) == [ACCEPTED]
    assert place.count(f"{queue}bound") == 1
    assert place.count(queue) == 2


def test_another_routing_key_is_no_route(place: Place, publisher: Publisher, queue: str) -> None:
    place.bind(kombu.Queue(f"{queue}bound", kombu.Exchange(f"{queue}ex", "direct"), "k"))
    (said,) = publisher.publish([message(to_exchange(f"{queue}ex", "other"))])
    assert said.answer is Answer.AGAIN
    assert place.count(f"{queue}bound") == 0


def test_a_type_of_exchange_is_believed_before_anybody_has_declared_it(
    place: Place, publisher: Publisher, queue: str
) -> None:
    exchange = f"{queue}topics"
    place.bind(kombu.Queue(f"{queue}bound", kombu.Exchange(exchange, "topic"), "a.#"))
    sent = message(to_exchange(exchange, "a.b", exchange_type="topic"))
    assert publisher.publish([sent]) == [ACCEPTED]
    assert place.count(f"{queue}bound") == 1


def test_a_type_of_exchange_that_nobody_knows_is_refused_alone(
    place: Place, publisher: Publisher, queue: str
) -> None:
    sent = message(to_exchange(f"{queue}ex", "k", exchange_type="x-delayed"))
    said, kept = publisher.publish([sent, message(route(queue))])
    assert said.answer is Answer.REFUSED
    assert "x-delayed" in said.reason
    assert kept is ACCEPTED


def test_a_broadcast_nobody_hears_is_tried_again(place: Place, queue: str) -> None:
    broadcast = Broadcast(f"{queue}all", queue=f"{queue}mine")
    publisher = place.publisher(task_queues=[broadcast])
    sent = message(Route("broker", "t", options={"queue": f"{queue}all"}))
    (said,) = publisher.publish([sent])
    assert said.answer is Answer.AGAIN
    assert "fanout" in said.reason

    heard: list[Any] = []
    with (
        place.connection() as connection,
        connection.Consumer(
            [broadcast], callbacks=[lambda body, got: heard.append(body)], no_ack=True
        ),
    ):
        drain(connection)  # subscribes
        wait_until(lambda: publisher.publish([sent]) == [ACCEPTED], what="somebody listens")
        wait_until(lambda: drain(connection) or heard, what="it is heard")
    assert heard[0][0] == [sent.path]
    publisher.close()


def drain(connection: kombu.Connection) -> bool:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.2)
    return False


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "unheard"])
def test_task_sent_events_reach_who_listens_and_are_no_condition(
    place: Place, queue: str, heard: bool
) -> None:
    publisher = place.publisher(task_send_sent_event=True)
    sent = message(route(queue))
    app = Celery("listener", set_as_current=False, broker=place.url)
    app.conf.broker_transport_options = place.options
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-sent": events.append})
        if heard:
            with receiver.consumer_context(wakeup=False) as (listening, _, _):
                drain(listening)
                assert publisher.publish([sent]) == [ACCEPTED]
                wait_until(lambda: drain(listening) or events, what="the event")
            assert events[0]["uuid"] == sent.task_id
        else:
            assert publisher.publish([sent]) == [ACCEPTED]
    assert place.count(queue) == 1
    publisher.close()


def test_a_key_of_another_type_is_refused_through_kombu_too(
    redis_server: RedisServer, queue: str
) -> None:
    publisher = open_publisher(
        Broker("broker", (redis_server.url,)), {"task_send_sent_event": True}, "/nonexistent"
    )
    with redis_server.client() as client:
        client.set(queue, json.dumps("no list"))
        said, kept = publisher.publish([message(route(queue)), message(route(f"{queue}b"))])
    assert said.answer is Answer.REFUSED
    assert kept is ACCEPTED
    publisher.close()
