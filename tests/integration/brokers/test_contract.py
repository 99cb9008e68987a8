"""What every publisher promises, over every publisher."""

from __future__ import annotations

import os
import time

import pytest

from tests.integration.brokers.brokers import UnderTest
from tests.integration.brokers.messages import AWKWARD, answers, message, messages, route
from tests.waiting import wait_until
from watchman.model import ACCEPTED, MOST_BATCHED, Answer, Message, Outcome, Publisher

BOUND_SECONDS = 25.0
"""No call may take longer, whatever the broker does (kombu's transports get 15 s)."""


def publish_until_accepted(publisher: Publisher, batch: list[Message]) -> None:
    """What the sender does: again and again what was answered with AGAIN."""
    left = batch

    def done() -> bool:
        nonlocal left
        outcomes = publisher.publish(left)
        assert Answer.REFUSED not in answers(outcomes), outcomes
        left = [each for each, said in zip(left, outcomes, strict=True) if said is not ACCEPTED]
        return not left

    wait_until(done, 30.0, "everything accepted", interval=0.05)


def test_an_accepted_message_is_there_for_a_consumer(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    sent = message(route(queue))

    assert publisher.publish([sent]) == [ACCEPTED]

    (seen,) = broker.read(queue)
    assert (seen.path, seen.task_id) == (sent.path, sent.task_id)
    assert seen.headers["watchman_source"] == sent.source
    assert seen.headers["watchman_size"] == sent.size


def test_an_empty_batch_is_answered_with_nothing(publisher: Publisher) -> None:
    assert publisher.publish([]) == []


def test_a_thousand_messages_arrive_once_and_in_order(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    batch = messages(route(queue), 1000)

    assert answers(publisher.publish(batch)) == {Answer.ACCEPTED}

    if broker.url == "filesystem://":
        # Reading is slow by nature: kombu lists the whole directory for each message.
        paths = [seen.path for seen in broker.read(queue, 100)]
        assert paths == [each.path for each in batch[:100]]
    else:
        assert [seen.path for seen in broker.read(queue)] == [each.path for each in batch]


def test_order_holds_across_batches_and_queues_do_not_mix(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    this, other = route(queue), route(f"{queue}other")
    batch = messages(this, 30)
    for start in range(0, 30, 10):
        mixed = [each for one in batch[start : start + 10] for each in (one, message(other))]
        assert answers(publisher.publish(mixed)) == {Answer.ACCEPTED}

    assert [seen.path for seen in broker.read(queue)] == [each.path for each in batch]
    assert len(broker.read(f"{queue}other")) == 30


@pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD.keys())
def test_any_file_name_comes_out_as_it_went_in(
    broker: UnderTest, publisher: Publisher, queue: str, name: bytes
) -> None:
    path = os.fsdecode(name)
    sent = message(route(queue), path)._replace(source=path + "'%s")

    assert publisher.publish([sent]) == [ACCEPTED]

    (seen,) = broker.read(queue)
    assert os.fsencode(seen.path) == name
    assert seen.headers["watchman_source"] == sent.source


def test_a_task_has_all_files_of_the_largest_batch(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    names = [os.fsdecode(name) for name in AWKWARD.values()]
    long = [
        f"/srv/{'x' * 250}/{'/'.join([str(number) * 60] * 10)}" for number in range(MOST_BATCHED)
    ]
    files = (*names, *long[len(names) :])
    to = route(queue)._replace(kwargs={"k": 1})
    batch = [message(to, files[0])._replace(files=files), message(to, "/srv/alone")]

    assert publisher.publish(batch) == [ACCEPTED] * 2

    first, second = broker.read(queue)
    assert first.files == files
    assert (first.path, first.task_id) == (files[0], batch[0].task_id)
    assert second.files == ()


def test_a_message_that_is_sent_again_has_the_same_task_id(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    sent = message(route(queue))

    assert publisher.publish([sent, sent]) == [ACCEPTED] * 2
    assert publisher.publish([sent]) == [ACCEPTED]

    seen = broker.read(queue)
    assert [each.task_id for each in seen] == [sent.task_id] * 3


def test_what_can_never_be_sent_is_refused_and_the_rest_accepted(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    if broker.url.startswith("memory:"):
        pytest.skip("it keeps messages as they are")
    good = route(queue)
    bad = good._replace(kwargs={"never": object()})
    batch = [message(good, "/1"), message(bad, "/2"), message(good, "/3")]

    said = publisher.publish(batch)

    assert [each.answer for each in said] == [Answer.ACCEPTED, Answer.REFUSED, Answer.ACCEPTED]
    assert "tests.note" in said[1].reason
    assert "JSON" in said[1].reason
    assert "\n" not in said[1].reason
    assert [seen.path for seen in broker.read(queue)] == ["/1", "/3"]


def test_a_broker_that_is_down_is_said_to_be_so_and_used_again_when_back(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    before, during = messages(route(queue), 2)
    assert publisher.publish([before]) == [ACCEPTED]
    with broker.down():
        start = time.monotonic()
        (said,) = publisher.publish([during])
        assert said.answer is Answer.AGAIN
        assert said.reason
        assert "guest:guest" not in said.reason
        assert publisher.check()
        assert time.monotonic() - start < BOUND_SECONDS

    publish_until_accepted(publisher, [during])

    assert publisher.check() is None
    assert [seen.path for seen in broker.read(queue)][-1] == during.path


def test_a_publisher_that_starts_before_its_broker_finds_it_later(
    broker: UnderTest, queue: str
) -> None:
    sent = message(route(queue))
    with broker.down():
        publisher = broker.publisher()
        assert answers(publisher.publish([sent])) == {Answer.AGAIN}

    publish_until_accepted(publisher, [sent])

    assert [seen.task_id for seen in broker.read(queue)] == [sent.task_id]
    publisher.close()


def test_a_broker_that_hangs_does_not_hang_us(
    broker: UnderTest, publisher: Publisher, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchman.brokers.amqp.CONFIRM_SECONDS", 3.0)
    if broker.url == "filesystem://":
        pytest.skip("a directory that hangs hangs the whole system")
    before, *during = messages(route(queue), 3)
    assert publisher.publish([before]) == [ACCEPTED]
    with broker.hanging():
        start = time.monotonic()
        assert answers(publisher.publish(during)) == {Answer.AGAIN}
        assert time.monotonic() - start < BOUND_SECONDS

    publish_until_accepted(publisher, during)

    # What was in doubt may be there twice, always under its own task id, and nothing is missing.
    seen = {each.task_id for each in broker.read(queue)}
    assert seen == {each.task_id for each in (before, *during)}


def test_a_restart_between_two_batches_is_not_noticed_or_answered_with_again(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    first, second = messages(route(queue), 2)
    assert publisher.publish([first]) == [ACCEPTED]
    broker.restart()

    publish_until_accepted(publisher, [second])

    assert [seen.path for seen in broker.read(queue)] == [first.path, second.path]


def test_check_leaves_nothing_behind(broker: UnderTest, publisher: Publisher, queue: str) -> None:
    assert publisher.check() is None
    assert publisher.check() is None
    publisher.keepalive()

    assert broker.read(queue) == []


def test_tend_keeps_a_connection_and_close_may_be_called_twice(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    publisher.keepalive()
    for each in messages(route(queue), 3):
        assert publisher.publish([each]) == [ACCEPTED]
        publisher.keepalive()
    publisher.close()
    publisher.close()

    assert len(broker.read(queue)) == 3


ODD_NAMES = {
    "not UTF-8": "\udcff",
    "too long": "ü" * 200,
    "reserved": "amq.mine",
    "slash": "a/b",
    "dots": "..",
    "NUL": "a\0b",
    "newline": "a\nb",
    "kombu's separator": "a\x06\x16b",
    "no text": "\ud800",
    "very long": "x" * 5000,
}
"""Queues that a router may make of the names of directories, which are an uploader's choice."""


@pytest.mark.parametrize("option", ["queue", "exchange", "routing_key"])
def test_a_name_that_a_broker_cannot_take_stops_nobody_else(
    broker: UnderTest, publisher: Publisher, queue: str, option: str
) -> None:
    if broker.url.startswith("memory:"):
        pytest.skip("it keeps messages as they are")
    good = route(queue)
    batch = messages(good, 1)
    for name in ODD_NAMES.values():
        options = {"queue": name}
        if option != "queue":
            options = {"exchange": f"{queue}ex", "routing_key": "k", option: name}
        batch += [message(good._replace(options=options)), *messages(good, 1)]
    settled = dict.fromkeys(range(0, len(batch), 2), 0)
    for _ in range(3):  # what goes through kombu may have to be tried again on a new connection
        left = [index for index, count in settled.items() if not count]
        odd = list(range(1, len(batch), 2))
        here = sorted([*left, *odd])
        said = dict(zip(here, publisher.publish([batch[index] for index in here]), strict=True))
        assert not [one for one in said.values() if one.answer is Answer.AGAIN and not one.target]
        for index in left:
            settled[index] += said[index] is ACCEPTED
        assert all(said[index].reason.isprintable() for index in odd)
        if all(settled.values()):
            break
    assert set(settled.values()) == {1}
    assert len(broker.read(queue)) == len(settled)


def test_nothing_is_sent_to_a_paused_queue(
    broker: UnderTest, publisher: Publisher, queue: str
) -> None:
    if broker.url.startswith("memory:"):
        pytest.skip("no queue of its is ever in trouble")
    batch = [message(route(queue)), message(route(f"{queue}other"))]
    assert publisher.publish(batch) == [ACCEPTED] * 2
    publisher.pause(frozenset({f"queue '{queue}'"}))
    paused, other = publisher.publish(batch)
    assert paused == Outcome(Answer.AGAIN, "", f"queue '{queue}'")
    assert other is ACCEPTED
    publisher.pause(frozenset())
    assert publisher.publish(batch) == [ACCEPTED] * 2
    assert len(broker.read(queue)) == 2
    assert len(broker.read(f"{queue}other")) == 3
