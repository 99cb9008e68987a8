"""A connection of kombu's, that knows where each message goes and whether it was stored there."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from watchman.brokers.answers import shown, target_name
from watchman.brokers.application import (
    connect_options,
    establish,
    let_go,
    make_application,
    make_connection,
)
from watchman.brokers.failover import Failover
from watchman.brokers.replies import ELSEWHERE, redis_code
from watchman.brokers.stored import StoreCounter, Unstored
from watchman.model import Broker

STALL_SECONDS = 15.0
"""After so long without one message sent, the connection counts as dead."""


class OnHold(Exception):  # noqa: N818 — no error: it is not to be sent now
    """A message is for a target that nothing is sent to for the time being."""


class KombuLink:
    """A kombu connection and its producer."""

    def __init__(
        self,
        broker: Broker,
        settings: Mapping[str, Any],
        defaults: Mapping[str, Any],
        failover: Failover,
        is_held: Callable[[str], bool],
    ) -> None:
        self.app = make_application(settings)
        options = connect_options(self.app, broker, defaults)
        self._failover = failover
        self._is_held = is_held
        self.balked: Container[str] = ()
        """Targets, as they are shown, that have not taken a message of this batch."""
        self._options = options
        self._connection: Any = None
        self._producer: Any = None
        self._raw: Any = None
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
            self._failover.connect(self._open, KombuLink._trial)
        return self._producer

    def go_on(self) -> None:
        """Let go of the connection, and begin with the next URL."""
        self._failover.go_on()
        self.close()

    def drop(self) -> None:
        """Let go of the connection."""
        self.close()

    def _trial(self) -> Exception | None:
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

    def _open(self, url: str) -> KombuLink:
        from kombu import Producer

        connection = make_connection(self.app, url, self._options)
        raw: Any = None
        try:
            raw = establish(connection)
            channel = connection.transport.create_channel(raw)
        except BaseException:
            _close(connection, raw)
            raise
        sock = getattr(getattr(raw, "transport", None), "sock", None)
        if sock is not None and hasattr(sock, "settimeout"):
            sock.settimeout(STALL_SECONDS / 2)
        self._connection, self._raw = connection, raw
        self._declared = set()
        self._observe(channel)

        link = self

        class Observed(Producer):
            def publish(self, body: Any, **options: Any) -> Any:  # type: ignore[override]  # — Celery calls it so
                link.note_target(options.get("exchange"), options.get("routing_key"))
                return super().publish(body, **options)

            def maybe_declare(self, entity: Any, *arguments: Any, **options: Any) -> None:
                if link.virtual or not entity:
                    super().maybe_declare(entity, *arguments, **options)
                else:
                    link.declare(entity)

        self._producer = Observed(channel, auto_declare=False)
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
            if self._is_held(self.target) or shown(self.target) in self.balked:
                raise OnHold

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

    def close(self) -> None:
        """Let go of the connection without asking the broker."""
        raw, self._raw, self._producer = self._raw, None, None
        connection, self._connection = self._connection, None
        _close(connection, raw)

    @staticmethod
    def is_encoding(error: Exception) -> bool:
        """True if the message itself is at fault, not the connection."""
        from kombu.exceptions import SerializationError

        return isinstance(error, (SerializationError, TypeError, UnicodeEncodeError))


def _close(connection: Any, raw: Any) -> None:
    with contextlib.suppress(Exception):
        if hasattr(raw, "collect"):
            raw.collect()  # py-amqp: close() waits for the broker
        elif connection is not None:
            connection.transport.close_connection(raw)
    let_go(connection)


@contextlib.contextmanager
def _about_the_connection() -> Iterator[None]:
    """Raise ConnectionError for what is said where nothing is declared or sent."""
    from amqp.exceptions import AMQPError

    try:
        yield
    except AMQPError as error:
        raise ConnectionError(str(error)) from error
