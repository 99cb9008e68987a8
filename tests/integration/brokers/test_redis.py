"""What is special about Redis: keys, bindings, priorities, its error replies."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery, signals

from tests.faults.proxy import Proxy
from tests.integration.brokers.messages import answers, message, messages, route
from tests.servers import free_port, require
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.brokers.redis import CHUNK, RedisPublisher
from watchman.model import ACCEPTED, Answer, Broker, Publisher


def publisher_for(
    url: str, settings: dict[str, Any] | None = None, **options: Any
) -> RedisPublisher:
    opened = open_publisher(Broker("broker", (url,), options), settings or {}, "/nonexistent")
    assert isinstance(opened, RedisPublisher)
    return opened


@pytest.fixture
def publisher(redis_server: RedisServer) -> Iterator[Publisher]:
    opened = publisher_for(redis_server.url)
    yield opened
    opened.close()


def keys_after(server: RedisServer, send: Any) -> dict[str, Any]:
    """Return what is in an emptied server after ``send``: every key, with its members or count."""
    with server.client(decode_responses=True) as client:
        client.flushall()
        send()
        found: dict[str, Any] = {}
        for key in client.scan_iter():
            look = {
                "list": client.llen,
                "set": client.smembers,
                "zset": lambda key: client.zrange(key, 0, -1),
            }
            found[key] = look[str(client.type(key))](key)
        client.flushall()
    return found


@pytest.mark.parametrize(
    ("options", "settings", "transport"),
    [
        ({"queue": "one"}, {}, {}),
        ({"queue": "one", "priority": 9}, {}, {}),
        ({"queue": "one", "priority": 4}, {}, {"priority_steps": [0, 5, 9], "sep": ":"}),
        ({"queue": "one", "priority": 3}, {}, {"global_keyprefix": "{mine}"}),
        ({"queue": "one"}, {}, {"queue_order_strategy": "priority", "visibility_timeout": 60}),
        ({}, {"task_default_queue": "main", "task_default_priority": 6}, {}),
        ({"exchange": "files", "routing_key": "a.b", "exchange_type": "topic"}, "topic", {}),
        ({"queue": "expiring"}, "expiring", {}),
    ],
)
def test_the_keys_are_those_that_celery_writes(
    redis_server: RedisServer, options: dict[str, Any], settings: Any, transport: dict[str, Any]
) -> None:
    if settings == "topic":
        exchange = kombu.Exchange("files", "topic")
        queues = [kombu.Queue("bound", exchange, routing_key="a.#")]
        settings = {"task_queues": queues}
        options = {**options, "declare": queues}
    elif settings == "expiring":
        settings = {"task_queues": [kombu.Queue("expiring", expires=600)]}
    each = message(route("x")._replace(options=options))

    def through_celery() -> None:
        app = Celery("reference", set_as_current=False)
        app.conf.update(settings, broker_transport_options=transport)
        with app.connection_for_write(redis_server.url) as connection:
            producer = app.amqp.Producer(connection, auto_declare=False)
            app.send_task("tests.note", ["/a"], producer=producer, **options)

    def through_us() -> None:
        opened = publisher_for(redis_server.url, settings, **transport)
        assert opened.publish([each]) == [ACCEPTED]
        opened.close()

    expected = keys_after(redis_server, through_celery)
    assert expected
    assert keys_after(redis_server, through_us) == expected


def test_a_database_and_a_prefix_are_used(redis_server: RedisServer, queue: str) -> None:
    opened = publisher_for(redis_server.url.replace("/0", "/3"), global_keyprefix="mine:")
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    with redis_server.client(db=3) as client:
        assert client.llen(f"mine:{queue}") == 1
    opened.close()


def test_a_batch_larger_than_one_push_arrives_in_order(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    to = route(queue)._replace(kwargs={"fill": "x" * 2000})
    batch = messages(to, 3 * CHUNK // 3000)
    assert answers(publisher.publish(batch)) == {Answer.ACCEPTED}
    with redis_server.client() as client:
        raw = client.lrange(queue, 0, -1)
    ids = [json.loads(text)["headers"]["id"] for text in raw[::-1]]
    assert ids == [each.task_id for each in batch]


def test_a_key_of_another_type_refuses_its_messages_only(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    with redis_server.client() as client:
        client.set(queue, "no list")
        wrong, right = message(route(queue)), message(route(f"{queue}right"))
        said = publisher.publish([wrong, right, wrong])
        assert [each.answer for each in said] == [Answer.REFUSED, Answer.ACCEPTED, Answer.REFUSED]
        assert "WRONGTYPE" in said[0].reason
        assert queue in said[0].reason
        assert client.llen(f"{queue}right") == 1


def test_a_full_or_read_only_server_is_tried_again(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    each = message(route(queue))
    assert publisher.publish([each]) == [ACCEPTED]
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
        (full,) = publisher.publish([each])
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", free_port())
        (read_only,) = publisher.publish([each])
        client.replicaof("NO", "ONE")

    assert full.answer is read_only.answer is Answer.AGAIN
    # Redis tells out-of-memory by a sentence that redis-py may take the code off.
    assert "maxmemory" in full.reason
    assert "read only" in read_only.reason
    assert publisher.publish([each]) == [ACCEPTED]


def test_a_wrong_password_is_said_without_showing_it(tmp_path: Path, queue: str) -> None:
    server = RedisServer(tmp_path, "--requirepass", "right-password")
    server.start()
    try:
        for secret in (":wrong-password@", "somebody:wrong-password@", ""):
            opened = publisher_for(f"redis://{secret}127.0.0.1:{server.port}/0")
            (said,) = opened.publish([message(route(queue))])
            assert said.answer is Answer.AGAIN
            reason = opened.check()
            assert reason is not None
            assert "wrong-password" not in reason + said.reason
            opened.close()
        good = publisher_for(f"redis://:right-password@127.0.0.1:{server.port}/0")
        assert good.publish([message(route(queue))]) == [ACCEPTED]
        good.close()
    finally:
        server.stop()


def test_an_acl_user_that_may_not_push_is_refused(redis_server: RedisServer, queue: str) -> None:
    with redis_server.client() as client:
        client.acl_setuser(
            "limited", enabled=True, passwords=["+secret"], keys=["other*"], categories=["+@all"]
        )
        opened = publisher_for(f"redis://limited:secret@127.0.0.1:{redis_server.port}/0")
        (said,) = opened.publish([message(route(queue))])
        assert said.answer is Answer.REFUSED
        assert "secret" not in said.reason
        opened.close()
        client.acl_deluser("limited")


def test_the_next_url_is_used_where_the_first_does_not_answer(
    redis_server: RedisServer, queue: str
) -> None:
    dead = f"redis://127.0.0.1:{free_port()}/0"
    opened = open_publisher(Broker("broker", (dead, redis_server.url)), {}, "/nonexistent")
    assert opened.check() is None
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    opened.close()


def test_an_idle_connection_that_died_is_noticed(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    assert publisher.publish([message(route(queue))]) == [ACCEPTED]
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        publisher.keepalive()
        assert publisher.publish([message(route(queue))]) == [ACCEPTED]
        client.client_kill_filter(_type="normal", skipme=True)
        assert publisher.publish([message(route(queue))]) == [ACCEPTED]
        assert client.llen(queue) == 3


def test_connections_do_not_pile_up(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    with redis_server.client() as client:
        for _ in range(20):
            assert publisher.publish([message(route(queue))]) == [ACCEPTED]
            client.client_kill_filter(_type="normal", skipme=True)
        assert publisher.publish([message(route(queue))]) == [ACCEPTED]
        assert len(client.client_list()) < 6
    assert threading.active_count() < 10


def test_who_listens_to_celerys_signals_is_called(
    redis_server: RedisServer, publisher: Publisher, queue: str
) -> None:
    heard: list[str] = []

    def before(headers: dict[str, Any], **_: Any) -> None:
        headers["trace"] = "abc"
        heard.append("before")

    def after(**_: Any) -> None:
        heard.append("after")

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        assert publisher.publish(messages(route(queue), 2)) == [ACCEPTED] * 2
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert heard == ["before", "after"] * 2
    with redis_server.client() as client:
        raw = client.lrange(queue, 0, -1)
    assert [json.loads(text)["headers"]["trace"] for text in raw] == ["abc", "abc"]


def test_task_sent_events_are_sent_where_celery_is_told_to(
    redis_server: RedisServer, queue: str
) -> None:
    opened = publisher_for(redis_server.url, {"task_send_sent_event": True})
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    with redis_server.client() as client:
        assert client.llen(queue) == 1
    opened.close()


def test_tls_is_used_for_rediss(tmp_path: Path, queue: str) -> None:
    openssl = require("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    make += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file"]
    tls += [str(certificate), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = RedisServer(tmp_path / "server", *tls)
    try:
        server.start()
    except AssertionError:
        server.stop()
        pytest.skip("this redis-server is built without TLS")
    try:
        query = f"ssl_cert_reqs=required&ssl_ca_certs={certificate}"
        good = publisher_for(f"rediss://127.0.0.1:{port}/0?{query}")
        assert answers(good.publish(messages(route(queue), 300))) == {Answer.ACCEPTED}
        good.close()
        distrusting = publisher_for(f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required")
        reason = distrusting.check()
        assert reason is not None
        assert "certificate" in reason
    finally:
        server.stop()
        shutil.rmtree(tmp_path / "server", ignore_errors=True)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    one, two = RedisServer(tmp_path / "one"), RedisServer(tmp_path / "two")
    try:
        one.start()
        two.start()
        yield one, two
    finally:
        one.stop()
        two.stop()


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
def test_a_server_that_is_demoted_is_left_for_the_next(
    pair: tuple[RedisServer, RedisServer], queue: str, settings: dict[str, Any]
) -> None:
    one, two = pair
    opened = open_publisher(Broker("broker", (one.url, two.url)), settings, "/nonexistent")
    assert opened.publish([message(route(queue))]) == [ACCEPTED]
    with one.client() as client:
        client.replicaof("127.0.0.1", two.port)
    batch = messages(route(queue), 3)
    wait_until(lambda: opened.publish(batch) == [ACCEPTED] * 3, 10, "the next URL is used")
    with two.client() as client:
        assert client.llen(queue) == 3
    opened.close()


def test_an_address_that_leads_to_another_server_now_is_connected_to_anew(
    pair: tuple[RedisServer, RedisServer], queue: str
) -> None:
    one, two = pair
    with Proxy(one.port) as proxy:
        opened = publisher_for(f"redis://127.0.0.1:{proxy.port}/0")
        assert opened.publish([message(route(queue))]) == [ACCEPTED]
        proxy.target = two.port  # what there is stays connected to the first one
        with one.client() as client:
            client.replicaof("127.0.0.1", two.port)
        (said,) = opened.publish([message(route(queue))])
        assert "read only" in said.reason
        assert opened.publish([message(route(queue))]) == [ACCEPTED]
        with two.client() as client:
            assert client.llen(queue) == 1
        opened.close()


def test_a_replica_is_no_broker_and_check_says_so(
    pair: tuple[RedisServer, RedisServer], queue: str
) -> None:
    one, two = pair
    with one.client() as client:
        client.replicaof("127.0.0.1", two.port)
    opened = publisher_for(one.url)
    for said in (
        opened.check(),
        opened.keepalive(),
        opened.publish([message(route(queue))])[0].reason,
    ):
        assert said is not None
        assert "read only" in said
    opened.close()


def test_a_full_server_is_no_broker_to_check(redis_server: RedisServer) -> None:
    opened = publisher_for(redis_server.url)
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
        reason, idle = opened.check(), opened.keepalive()
        client.config_set("maxmemory", "0")
    assert reason == idle
    assert reason is not None
    assert "maxmemory" in reason
    assert opened.check() is None
    opened.close()


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
def test_where_all_fail_each_says_why(tmp_path: Path, queue: str, settings: dict[str, Any]) -> None:
    server = RedisServer(tmp_path, "--requirepass", "right-password")
    server.start()
    dead = f"redis://:hunter22@127.0.0.1:{free_port()}/0"
    locked = f"redis://:tiger33@127.0.0.1:{server.port}/0"
    opened = open_publisher(Broker("broker", (dead, locked)), settings, "/nonexistent")
    try:
        for said in (opened.check(), opened.publish([message(route(queue))])[0].reason):
            assert said is not None
            first, second = said.split("; ")
            assert first.startswith(dead.replace(":hunter22@", "**@"))
            assert "refused" in first
            assert second.startswith(locked.replace(":tiger33@", "**@"))
            assert "password" in second
            assert "hunter22" not in said
            assert "tiger33" not in said
    finally:
        opened.close()
        server.stop()
