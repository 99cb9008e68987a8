"""Templates say, byte for byte, what Celery's own ``send_task`` would have sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from typing import Any

import kombu
import pytest
from celery import Celery, signals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.transport import virtual

from tests.integration.brokers.messages import AWKWARD, message, route
from watchman.brokers.amqp_frames import FrameContent, FrameFormat, frames, publish_method
from watchman.brokers.app import instrumented, make_application, make_connection
from watchman.brokers.capture import watchman_headers
from watchman.brokers.json_format import JsonFormat
from watchman.brokers.message_factory import MessageFactory
from watchman.brokers.template import EncodedMessage, Encoder, WireFormat
from watchman.model import Answer, Message, Outcome, Route

HEADERS = {"department": "sales", "%": "100%", "watchman_like": 'a "b" %(c)s'}

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "queue": {"queue": "imports"},
    "priority": {"queue": "imports", "priority": 7},
    "priority 0": {"priority": 0},
    "headers": {"headers": HEADERS},
    "routing key": {"routing_key": "imports.eu"},
    "exchange": {"exchange": "files", "routing_key": "imports.eu"},
    "exchange type": {"exchange": "files", "exchange_type": "topic", "routing_key": "a.b"},
    "limits": {"time_limit": 60, "soft_time_limit": 50.5},
    "shadow": {"shadow": "another name"},
    "serializer json": {"serializer": "json"},
    "transient": {"delivery_mode": 1},
    "transient by name": {"delivery_mode": "transient"},
    "no results": {"ignore_result": True},
    "results": {"ignore_result": False},
    "group": {"group_id": "g", "group_index": 3},
    "root and parent": {"root_id": "r", "parent_id": "p"},
    "reply": {"reply_to": "me"},
    "argsrepr": {"argsrepr": "(secret)", "kwargsrepr": "{}"},
    "message id": {"message_id": "m", "user_id": "guest"},
    "retries": {"retries": 2},
    "stamps": {"stamped_headers": ["mark"], "mark": "x"},
}
PLAIN: dict[str, dict[str, Any]] = {
    "pickle": {"serializer": "pickle"},
    "gzip": {"compression": "gzip"},
    "link": {"link": {"task": "next", "args": [], "kwargs": {}, "options": {}}},
    "link error": {"link_error": {"task": "next", "args": [], "kwargs": {}, "options": {}}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "default queue": {"task_default_queue": "main"},
    "old names": {"CELERY_DEFAULT_QUEUE": "old", "CELERY_TASK_SERIALIZER": "json"},
    "old routes": {"CELERY_ROUTES": {"tests.note": {"queue": "routed", "priority": 4}}},
    "routes": {"task_routes": {"tests.*": {"queue": "globbed", "routing_key": "x"}}},
    "routes in a list": {"task_routes": [{"other": "q"}, {"tests.note": "second"}]},
    "queues": {
        "task_queues": [
            kombu.Queue("imports", kombu.Exchange("imports", "topic"), "imports.#"),
            kombu.Queue("celery"),
        ]
    },
    "max priority": {"task_queue_max_priority": 10},
    "default exchange": {"task_default_exchange": "ex", "task_default_routing_key": "rk"},
    "transient": {"task_default_delivery_mode": "transient"},
    "no utc": {"enable_utc": False, "timezone": "Europe/Berlin"},
    "eager": {"task_always_eager": True},
}


def _leaves(name: str, *_: Any, **__: Any) -> Any:
    """Route a task, as a function of the user's own that ends more than its call."""
    if name == "leaves":
        raise SystemExit(3)
    if name == "is cancelled":
        raise asyncio.CancelledError


def test_a_router_that_raises_no_exception_refuses_its_message() -> None:
    factory = Factory({"task_routes": (_leaves,)})
    names = ("good", "leaves", "is cancelled", "good")
    found = factory.encode([message(Route("b", name)) for name in names])
    refused = [one.reason if isinstance(one, Outcome) else "" for one in found]
    words = ["", "SystemExit: 3", "CancelledError", ""]
    assert all(word in reason for word, reason in zip(words, refused, strict=True))
    assert [bool(reason) for reason in refused] == [False, True, True, False]


class Wire(virtual.Channel):
    """A kombu channel that keeps what a real producer publishes: the reference."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], str, str]] = []
        connection = kombu.Connection("memory://")
        super().__init__(connection.transport)

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any
    ) -> None:
        self._inplace_augment_message(message, exchange, routing_key)
        self.sent.append((message, exchange, routing_key))


class Undeclaring(kombu.Producer):
    """The memory transport's exchanges outlive a test: declare none."""

    def maybe_declare(self, *_: Any, **__: Any) -> None:
        """Leave it."""


def reference(each: Message, celery: dict[str, Any]) -> tuple[str, str, str]:
    """Return what plain Celery sends for the message: envelope, exchange, routing key."""
    app = Celery("reference", set_as_current=False, fixups=[])
    app.config_from_object({key: value for key, value in celery.items() if "eager" not in key})
    wire = Wire()
    producer = Undeclaring(wire, auto_declare=False)
    options = {**each.route.options, "retry": False}
    options["headers"] = {
        **options.get("headers", {}),
        **watchman_headers(each, os.uname().nodename),
    }
    app.send_task(
        each.route.task,
        (each.path, *each.route.args),
        dict(each.route.kwargs),
        task_id=each.task_id,
        producer=producer,
        **options,
    )
    ((envelope, exchange, key),) = wire.sent
    return json.dumps(envelope), exchange, key


class Factory(MessageFactory):
    """Counts the routes that have become templates."""

    def __init__(self, celery: dict[str, Any], wire_format: WireFormat | None = None) -> None:
        app = make_application(celery)
        super().__init__(app, make_connection(app, "memory://", {}), wire_format or JsonFormat())
        self.templates = 0

    def _make(self, route: Route, names: tuple[str, ...]) -> Encoder:
        encoder = super()._make(route, names)
        self.templates += encoder != self._encode_by_celery
        return encoder


def made(
    each: Message, celery: dict[str, Any], wire_format: WireFormat | None = None
) -> tuple[EncodedMessage, Factory]:
    factory = Factory(celery, wire_format)
    (encoded,) = factory.encode([each])
    assert isinstance(encoded, EncodedMessage), encoded
    return encoded, factory


def without_tags(text: str) -> str:
    """Leave out what is unique: the delivery tag, and the application's own reply id."""
    text = re.sub(r'"delivery_tag": "[^"]*"', '"delivery_tag": ""', text)
    return re.sub(r'"reply_to": "[0-9a-f]{8}-[^"]*"', '"reply_to": "oid"', text)


def given_route(options: dict[str, Any], **changes: Any) -> Route:
    return Route("broker", "tests.note", (1, "zwei", None), {"flag": True}, options)._replace(
        **changes
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_gives_what_celery_would_send(options: dict[str, Any]) -> None:
    each = message(given_route(options))

    encoded, factory = made(each, {})

    expected, exchange, key = reference(each, {})
    assert without_tags(encoded.payload) == without_tags(expected)
    assert encoded.target[:2] == (exchange, key)
    assert factory.templates == 1


@pytest.mark.parametrize("celery", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("options", [{}, {"queue": "imports"}, {"routing_key": "imports.eu"}])
def test_every_setting_gives_what_celery_would_send(
    celery: dict[str, Any], options: dict[str, Any]
) -> None:
    each = message(given_route(options))

    encoded, factory = made(each, celery)

    expected, exchange, key = reference(each, celery)
    assert without_tags(encoded.payload) == without_tags(expected)
    assert encoded.target[:2] == (exchange, key)
    assert factory.templates == 1


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN.keys())
def test_what_no_template_can_say_is_made_by_celery_each_time(options: dict[str, Any]) -> None:
    each = message(given_route(options))

    encoded, factory = made(each, {})

    expected, _, _ = reference(each, {})
    if "compression" not in options:  # gzip writes the time
        assert without_tags(encoded.payload) == without_tags(expected)
    assert json.loads(encoded.payload)["headers"] == json.loads(expected)["headers"]
    assert factory.templates == (1 if "link" in str(options) else 0)


def test_task_protocol_1_is_made_by_celery_each_time() -> None:
    each = message(given_route({}))

    encoded, factory = made(each, {"task_protocol": 1})

    assert without_tags(encoded.payload) == without_tags(reference(each, {"task_protocol": 1})[0])
    assert factory.templates == 0


def test_a_router_of_the_users_own_sees_each_path() -> None:
    def by_path(name: str, args: Any, *_: Any, **__: Any) -> dict[str, str]:
        return {"queue": "big" if args[0].endswith(".big") else "small"}

    factory = Factory({"task_routes": by_path})
    to = given_route({})
    encoded = factory.encode([message(to, "/a.big"), message(to, "/a.csv")])

    keys = [each.target.routing_key for each in encoded if isinstance(each, EncodedMessage)]
    assert keys == ["big", "small"]


@pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("args", [(), ("x" * 700,), ("y" * 2000,), ({"deep": [[[[1]]]]}, "'")])
def test_awkward_names_give_what_celery_would_send(name: bytes, args: tuple[Any, ...]) -> None:
    each = message(given_route({}, args=args), os.fsdecode(name))

    encoded, _ = made(each, {})

    assert without_tags(encoded.payload) == without_tags(reference(each, {})[0])


@given(st.binary(min_size=1, max_size=300), st.text(max_size=30))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_path_and_argument_gives_what_celery_would_send(path: bytes, argument: str) -> None:
    each = message(given_route({}, args=(argument,)), os.fsdecode(path))

    encoded, _ = made(each, {})

    assert without_tags(encoded.payload) == without_tags(reference(each, {})[0])


FURTHER: dict[str, dict[str, str | int | float]] = {
    "upload": {"watchman_upload_user": "anna", "watchman_upload_size": 7},
    "awkward": {"watchman_a": "ü \"'\\\n%s \\xff", "watchman_b": 1 << 40, "watchman_c": 0.001},
    "one": {"watchman_a": -3.5},
    "more": {f"watchman_{number}": number for number in range(15)},
}


@pytest.mark.parametrize("further", FURTHER.values(), ids=FURTHER.keys())
@pytest.mark.parametrize("options", [{}, {"headers": HEADERS}, {"countdown": 0}])
def test_further_headers_of_a_message_are_in_a_template(
    further: dict[str, str | int | float], options: dict[str, Any]
) -> None:
    plain = message(given_route(options))
    each = plain._replace(headers=further)
    for wire_format in (JsonFormat(), FrameFormat()):
        factory = Factory({}, wire_format)
        # The same route with and without them, in one batch.
        encoded = factory.encode([each, plain, each._replace(path="/other")])
        by_celery = factory._encode_by_celery(each)
        (first, second, _) = encoded
        assert isinstance(first, EncodedMessage)
        assert isinstance(second, EncodedMessage)
        if "countdown" not in options:
            comparable = wire_format.comparable
            assert comparable(first) == comparable(by_celery)
            assert comparable(second) == comparable(factory._encode_by_celery(plain))
        assert factory.templates == 2
    encoded_json, _ = made(each, {})
    headers = json.loads(encoded_json.payload)["headers"]
    assert {name: headers[name] for name in further} == further


class TestTime:
    """Options that depend on when the message is sent are computed then."""

    @pytest.mark.parametrize(
        "options",
        [{"countdown": 90}, {"expires": 600}, {"countdown": 0.5, "expires": 7.25}],
    )
    def test_they_move_with_the_clock(
        self, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        monkeypatch.setattr(Celery, "now", lambda _self: now)
        each = message(given_route(options))
        encoded, factory = made(each, {})
        assert without_tags(encoded.payload) == without_tags(reference(each, {})[0])

        monkeypatch.setattr(Celery, "now", lambda _self: now + timedelta(hours=5))
        (later,) = factory.encode([each])
        assert isinstance(later, EncodedMessage)
        assert without_tags(later.payload) == without_tags(reference(each, {})[0])
        assert without_tags(later.payload) != without_tags(encoded.payload)

    def test_an_absolute_expiry_is_counted_from_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        each = message(given_route({"expires": now + timedelta(hours=1)}))
        expirations = []
        for passed in (0, 1800):
            moment = now + timedelta(seconds=passed)
            monkeypatch.setattr(Celery, "now", lambda _self, moment=moment: moment)
            encoded, _ = made(each, {})
            expirations.append(json.loads(encoded.payload)["properties"]["expiration"])
        assert expirations == ["3600000", "1800000"]


class TestFrames:
    """The same for AMQP, where the reference is py-amqp's own writer."""

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
    def test_a_template_and_celery_agree(self, options: dict[str, Any]) -> None:
        each = message(given_route(options), os.fsdecode(b"/srv/\xe9 'n'.csv"))
        encoded, factory = made(each, {}, FrameFormat())
        by_celery = factory._encode_by_celery(each)

        assert factory.templates == 1
        assert encoded.payload == by_celery.payload
        assert encoded.target[:3] == by_celery.target[:3]

    @pytest.mark.parametrize("frame_max", [4096, 131072])
    @pytest.mark.parametrize("size", [0, 100, 4088, 4089, 20_000])
    def test_the_frames_are_those_that_py_amqp_writes(self, frame_max: int, size: int) -> None:
        import amqp
        from amqp.method_framing import frame_writer

        wire = bytearray()

        class Connection:
            bytes_sent = 0

        class Transport:
            def write(self, data: bytes) -> None:
                wire.extend(data)

        connection = Connection()
        connection.frame_max = frame_max  # type: ignore[attr-defined]  # — as py-amqp reads it
        write = frame_writer(connection, Transport())
        each = message(given_route({"queue": "q"}, kwargs={"fill": "x" * size}))
        encoded, _ = made(each, {}, FrameFormat())
        content: FrameContent = encoded.payload
        properties = amqp.Message()
        properties._load_properties(60, content.properties, 0)
        basic = amqp.Message(content.body, **properties.properties)
        arguments = b"\0\0\0\x01q\x01"
        write(1, 5, (60, 40), arguments, basic)

        assert frames(5, publish_method(5, encoded.target), content, frame_max) == bytes(wire)

    def test_properties_that_fit_into_no_frame_are_said_to(self) -> None:
        each = message(given_route({"headers": {"big": "x" * 5000}}))
        encoded, _ = made(each, {}, FrameFormat())
        with pytest.raises(ValueError, match="in a frame"):
            frames(1, publish_method(1, encoded.target), encoded.payload, 4096)


def test_our_headers_are_readable_and_win_over_the_routes_own() -> None:
    each = message(given_route({"headers": {"watchman_source": "forged", "mine": 1}}))
    encoded, _ = made(each, {})
    headers = json.loads(encoded.payload)["headers"]
    assert headers["watchman_source"] == each.source
    assert headers["watchman_mtime"] == each.mtime_ns / 1e9
    assert headers["watchman_arrived"] == each.arrived_ns / 1e9
    assert headers["mine"] == 1


def test_results_are_stored_unless_the_route_says_otherwise() -> None:
    stock, _ = made(message(given_route({})), {"result_backend": "rpc://"})
    ignored, _ = made(message(given_route({"ignore_result": True})), {})
    assert json.loads(stock.payload)["headers"]["ignore_result"] is None
    assert json.loads(ignored.payload)["headers"]["ignore_result"] is True


def test_each_publish_has_a_delivery_tag_of_its_own() -> None:
    tags = set()
    for _ in range(2):
        factory = Factory({})
        for encoded in factory.encode([message(route("q"))] * 500):
            assert isinstance(encoded, EncodedMessage)
            tags.add(json.loads(encoded.payload)["properties"]["delivery_tag"])
    assert len(tags) == 1000


def test_equal_routes_share_a_template_whatever_objects_they_are() -> None:
    factory = Factory({})
    for _ in range(3000):
        (encoded,) = factory.encode([message(route("q", headers={"a": [1]}))])
        assert isinstance(encoded, EncodedMessage)
    assert factory.templates < 5
    assert len(factory._encoders) <= 1001


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": "soon"},
        {"serializer": "none such"},
        {"headers": {"x": object()}},
        {"delivery_mode": "express"},
    ],
)
def test_options_that_celery_cannot_take_are_refused_in_one_line(
    options: dict[str, Any],
) -> None:
    factory = Factory({})
    (said,) = factory.encode([message(given_route(options))])
    assert isinstance(said, Outcome)
    assert said.answer is Answer.REFUSED
    assert "tests.note" in said.reason
    assert "\n" not in said.reason


def test_celerys_environment_redirects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere/1")
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://elsewhere/2")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no.such.settings")
    app = make_application({"broker_url": "redis://third/1", "broker_user": "x"})
    connection = make_connection(app, "amqp://me@here:1234/vhost", {})
    assert (connection.hostname, connection.port, connection.userid) == ("here", 1234, "me")


def test_somebody_who_listens_to_celerys_signals_is_noticed() -> None:
    app = make_application({})
    assert not instrumented(app)

    def listener(**_: Any) -> None:
        """Only needs to exist."""

    signals.before_task_publish.connect(listener)
    try:
        assert instrumented(app)
    finally:
        signals.before_task_publish.disconnect(listener)
    assert instrumented(make_application({"task_send_sent_event": True}))


def test_the_body_is_the_path_then_the_routes_arguments() -> None:
    encoded, _ = made(message(given_route({}), "/srv/a"), {})
    args, kwargs, _embed = json.loads(b64decode(json.loads(encoded.payload)["body"]))
    assert args == ["/srv/a", 1, "zwei", None]
    assert kwargs == {"flag": True}
