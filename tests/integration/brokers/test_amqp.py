"""What is special about RabbitMQ: confirms, returns, alarms, channels that it closes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import signals

from tests.integration.brokers.brokers import OnServer
from tests.integration.brokers.messages import answers, message, messages, route
from tests.servers import free_port
from tests.servers.rabbitmq import RabbitServer
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.brokers.amqp import WINDOW, AmqpPublisher
from watchman.brokers.amqp_confirms import Confirms
from watchman.model import ACCEPTED, Answer, Broker


def publisher_for(
    url: str, settings: dict[str, Any] | None = None, **options: Any
) -> AmqpPublisher:
    opened = open_publisher(Broker("broker", (url,), options), settings or {}, "/nonexistent")
    assert isinstance(opened, AmqpPublisher)
    return opened


@pytest.fixture
def publisher(rabbit_server: RabbitServer) -> Iterator[AmqpPublisher]:
    opened = publisher_for(rabbit_server.url)
    yield opened
    opened.close()


def test_a_queue_deleted_behind_us_is_declared_again_and_nothing_is_lost(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    batch = messages(route(queue), 5)
    assert publisher.publish(batch) == [ACCEPTED] * 5
    rabbit_server.delete(queue)

    said = publisher.publish(batch)
    assert answers(said) == {Answer.AGAIN}
    assert "NO_ROUTE" in said[0].reason
    assert queue in said[0].reason

    assert publisher.publish(batch) == [ACCEPTED] * 5
    assert rabbit_server.count(queue) == 5


def test_what_has_no_route_waits_for_one_and_holds_up_nobody(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    """Its queue may be on a node that is down, or its worker not started yet."""
    exchange = f"{queue}exchange"
    with rabbit_server.connection() as connection:
        kombu.Exchange(exchange, "direct")(connection.default_channel).declare()
    lost = message(route(queue)._replace(options={"exchange": exchange, "routing_key": "no"}))
    good = message(route(queue))

    for _ in range(3):
        again, kept = publisher.publish([lost, good])
        assert again.answer is Answer.AGAIN
        assert again.target == f"exchange '{exchange}', routing key 'no'"
        assert kept is ACCEPTED
    assert "bind a queue" in again.reason

    with rabbit_server.connection() as connection:
        bound = kombu.Queue(f"{queue}bound", kombu.Exchange(exchange, "direct"), "no")
        bound(connection.default_channel).declare()
    assert publisher.publish([lost]) == [ACCEPTED]
    assert rabbit_server.count(f"{queue}bound") == 1
    assert rabbit_server.count(queue) == 3


def test_a_name_that_routes_nowhere_is_refused(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    """RabbitMQ takes line feeds out of the names that are declared."""
    odd = message(route(f"{queue}\nodd"))
    publisher.publish([odd])
    assert publisher.publish([odd])[0].answer is Answer.REFUSED


def test_an_exchange_that_does_not_exist_refuses_its_messages_only(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    wrong = route(queue)._replace(options={"exchange": "no such", "routing_key": "x"})
    batch = []
    for each in messages(route(queue), 20):
        batch += [message(wrong), each]

    said = publisher.publish(batch)

    assert [one.answer for one in said] == [Answer.REFUSED, Answer.ACCEPTED] * 20
    assert "no such" in said[0].reason
    seen = [each.path for each in OnServer(rabbit_server).read(queue)]
    assert seen == [each.path for each in batch if each.route is not wrong]


def test_names_that_amqp_cannot_express_are_refused_and_nothing_else(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    """A router may make queue names of directories, and those of anything."""
    names = ["\udcff", "ü" * 200, "amq.mine", "x" * 256]
    batch = [message(route(name)) for name in names]
    batch += [
        message(route(queue)._replace(options={"exchange": name, "routing_key": "k"}))
        for name in names
    ]
    batch.insert(2, message(route(queue)))
    for _ in range(2):
        said = publisher.publish([*batch, message(route(queue))])
        expected = [Answer.REFUSED] * 10
        expected[2] = expected[9] = Answer.ACCEPTED
        assert [one.answer for one in said] == expected
    assert rabbit_server.count(queue) == 4


def test_an_unknown_exchange_type_closes_the_connection_and_stops_nobody(
    rabbit_server: RabbitServer, queue: str
) -> None:
    unknown = kombu.Queue(f"{queue}x", kombu.Exchange(f"{queue}x", type="x-none"), "k")
    opened = publisher_for(rabbit_server.url, {"task_queues": [unknown]})
    batch = [message(route(queue)), message(route(f"{queue}x")), message(route(queue))]
    said = opened.publish(batch)
    assert [one.answer.name for one in said] == ["ACCEPTED", "REFUSED", "ACCEPTED"]
    assert "x-none" in said[1].reason
    assert rabbit_server.count(queue) == 2
    opened.close()


def test_what_rabbitmq_closes_the_channel_for_is_refused_and_its_neighbours_come_once(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    with rabbit_server.connection() as connection:
        connection.default_channel.exchange_declare(
            f"{queue}in", "direct", arguments={}, durable=True, auto_delete=False
        )
    faulty = [
        message(route(queue, expiration=-5)),
        message(route(queue, user_id="somebody")),
    ]
    batch = [*messages(route(queue), 5), *faulty, *messages(route(queue), 5)]
    said = publisher.publish(batch)
    assert [one.answer for one in said[5:7]] == [Answer.REFUSED] * 2
    assert "user_id" in said[6].reason
    assert rabbit_server.count(queue) == 10


def test_a_node_that_is_down_fails_nothing(tmp_path: Path, queue: str) -> None:
    """A classic queue is on one node; a client is connected to another."""
    one = RabbitServer(tmp_path / "one")
    two = RabbitServer(tmp_path / "two", beside=one)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(one.stop)
        cleanup.callback(two.stop)
        one.start()
        two.start()
        two.join(one)
        with two.connection() as connection:
            channel = connection.default_channel
            kombu.Queue(queue)(channel).declare()
            kombu.Queue(f"{queue}bound", kombu.Exchange(f"{queue}ex"), "k")(channel).declare()
        opened = cleanup.enter_context(contextlib.closing(publisher_for(one.url)))
        through = route(queue)._replace(options={"exchange": f"{queue}ex", "routing_key": "k"})
        batch = [message(route(queue)), message(route(f"{queue}here")), message(through)]
        assert opened.publish(batch) == [ACCEPTED] * 3
        two.kill()
        for _ in range(4):
            said = opened.publish(batch)
            assert [each.answer.name for each in said] == ["AGAIN", "ACCEPTED", "AGAIN"], said
        # RabbitMQ 3 lets nobody declare it, RabbitMQ 4 lets nobody publish to it.
        assert re.search("down or inaccessible|its node is not there", said[0].reason)
        assert said[0].target == f"queue '{queue}'"
        two.start()
        wait_until(lambda: answers(opened.publish(batch)) == {Answer.ACCEPTED}, 30, "all accepted")
        assert one.count(queue) == 2


def test_a_queue_that_exists_with_other_arguments_will_do(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    with rabbit_server.connection() as connection:
        theirs = kombu.Queue(queue, max_priority=5)
        theirs(connection.default_channel).declare()

    assert publisher.publish(messages(route(queue), 3)) == [ACCEPTED] * 3
    assert rabbit_server.count(queue) == 3


def test_messages_larger_than_a_frame_arrive_whole(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    to = route(queue)._replace(kwargs={"fill": "x" * 400_000})
    batch = messages(to, 12)
    assert publisher.publish(batch) == [ACCEPTED] * 12
    with rabbit_server.connection() as connection:
        simple = connection.SimpleQueue(queue)
        for each in batch:
            got = simple.get(timeout=5)
            assert got.payload[0] == [each.path]
            assert got.payload[1] == to.kwargs
            got.ack()
        simple.close()


def test_properties_larger_than_a_frame_are_refused(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    big, good = message(route(queue, headers={"big": "x" * 200_000})), message(route(queue))
    said = publisher.publish([big, good])
    assert [each.answer for each in said] == [Answer.REFUSED, Answer.ACCEPTED]
    assert rabbit_server.count(queue) == 1


def test_more_than_a_window_of_messages_is_confirmed(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    batch = messages(route(queue), 2 * WINDOW + 7)
    assert answers(publisher.publish(batch)) == {Answer.ACCEPTED}
    assert rabbit_server.count(queue) == len(batch)


def test_many_returned_messages_do_not_stop_both_sides(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    """The broker sends each message back while we are still writing."""
    with rabbit_server.connection() as connection:
        kombu.Exchange(f"{queue}ex", "direct")(connection.default_channel).declare()
    to = route(queue)._replace(
        options={"exchange": f"{queue}ex", "routing_key": "no"}, kwargs={"fill": "x" * 60_000}
    )
    start = time.monotonic()
    assert answers(publisher.publish(messages(to, 600))) == {Answer.AGAIN}
    assert time.monotonic() - start < 20


def test_a_memory_alarm_gives_no_false_acceptance_and_no_doubles(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    batch = messages(route(queue), 50)
    assert publisher.publish([batch[0]]) == [ACCEPTED]
    rabbit_server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        for _ in range(3):
            start = time.monotonic()
            said = publisher.publish(batch[1:])
            assert answers(said) == {Answer.AGAIN}
            assert "alarm" in said[0].reason
            assert time.monotonic() - start < 6
            publisher.keepalive()
    finally:
        rabbit_server.control("set_vm_memory_high_watermark", "0.4")

    # The same connection is kept: what it sent before the alarm is confirmed, not sent again.
    wait_until(lambda: answers(publisher.publish(batch[1:])) == {Answer.ACCEPTED}, what="accepted")
    assert rabbit_server.count(queue) == 50


def test_the_broker_killed_half_way_loses_nothing(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    batch = messages(route(queue), 3000)
    accepted = set()
    for start in range(0, 3000, 500):
        if start == 1500:
            rabbit_server.kill()
        part = batch[start : start + 500]
        for each, said in zip(part, publisher.publish(part), strict=True):
            if said is ACCEPTED:
                accepted.add(each.task_id)
    assert len(accepted) == 1500
    rabbit_server.start()

    assert {each.task_id for each in OnServer(rabbit_server).read(queue)} >= accepted


def test_a_wrong_password_is_said_without_showing_it(
    rabbit_server: RabbitServer, queue: str
) -> None:
    opened = publisher_for(rabbit_server.url.replace("guest:guest", "guest:wrong-password"))
    (said,) = opened.publish([message(route(queue))])
    reason = opened.check()
    assert said.answer is Answer.AGAIN
    assert reason is not None
    assert "ACCESS_REFUSED" in reason
    assert "wrong-password" not in reason + said.reason


def test_an_unknown_virtual_host_is_said(rabbit_server: RabbitServer) -> None:
    opened = publisher_for(rabbit_server.url.rstrip("/") + "/nowhere")
    reason = opened.check()
    assert reason is not None
    assert "nowhere" in reason


def test_the_next_url_is_used_where_the_first_does_not_answer(
    rabbit_server: RabbitServer, queue: str
) -> None:
    dead = f"amqp://127.0.0.1:{free_port()}//"
    opened = open_publisher(Broker("broker", (dead, rabbit_server.url)), {}, "/nonexistent")
    assert opened.check() is None
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    opened.close()


def test_heartbeats_keep_an_idle_connection(rabbit_server: RabbitServer, queue: str) -> None:
    opened = publisher_for(rabbit_server.url, {"broker_heartbeat": 2})
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    connection = opened._connection
    until = time.monotonic() + 6.0

    def kept() -> bool:
        opened.keepalive()
        return time.monotonic() > until

    # RabbitMQ closes a connection from which it has heard nothing for two intervals.
    wait_until(kept, 10.0, "three intervals", interval=0.5)
    assert opened._connection is connection
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    opened.close()


def test_signals_and_events_go_through_celerys_own_code(
    rabbit_server: RabbitServer, publisher: AmqpPublisher, queue: str
) -> None:
    heard: list[str] = []

    def before(**_: Any) -> None:
        heard.append("before")

    signals.before_task_publish.connect(before)
    try:
        assert publisher.publish(messages(route(queue), 3)) == [ACCEPTED] * 3
        rabbit_server.delete(queue)
        assert publisher.publish([message(route(queue))])[0].answer is Answer.AGAIN
        assert publisher.publish([message(route(queue))]) == [ACCEPTED]
    finally:
        signals.before_task_publish.disconnect(before)
    assert len(heard) == 5
    assert rabbit_server.count(queue) == 1


class Returned:
    """As py-amqp hands it to who listens for basic.return."""

    def __init__(self, task_id: str) -> None:
        self.properties = {"correlation_id": task_id}


def test_confirms_are_counted_by_their_tags() -> None:
    confirms: Confirms[str] = Confirms()
    for name in "abcdef":
        confirms.sent(name)
    confirms.ack(2, False)
    assert confirms.take() == [("b", True)]
    confirms.ack(4, True)
    assert confirms.take() == [("a", True), ("c", True), ("d", True)]
    confirms.nack(5, False)
    confirms.ack(5, True)
    confirms.ack(99, False)
    assert confirms.take() == [("e", False)]
    assert list(confirms.pending.values()) == ["f"]
    confirms.give_back("312", "", "q", Returned("id"))
    assert confirms.returned == {"id": "312"}
    confirms.start_again()
    assert not confirms.pending
    confirms.sent("g")
    confirms.ack(1, True)
    assert confirms.take() == [("g", True)]
