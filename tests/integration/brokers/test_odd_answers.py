"""What no broker should say, and one that is broken, or is none, says all the same.

Whatever cannot be read says nothing of the message: nothing is refused for it, nothing is taken for
"sent". ``tests/faults/test_any_answer.py`` plays all of it; here is each thing that it has found.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.descriptors import many_open
from tests.integration.brokers.messages import message, messages, route
from tests.servers.fake_amqp import CHANNEL_OPEN, CLOSE, FakeAmqp, Reply, frame
from tests.servers.fake_redis import FakeRedis
from tests.servers.turns import Then, Turn
from watchman.brokers import amqp_connection, app, open_publisher
from watchman.brokers import redis as redis_publisher
from watchman.brokers.amqp_confirms import Confirms
from watchman.brokers.base import Answers, Unusable
from watchman.model import ACCEPTED, Answer, Broker, Outcome, Publisher

SETTINGS: dict[str, Any] = {"broker_connection_timeout": 0.3}


@pytest.fixture
def on_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRedis]:
    monkeypatch.setitem(redis_publisher.DEFAULTS, "socket_timeout", 0.3)
    fake = FakeRedis()
    yield fake
    fake.close()


@pytest.fixture
def on_amqp(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAmqp]:
    monkeypatch.setattr(app, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(amqp_connection, "ANSWER_SECONDS", 0.3)
    fake = FakeAmqp()
    yield fake
    fake.close()


@pytest.fixture
def open_one() -> Iterator[Callable[..., Publisher]]:
    opened: list[Publisher] = []

    def open_it(*urls: str) -> Publisher:
        opened.append(open_publisher(Broker("broker", urls), SETTINGS, "/nonexistent"))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def url(fake: FakeRedis) -> str:
    return f"redis://{fake.address}/0"


def once(server: FakeAmqp | FakeRedis, name: str, turn: Turn) -> None:
    """Have a turn in place of the next answer of that name."""
    left = [turn]
    server.disturb = lambda _, what: left.pop() if what == name and left else None


def raw(said: bytes, **more: Any) -> Turn:
    return Turn("", lambda *_: said, **more)


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
@pytest.mark.parametrize("said", [b"+OK", b"_", b":0", b"#t", b"$1\r\n9", b"*0", b"*1\r\n:9"])
def test_only_a_number_that_fits_says_that_redis_has_the_task(
    on_redis: FakeRedis, said: bytes, settings: dict[str, Any]
) -> None:
    once(on_redis, "LPUSH", raw(said + b"\r\n"))
    broker = Broker("broker", (url(on_redis),))
    publisher = open_publisher(broker, {**SETTINGS, **settings}, "/nonexistent")
    try:
        task = message(route("q"))
        (answer,) = publisher.publish([task])
        assert (answer.answer, answer.target) == (Answer.AGAIN, "")
        assert "LPUSH was answered by" in answer.reason
        assert publisher.publish([task]) == [ACCEPTED]
        assert on_redis.lists["q"] == [task.task_id]
    finally:
        publisher.close()


def test_a_number_that_is_less_than_what_was_pushed_says_that_redis_has_none(
    on_redis: FakeRedis, open_one: Callable[..., Publisher]
) -> None:
    once(on_redis, "LPUSH", raw(b":1\r\n"))
    answers = open_one(url(on_redis)).publish(messages(route("q"), 2))
    assert {one.answer for one in answers} == {Answer.AGAIN}


@pytest.mark.parametrize("said", [b"+OK\r\n", b"#t\r\n", b"_\r\n"])
def test_only_a_number_says_how_many_have_heard_of_it(
    on_redis: FakeRedis, open_one: Callable[..., Publisher], said: bytes
) -> None:
    once(on_redis, "PUBLISH", raw(said))
    to_all = route("q")._replace(options={"exchange": "x", "exchange_type": "fanout"})
    (answer,) = open_one(url(on_redis)).publish([message(to_all)])
    assert (answer.answer, answer.target) == (Answer.AGAIN, "")
    assert "PUBLISH was answered by" in answer.reason


def test_an_answer_too_many_is_not_taken_for_that_of_the_next_push(
    on_redis: FakeRedis, open_one: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_publisher, "CHUNK", 1)
    pushes = 0

    def disturb(_: int, name: str) -> Turn | None:
        nonlocal pushes
        pushes += name == "LPUSH"
        if name != "LPUSH":
            return None
        return raw(b":1\r\n:2\r\n", done=True) if pushes == 1 else Turn("", then=Then.CLOSE)

    on_redis.disturb = disturb
    batch = messages(route("q"), 2)
    answers = open_one(url(on_redis)).publish(batch)
    assert [one.answer for one in answers] == [Answer.ACCEPTED, Answer.AGAIN]
    assert on_redis.stored == [batch[0].task_id]


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("SADD", b":many"),
        ("SADD", b"-MOVED"),
        ("SADD", b"%1\r\n*0\r\n:1"),
        ("EXEC", b":7"),
        ("EXEC", b"#t"),
    ],
)
def test_what_cannot_be_read_while_a_queue_is_declared_refuses_nothing(
    on_redis: FakeRedis, at: str, said: bytes, settings: dict[str, Any]
) -> None:
    once(on_redis, at, raw(said + b"\r\n"))
    broker = Broker("broker", (url(on_redis),))
    publisher = open_publisher(broker, {**SETTINGS, **settings}, "/nonexistent")
    try:
        (answer,) = publisher.publish([message(route("q"))])
        assert answer.answer is Answer.AGAIN
        assert publisher.publish([message(route("q"))]) == [ACCEPTED]
    finally:
        publisher.close()


def test_a_refusal_while_a_second_connection_is_opened_is_about_no_queue(
    on_redis: FakeRedis, open_one: Callable[..., Publisher]
) -> None:
    """kombu opens one for a declaration."""
    publisher = open_one(url(on_redis))
    assert publisher.keepalive() is None
    once(on_redis, "HELLO", raw(b"-NOPERM no permissions to run the 'hello' command\r\n"))
    (answer,) = publisher.publish([message(route("q"))])
    assert (answer.answer, answer.target) == (Answer.AGAIN, "")


def test_a_server_that_does_not_answer_a_trial_is_left_for_the_next_url(
    on_redis: FakeRedis, open_one: Callable[..., Publisher]
) -> None:
    silent = FakeRedis()
    silent.disturb = lambda _, name: Turn("", then=Then.SILENCE) if name == "LPUSHX" else None
    try:
        publisher = open_one(url(silent), url(on_redis))
        assert publisher.publish([message(route("q"))]) == [ACCEPTED]
        assert len(on_redis.stored) == 1
    finally:
        silent.close()


@pytest.mark.parametrize("at", ["20.11", "50.11", "60.80"])
@pytest.mark.parametrize(
    "said",
    [
        frame(1, (60, 999)),
        frame(0, (999, 10)),
        b"\x01\0\x01\0\0\0\x02\0\x0a\xce",
        b"\x01\0\x63\0\0\0\x04\0\x14\0\x0b\xce",
        b"\x07\0\0\0\0\0\0\xce",
    ],
    ids=["unknown method", "unknown class", "no method", "no such channel", "unknown frame"],
)
def test_frames_that_cannot_be_read_refuse_nothing(
    on_amqp: FakeAmqp, open_one: Callable[..., Publisher], said: bytes, at: str
) -> None:
    publisher = open_one(on_amqp.url)
    assert publisher.keepalive() is None
    once(on_amqp, at, raw(said))
    task = message(route("q"))
    answer: Outcome = publisher.publish([task])[0]
    assert (answer.answer, answer.target) == (Answer.AGAIN, "")
    assert publisher.publish([task]) == [ACCEPTED]
    assert on_amqp.ids == [task.task_id]


@pytest.mark.parametrize("code", [403, 540])
def test_a_channel_that_cannot_be_opened_refuses_nothing(
    on_amqp: FakeAmqp, open_one: Callable[..., Publisher], code: int
) -> None:
    publisher = open_one(on_amqp.url)
    assert publisher.keepalive() is None
    on_amqp.answer = lambda method, _: Reply(code, "no") if method == CHANNEL_OPEN else None
    (answer,) = publisher.publish([message(route("q"))])
    assert (answer.answer, answer.target) == (Answer.AGAIN, "")


@pytest.mark.parametrize(
    ("at", "nth"),
    [("20.11", 2), ("20.41", 1), ("85.11", 1)],
    ids=["opened", "closed", "in confirm mode"],
)
def test_nor_does_a_channel_of_kombus(on_amqp: FakeAmqp, at: str, nth: int) -> None:
    """The second channel is opened for it, and closed after it; then the first is put to work."""
    settings = {**SETTINGS, "task_send_sent_event": True}
    publisher = open_publisher(Broker("broker", (on_amqp.url,)), settings, "/nonexistent")
    said: list[str] = []
    absent = raw(frame(0, CLOSE, b"\x01\x94\x02no\0\0\0\0"), then=Then.SILENCE)

    def disturb(_: int, name: str) -> Turn | None:
        said.append(name)
        return absent if name == at and said.count(at) == nth else None

    on_amqp.disturb = disturb
    try:
        (answer,) = publisher.publish([message(route("q"))])
        assert said.count(at) == nth
        assert (answer.answer, answer.target) == (Answer.AGAIN, "")
        assert "404" in answer.reason
    finally:
        publisher.close()


@pytest.mark.parametrize("at", ["10.30", "20.11", "50.11"])
def test_heartbeats_are_no_answer(
    on_amqp: FakeAmqp, open_one: Callable[..., Publisher], at: str
) -> None:
    once(on_amqp, at, Turn("", then=Then.BEAT))
    publisher = open_one(on_amqp.url)
    begun = time.monotonic()
    answers = publisher.publish([message(route("q"))])
    assert answers[0].answer is Answer.AGAIN
    assert time.monotonic() - begun < 10
    assert publisher.publish([message(route("q"))]) == [ACCEPTED]


@pytest.mark.parametrize("at", ["10.41", "20.11"], ids=["login", "channel"])
@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
def test_connections_that_fail_leave_no_socket_behind(
    on_amqp: FakeAmqp, settings: dict[str, Any], at: str
) -> None:
    unknown = raw(frame(0, (999, 10)))
    on_amqp.disturb = lambda _, name: unknown if name == at else None

    def sockets() -> list[Any]:
        there = psutil.Process().net_connections(kind="tcp")
        return [each for each in there if each.raddr and f":{each.raddr.port}/" in on_amqp.url]

    publisher = open_publisher(
        Broker("broker", (on_amqp.url,)), {**SETTINGS, **settings}, "/nonexistent"
    )
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            assert "Unknown AMQP method" in (publisher.check() or "")
        assert sockets() == []
    finally:
        gc.enable()
        publisher.close()


def test_what_is_said_of_a_tag_that_is_none_says_nothing() -> None:
    confirms: Confirms[str] = Confirms()
    confirms.sent("a")
    for tag in (2, 2**63):
        confirms.ack(tag, True)
        confirms.nack(tag, False)
    assert confirms.take() == []
    confirms.ack(1, True)
    assert confirms.take() == [("a", True)]


def test_what_was_given_back_on_a_channel_that_is_closed_is_forgotten() -> None:
    confirms: Confirms[str] = Confirms()
    confirms.returned["id"] = "312"
    confirms.start_again()
    assert confirms.returned == {}


def test_a_reason_is_no_longer_than_a_line_should_be() -> None:
    answers = Answers(Broker("broker", ("redis://host/0",)))
    reason = answers.reason("ERR " + "very long " * 10_000)
    assert reason.startswith("redis://host/0: ERR very long")
    assert len(reason) == 1001


def test_no_full_stop_stands_before_what_follows_a_reason() -> None:
    url, where = "redis://:secret@one:6379/0", "redis://**@one:6379/0"
    answers = Answers(Broker("broker", (url,)))
    error = ConnectionError("Connection refused.")
    clause = f"{where}: ConnectionError: Connection refused"
    assert answers.reason(error) == clause
    assert answers.again(error, "celery").reason == f"{clause} (celery)"
    assert answers.reason(Unusable([(url, error)] * 2)) == f"{clause}; {clause}"


def test_a_connection_is_of_use_however_many_descriptors_are_open(
    on_amqp: FakeAmqp, open_one: Callable[..., Publisher]
) -> None:
    """A burst keeps hundreds of directories open, and each MOVES entry its own."""
    assert open_one(on_amqp.url).keepalive() is None  # all is loaded
    with many_open():
        publisher = open_one(on_amqp.url)
        for one in messages(route("q"), 3):
            assert publisher.publish([one]) == [ACCEPTED]
        assert publisher.keepalive() is None
    assert on_amqp.connections == 2
