"""Whatever an AMQP broker says, at whichever moment: what can heal waits, what cannot is refused,
and in either case only what it is about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.brokers.messages import message, messages, route
from tests.servers.fake_amqp import (
    CONFIRM,
    EXCHANGE_DECLARE,
    NACKED,
    OPEN,
    PUBLISH,
    QUEUE_DECLARE,
    SILENCE,
    START_OK,
    FakeAmqp,
    Method,
    Reply,
)
from watchman.brokers import amqp, open_publisher
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome, Publisher

DOWN = "home node 'rabbit@two' of durable queue 'bad' in vhost '/' is down or inaccessible"
HEALS = [
    Reply(313, "NO_CONSUMERS"),
    Reply(404, f"NOT_FOUND - {DOWN}"),
    Reply(404, "NOT_FOUND - queue 'bad' in vhost '/' process is stopped by supervisor"),
    Reply(404, "NOT_FOUND - queue 'bad' in vhost '/' has crashed and failed to restart"),
    Reply(
        404, "NOT_FOUND - failed to perform operation on queue 'bad' in vhost '/' due to timeout"
    ),
    Reply(404, "NOT_FOUND - failed to perform operation on 'bad': its leader may be stopping"),
    Reply(403, "ACCESS_REFUSED - access refused, backend http returned an error: econn"),
    Reply(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'bad'"),
    Reply(406, "PRECONDITION_FAILED - cannot declare queue 'bad': limit in vhost is reached"),
    Reply(499, "nobody has thought of this one"),
    Reply(506, "RESOURCE_ERROR - failed to deliver message"),
    Reply(541, "INTERNAL_ERROR - Cannot declare a queue 'bad' on node 'rabbit@two': timeout"),
]
HOPELESS = [
    Reply(311, "CONTENT_TOO_LARGE"),
    Reply(403, "ACCESS_REFUSED - write access to exchange 'bad' refused for user 'x'"),
    Reply(403, "ACCESS_REFUSED - queue name 'bad' contains reserved prefix 'amq.*'"),
    Reply(404, "NOT_FOUND - no exchange 'bad' in vhost '/'"),
    Reply(406, "PRECONDITION_FAILED - invalid expiration 'x': no_integer"),
    Reply(406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"),
    Reply(501, "FRAME_ERROR"),
    Reply(502, "SYNTAX_ERROR - illegal field"),
    Reply(503, "COMMAND_INVALID - unknown exchange type 'x-none'"),
    Reply(540, "NOT_IMPLEMENTED - immediate=true"),
]
EVERYTHING = [
    Reply(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
    Reply(402, "INVALID_PATH - vhost not found"),
    Reply(504, "CHANNEL_ERROR - expected 'channel.open'"),
    Reply(505, "UNEXPECTED_FRAME - expected method frame"),
    Reply(530, "NOT_ALLOWED - access to vhost '/' refused for user 'x': connection limit reached"),
]
"""What ends a connection and is nobody's own fault."""


@pytest.fixture
def server() -> Iterator[FakeAmqp]:
    fake = FakeAmqp()
    yield fake
    fake.close()


@pytest.fixture
def publisher(server: FakeAmqp) -> Iterator[Publisher]:
    opened = open_publisher(Broker("broker", (server.url,)), {}, "/nonexistent")
    yield opened
    opened.close()


def short(reply: Reply) -> str:
    return f"{reply.code} {reply.text[:60]}"


def say(server: FakeAmqp, at: Method, reply: Reply) -> None:
    """Say it whenever it is about what is called bad."""
    server.answer = lambda method, name: reply if method == at and name == "bad" else None


BAD = route("bad")
BATCH = [
    message(route("good")),
    message(BAD),
    message(route("good")),
    message(BAD),
    message(route("fine")),
]
ONLY_ITS_OWN_WAIT = ["ACCEPTED", "AGAIN", "ACCEPTED", "AGAIN", "ACCEPTED"]
"""The answers to BATCH where a queue holds up no other."""


def publish_all(publisher: Publisher, batch: list[Message]) -> list[Outcome]:
    """Publish, and once more what the connection took with it."""
    said = publisher.publish(batch)
    left = [i for i, one in enumerate(said) if one.answer is Answer.AGAIN and not one.target]
    for index, again in zip(left, publisher.publish([batch[i] for i in left]), strict=True):
        said[index] = again
    return said


@pytest.mark.parametrize("moment", [QUEUE_DECLARE, PUBLISH], ids=["declaring", "publishing"])
@pytest.mark.parametrize("reply", HEALS, ids=short)
def test_what_can_heal_is_tried_again_and_holds_up_its_own_queue_only(
    server: FakeAmqp, publisher: Publisher, reply: Reply, moment: Method
) -> None:
    say(server, moment, reply)

    said = publish_all(publisher, BATCH)

    assert [one.answer.name for one in said] == ONLY_ITS_OWN_WAIT
    assert {one.target for one in said} == {"", "queue 'bad'"}
    assert reply.text in said[1].reason
    assert "bad" in said[1].reason
    assert sorted(server.published) == ["fine", "good", "good"]
    server.answer = lambda method, name: None
    assert publish_all(publisher, [BATCH[1], BATCH[3]]) == [ACCEPTED] * 2
    assert server.published[3:] == ["bad", "bad"]


@pytest.mark.parametrize("moment", [QUEUE_DECLARE, PUBLISH], ids=["declaring", "publishing"])
@pytest.mark.parametrize("reply", HOPELESS, ids=short)
def test_what_cannot_heal_is_refused_and_nothing_else_is_or_comes_twice(
    server: FakeAmqp, publisher: Publisher, reply: Reply, moment: Method
) -> None:
    say(server, moment, reply)

    said = publish_all(publisher, BATCH)

    expected = ["ACCEPTED", "REFUSED", "ACCEPTED", "REFUSED", "ACCEPTED"]
    assert [one.answer.name for one in said] == expected
    assert reply.text in said[1].reason
    assert sorted(server.published) == ["fine", "good", "good"]


@pytest.mark.parametrize("moment", [START_OK, OPEN, CONFIRM, QUEUE_DECLARE, PUBLISH])
@pytest.mark.parametrize("reply", [*EVERYTHING, *HEALS[-2:]], ids=short)
def test_what_is_the_brokers_own_trouble_refuses_nothing(
    server: FakeAmqp, publisher: Publisher, reply: Reply, moment: Method
) -> None:
    server.answer = lambda method, name: reply if method == moment else None

    said = publisher.publish(BATCH)

    assert {one.answer for one in said} == {Answer.AGAIN}
    assert server.published == []
    server.answer = lambda method, name: None
    assert publish_all(publisher, BATCH) == [ACCEPTED] * 5
    assert len(server.published) == 5


@pytest.mark.parametrize("reply", [*HOPELESS, *HEALS], ids=short)
def test_a_login_that_fails_refuses_no_message(
    server: FakeAmqp, publisher: Publisher, reply: Reply
) -> None:
    server.answer = lambda method, name: reply if method in {START_OK, OPEN} else None
    assert {one.answer for one in publisher.publish(BATCH)} == {Answer.AGAIN}
    assert {one.target for one in publisher.publish(BATCH)} == {""}


def test_an_exchange_that_is_not_there_is_found_out_before_anything_is_sent(
    server: FakeAmqp, publisher: Publisher
) -> None:
    say(server, EXCHANGE_DECLARE, Reply(404, "NOT_FOUND - no exchange 'bad' in vhost '/'"))
    wrong = route("x")._replace(options={"exchange": "bad", "routing_key": "k"})

    said = publisher.publish([message(route("good")), message(wrong), message(route("good"))])

    assert [one.answer.name for one in said] == ["ACCEPTED", "REFUSED", "ACCEPTED"]
    assert server.published == ["good", "good"]
    assert server.connections == 1


def test_what_a_full_queue_does_not_take_keeps_its_order(
    server: FakeAmqp, publisher: Publisher
) -> None:
    taken = 3

    def full(method: Method, name: str) -> Reply | None:
        nonlocal taken
        if method == PUBLISH and name == "bad":
            taken -= 1
            return None if taken >= 0 else NACKED
        return None

    server.answer = full
    batch = messages(BAD, 10)
    assert publisher.publish(batch)[:3] == [ACCEPTED] * 3  # it is known to be full from now on
    taken = 2
    said = publisher.publish([*batch, message(route("good"))])
    assert [one.answer.name for one in said] == ["ACCEPTED"] * 2 + ["AGAIN"] * 8 + ["ACCEPTED"]
    assert said[5].target == "queue 'bad'"
    assert "full" in said[5].reason
    # Behind the first one that was not taken nothing was sent.
    assert taken == -1


def test_routes_that_share_a_queue_keep_their_order(server: FakeAmqp, publisher: Publisher) -> None:
    """Though the first message of each route goes alone."""
    one, two = route("shared"), route("shared", "tests.other")
    batch = [message(to) for to in (one, one, two, one, two, two)]
    assert publisher.publish(batch) == [ACCEPTED] * 6
    assert server.ids == [each.task_id for each in batch]


@pytest.mark.parametrize("moment", [QUEUE_DECLARE, PUBLISH], ids=["declaring", "publishing"])
def test_a_queue_that_does_not_answer_holds_up_no_other(
    server: FakeAmqp, publisher: Publisher, moment: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp, "CONFIRM_SECONDS", 1.0)
    say(server, moment, SILENCE)
    said = publish_all(publisher, BATCH)
    assert [one.answer.name for one in said] == ONLY_ITS_OWN_WAIT
    assert said[1].target == "queue 'bad'"


def test_a_server_that_ends_each_connection_is_left_for_the_next_url(server: FakeAmqp) -> None:
    leaving = FakeAmqp()
    leaving.answer = lambda method, _: EVERYTHING[0] if method == PUBLISH else None
    urls = (leaving.url, server.url)
    opened = open_publisher(Broker("broker", urls), {}, "/nonexistent")
    try:
        (said,) = opened.publish([message(BAD)])
        assert said.reason.startswith(leaving.url)
        assert opened.publish([message(BAD)]) == [ACCEPTED]
        assert server.published == ["bad"]
        leaving.answer = server.answer = lambda method, _: EVERYTHING[1] if method == OPEN else None
        reason = opened.check()
        assert reason is not None
        assert sorted(part.split(": ")[0] for part in reason.split("; ")) == sorted(urls)
    finally:
        opened.close()
        leaving.close()
