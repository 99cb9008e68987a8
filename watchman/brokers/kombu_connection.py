"""A connection of kombu's, that knows where each message goes and whether it was stored there.

kombu's virtual transports deliver to the queues that are bound to an exchange, and say nothing
where there are none: what "sent" then means is that nobody will ever see it. So it is counted.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Container, Iterator, Mapping
from typing import Any

from watchman.brokers.app import (
    connect_options,
    establish,
    let_go,
    make_application,
    make_connection,
)
from watchman.brokers.base import Answers, Connection, Failover, shown, target_name
from watchman.brokers.faults import ELSEWHERE, number_in, redis_code
from watchman.model import Broker

STALL_SECONDS = 15.0
"""After so long without one message sent, the connection counts as dead."""


class TargetPaused(Exception):  # noqa: N818 — no error: it is not to be sent now
    """A message is for a target that nothing is sent to for the time being."""


class Unstored(Exception):  # noqa: N818 — a state of the exchange; it heals when a queue is bound
    """A message was published, and the broker has kept it nowhere."""


class KombuConnection(Connection):
    """A kombu connection and its producer. Used from one thread; opened when first needed."""

    def __init__(
        self,
        broker: Broker,
        settings: Mapping[str, Any],
        defaults: Mapping[str, Any],
        failover: Failover,
        answers: Answers,
    ) -> None:
        self.app = make_application(settings)
        self._options = connect_options(self.app, broker, defaults)
        self._failover = failover
        self._answers = answers
        self.not_taken: Container[str] = ()
        """Targets, as they are shown, that have not taken a message of this batch."""
        self._kombu: Any = None
        """The ``kombu.Connection``."""
        self._raw: Any = None
        """What its transport connects with, say py-amqp's connection."""
        self._producer: Any = None
        self._declared: set[tuple[str, str]] = set()
        self.fresh = True
        """True until the first message has been sent on this connection."""
        self.target = ""
        """Where the message was to go; empty before that is known."""
        self.virtual = False
        """True for kombu's own queues and exchanges, on whatever keeps them."""
        self._exchange_type = ""
        self.published = False
        """True when the broker has the message."""

    def connect(self) -> Any:
        """Return a producer on an open connection to the first URL that can be used.

        Raises Unusable with what each URL said.
        """
        if self._producer is None:
            self._failover.connect(self._open)
        return self._producer

    def unfit(self) -> Exception | None:
        """On Redis try a write that changes nothing: a replica, say, is of no use."""
        channel = self._producer.channel
        if not hasattr(channel, "global_keyprefix"):
            return None
        key = f"{channel.global_keyprefix}watchman-{uuid.uuid4()}"
        try:
            with channel.conn_or_acquire() as client:
                client.lpushx(key, "")
        except Exception as error:  # noqa: BLE001 — redis-py raises its own errors and OSError
            return error if redis_code(error) in ELSEWHERE else None
        return None

    def _open(self, url: str) -> KombuConnection:
        from kombu import Producer

        kombu = make_connection(self.app, url, self._options)
        raw: Any = None
        try:
            raw = establish(kombu)
            channel = kombu.transport.create_channel(raw)
        except BaseException:
            _close(kombu, raw)
            raise
        sock = getattr(getattr(raw, "transport", None), "sock", None)
        if sock is not None and hasattr(sock, "settimeout"):
            sock.settimeout(STALL_SECONDS / 2)
        self._kombu, self._raw = kombu, raw
        self._declared = set()
        self._observe(channel)

        connection = self

        class ObservedProducer(Producer):
            def publish(self, body: Any, **options: Any) -> Any:  # type: ignore[override]  # — Celery calls it so
                connection.note_target(options.get("exchange"), options.get("routing_key"))
                return super().publish(body, **options)

            def maybe_declare(self, entity: Any, *arguments: Any, **options: Any) -> None:
                if connection.virtual or not entity:
                    super().maybe_declare(entity, *arguments, **options)
                else:
                    connection.declare(entity)

        self._producer = ObservedProducer(channel, auto_declare=False)
        self.fresh = True
        return self

    def begin(self, options: Mapping[str, Any]) -> None:
        """Begin with another message, of a route with these options."""
        self._exchange_type = str(options.get("exchange_type") or "")
        self.target = ""
        self.published = False

    def declare(self, entity: Any) -> None:
        """Declare a queue or exchange on an AMQP broker, once a connection.

        On a channel of its own, which the broker closes for one that exists with other
        arguments: it is used as it is.
        """
        from amqp.exceptions import PreconditionFailed

        known = (type(entity).__name__, str(getattr(entity, "name", entity)))
        if known in self._declared:
            return
        with _about_the_connection():
            channel = self._raw.channel()
        try:
            entity(channel).declare()
            with _about_the_connection():
                channel.close()
        except PreconditionFailed as error:
            if "inequivalent" not in str(error):
                raise
        self._declared.add(known)

    def note_target(self, exchange: Any, routing_key: Any) -> None:
        """Note where a message goes, before anything is declared for it."""
        if not self.published:
            name = getattr(exchange, "name", exchange)
            self.target = target_name(str(name or ""), str(routing_key or ""))
            if self._answers.is_paused(self.target) or shown(self.target) in self.not_taken:
                raise TargetPaused

    def _know_exchange(self, channel: Any, exchange: str) -> None:
        """Tell a virtual transport an exchange's type: by that it chooses queues, or asks clients.

        Celery itself tells it none of an exchange that is only named, nor of a Broadcast's.
        """
        if not exchange or exchange in channel.state.exchanges:
            return
        kind = self._exchange_type
        for known in self.app.amqp.queues.values():
            if getattr(known.exchange, "name", "") == exchange:
                kind = kind or known.exchange.type
        if kind and kind not in channel.exchange_types:
            types = ", ".join(sorted(channel.exchange_types))
            raise ValueError(f"exchange_type {kind!r} is none of this transport's ({types})")
        if kind:
            channel.exchange_declare(exchange, kind, durable=True)

    def _observe(self, channel: Any) -> None:
        """Note where each message goes, and see that it is stored there."""
        publish = channel.basic_publish
        stored = StoreCounter(channel)
        self.virtual = stored.virtual

        def basic_publish(
            message: Any, exchange: str = "", routing_key: str = "", **options: Any
        ) -> Any:
            if self.published:  # what follows is the event that tells of it; nobody need listen
                return publish(message, exchange=exchange, routing_key=routing_key, **options)
            self.target = target_name(exchange, routing_key)
            if stored.virtual:
                self._know_exchange(channel, exchange)
            before = stored.count
            result = publish(message, exchange=exchange, routing_key=routing_key, **options)
            if stored.virtual and stored.count == before:
                raise Unstored
            self.published = True
            return result

        channel.basic_publish = basic_publish

    def drop(self) -> None:
        """Let go of the connection without asking the broker. The next message opens another."""
        raw, self._raw, self._producer = self._raw, None, None
        kombu, self._kombu = self._kombu, None
        _close(kombu, raw)


def is_encoding(error: Exception) -> bool:
    """True if the message itself is at fault, not the connection."""
    from kombu.exceptions import SerializationError

    return isinstance(error, (SerializationError, TypeError, UnicodeEncodeError))


def _close(kombu: Any, raw: Any) -> None:
    with contextlib.suppress(Exception):
        if hasattr(raw, "collect"):
            raw.collect()  # py-amqp: close() waits for the broker
        elif kombu is not None:
            kombu.transport.close_connection(raw)
    let_go(kombu)


@contextlib.contextmanager
def _about_the_connection() -> Iterator[None]:
    """Raise ConnectionError for what is said where nothing is declared or sent."""
    from amqp.exceptions import AMQPError

    try:
        yield
    except AMQPError as error:
        raise ConnectionError(str(error)) from error


class StoreCounter:
    """Counts the queues that a channel has put messages into. One channel, one thread."""

    def __init__(self, channel: Any) -> None:
        self.virtual = is_virtual(channel)
        """False where the broker itself answers for that, as an AMQP broker does."""
        self.count = 0
        if self.virtual:
            self._count_put(channel)
            self._count_fanout(channel)
            _check_pushes(channel)

    def _count_put(self, channel: Any) -> None:
        put = channel._put

        def counting(queue: Any, message: Any, **options: Any) -> None:
            put(queue, message, **options)
            self.count += 1

        channel._put = counting

    def _count_fanout(self, channel: Any) -> None:
        put = getattr(channel, "_put_fanout", None)
        if put is None:
            return
        if not hasattr(channel, "_get_publish_topic"):  # not Redis: they store, or call _put()

            def storing(*arguments: Any, **options: Any) -> None:
                stored_before = self.count
                put(*arguments, **options)
                if not _stores_by_put(channel):
                    self.count = stored_before + 1

            channel._put_fanout = storing
            return

        def publishing(exchange: str, message: Any, routing_key: str, **_: Any) -> None:
            """As kombu's, which drops the number of clients that have heard it."""
            from kombu.utils.json import dumps

            several = getattr(channel, "_get_publish_topics", None)
            topics = (
                several(exchange, routing_key)
                if several is not None
                else [channel._get_publish_topic(exchange, routing_key)]
            )
            with channel.conn_or_acquire() as client:
                for topic in topics:
                    heard = client.publish(topic, dumps(message))
                    self.count += number_in(heard, "PUBLISH", 0)

        channel._put_fanout = publishing


def _check_pushes(channel: Any) -> None:
    """On Redis, have each push fail whose answer is not the length of a list: kombu drops it."""
    create = getattr(channel, "_create_client", None)
    if create is None or not hasattr(channel, "_get_publish_topic"):
        return

    def creating(*arguments: Any, **options: Any) -> Any:
        client = create(*arguments, **options)
        client.set_response_callback("LPUSH", lambda answer, **_: number_in(answer, "LPUSH", 1))
        return client

    channel._create_client = creating


def is_virtual(channel: Any) -> bool:
    """True for a channel of a transport that kombu itself has given queues and exchanges."""
    from kombu.transport.virtual import Channel

    return isinstance(channel, Channel)


def _stores_by_put(channel: Any) -> bool:
    """True for the transports whose fanout puts into each queue that is bound."""
    from kombu.transport import filesystem, memory

    return isinstance(channel, (filesystem.Channel, memory.Channel))
