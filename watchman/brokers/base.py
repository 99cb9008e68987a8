"""What all publishers share: a connection that is kept, a broker's URLs in turn, and the answers.

A publisher is used from one thread, and only says what became of each message; when to try again
is the sender's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from watchman.brokers.app import (
    connect_options,
    instrumented,
    let_go,
    make_application,
    make_connection,
)
from watchman.brokers.capture import Target
from watchman.brokers.faults import Fault
from watchman.brokers.message_factory import MessageFactory
from watchman.brokers.template import EncodedMessage, WireFormat
from watchman.masking import mask, public_url
from watchman.model import Answer, Broker, Message, Outcome, Publisher

Encoded = Sequence["EncodedMessage | Outcome"]
"""A batch encoded, in its order; an outcome where that cannot be."""
Outcomes = list["Outcome | None"]
"""The answers for a batch, in its order; None where there is none yet."""

_LONGEST_NAME = 300
_LONGEST_REASON = 1000


class Unusable(Exception):  # noqa: N818 — a state of the broker; its name says all
    """No URL of a broker can be used; ``errors`` holds what each said."""

    def __init__(self, errors: Sequence[tuple[str, Exception]]) -> None:
        super().__init__("no URL can be used")
        self.errors = errors


class Answers:
    """Makes the outcomes of one broker's publisher: their reasons are fit to be shown."""

    def __init__(self, broker: Broker, where: str = "") -> None:
        self._urls = broker.urls
        self.where = where or public_url(broker.urls[0])
        """What a reason begins with: the URL in use, without its credentials."""
        self.paused: frozenset[str] = frozenset()
        """Targets, as they are shown, that nothing is sent to for the time being."""

    def is_paused(self, target: str) -> bool:
        """Whether nothing is sent to the target for the time being."""
        return bool(self.paused) and shown(target) in self.paused

    def answer_if_paused(self, target: Target) -> Outcome | None:
        """Return the answer where nothing is sent to the target for the time being."""
        name = name_of(target) if self.paused else ""
        return Outcome(Answer.AGAIN, "", shown(name)) if self.is_paused(name) else None

    def reason(self, error: Exception | str) -> str:
        """Return what is wrong, in one line without credentials and control characters."""
        if isinstance(error, Unusable):
            found = (
                f"{public_url(url)}: {_kind(one)}{one}".rstrip(".") for url, one in error.errors
            )
            return _clause(mask("; ".join(found), *self._urls))
        return _clause(f"{self.where}: {mask(f'{_kind(error)}{error}', *self._urls)}")

    def again(self, error: Exception | str, target: str = "") -> Outcome:
        """Return the answer for what can be tried again; ``target`` where the trouble is its."""
        return self._outcome(Answer.AGAIN, error, target)

    def refused(self, error: Exception | str, target: str = "") -> Outcome:
        """Return the answer for what can never be sent."""
        return self._outcome(Answer.REFUSED, error, target)._replace(target="")

    def for_fault(self, fault: Fault, error: Exception | str, target: str) -> Outcome:
        """Return the answer that follows from whose fault it is."""
        if fault is Fault.MESSAGE:
            return self.refused(error, target)
        return self.again(error, target if fault is Fault.TARGET else "")

    def _outcome(self, answer: Answer, error: Exception | str, target: str) -> Outcome:
        reason = self.reason(error)
        return Outcome(answer, f"{reason} ({shown(target)})" if target else reason, shown(target))


def _kind(error: Exception | str) -> str:
    return f"{type(error).__name__}: " if isinstance(error, Exception) else ""


def _clause(reason: str) -> str:
    """Return a reason as a clause: it is followed by a remedy, or by others.

    A broker shall not fill log and journal: it is noted with each delivery.
    """
    reason = reason.rstrip(".")
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def shown(target: str) -> str:
    """Return a target's name as it can be shown: it may be made of what an uploader chose."""
    return mask(target)[:_LONGEST_NAME]


def name_of(target: Target) -> str:
    """Say where a message was to go."""
    return target_name(target.exchange, target.routing_key)


def target_name(exchange: str, routing_key: str) -> str:
    """Say where a message was to go."""
    if exchange:
        return f"exchange {exchange!r}, routing key {routing_key!r}"
    return f"queue {routing_key!r}"


class Connection:
    """An open connection to one of a broker's URLs.

    None of these methods raises. What a transport needs not do is as here.
    """

    def alive(self) -> bool:
        """Look whether it can still be used."""
        return True

    def unfit(self) -> Exception | None:
        """Return why another URL is to be tried instead: a replica, say, takes nothing."""
        return None

    def trial(self) -> Exception | None:
        """Try what a publish needs, and change nothing; return why it does not work."""
        return None

    def drop(self) -> None:
        """Let go of it, whatever state it is in."""

    def leave(self) -> None:
        """Say goodbye, without waiting for an answer."""
        self.drop()


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Failover:
    """Connects to the first URL that can be used, beginning with the last one that could be."""

    def __init__(self, urls: tuple[str, ...], answers: Answers) -> None:
        self._urls = urls
        self._answers = answers
        self._first = 0

    def connect(self, open_one: Callable[[str], AnyConnection]) -> AnyConnection:
        """Return an open connection that is not unfit. Raises Unusable with what each URL said."""
        errors: list[tuple[str, Exception]] = []
        for number in range(len(self._urls)):
            at = (self._first + number) % len(self._urls)
            try:
                opened = open_one(self._urls[at])
            except Exception as error:  # noqa: BLE001 — each library raises errors of its own
                errors.append((self._urls[at], error))
                continue
            wrong = opened.unfit()
            if wrong is None:
                self._first = at
                self._answers.where = public_url(self._urls[at])
                return opened
            opened.drop()
            errors.append((self._urls[at], wrong))
        raise Unusable(errors)

    def next_url(self) -> None:
        """Begin with the next URL: the one in use has broken, or turned out to be of no use."""
        self._first = (self._first + 1) % len(self._urls)


class BasePublisher:
    """The answers and the URLs of one broker."""

    def __init__(self, broker: Broker, where: str = "") -> None:
        self._answers = Answers(broker, where)
        self._failover = Failover(broker.urls, self._answers)

    def pause(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        self._answers.paused = targets


class DirectPublisher(BasePublisher, Generic[AnyConnection]):
    """Encodes and writes the messages itself, on one connection that it keeps.

    Subclasses say how a URL is connected to, and send what was encoded. What only kombu can send
    goes through ``fallback``, a publisher for the same broker: where somebody listens to Celery's
    signals that is everything. ``defaults`` are transport options that settings may change.
    """

    def __init__(
        self,
        broker: Broker,
        celery_settings: Mapping[str, Any],
        fallback: Publisher,
        defaults: Mapping[str, Any],
        where: str = "",
    ) -> None:
        super().__init__(broker, where)
        self._app = make_application(celery_settings)
        self._options = connect_options(self._app, broker, defaults)
        self._fallback = fallback
        # Celery asks it which kind of broker this is; it is never connected.
        self._unconnected = make_connection(self._app, broker.urls[0], self._options, tls=False)
        self._messages = MessageFactory(self._app, self._unconnected, self._wire_format())
        self._connection: AnyConnection | None = None

    def _wire_format(self) -> WireFormat:
        raise NotImplementedError

    def _open(self, url: str) -> AnyConnection:
        """Connect to a URL. May raise anything."""
        raise NotImplementedError

    def _send_encoded(self, batch: Sequence[Message], encoded: Encoded, outcomes: Outcomes) -> None:
        """Send what could be encoded, and note the outcome of each message at its place."""
        raise NotImplementedError

    def _look_at_idle(self) -> Exception | str | None:
        """Keep the idle connection alive, or open another; return what is wrong. May raise."""
        raise NotImplementedError

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Send the batch; see :class:`watchman.model.Publisher`."""
        if instrumented(self._app):
            return self._fallback.publish(batch)
        outcomes: Outcomes = [None] * len(batch)
        self._send_encoded(batch, self._messages.encode(batch), outcomes)
        return [outcome or self._answers.again("not sent") for outcome in outcomes]

    def _connect(self) -> AnyConnection:
        """Connect to the first URL that can be used. Raises Unusable."""
        return self._failover.connect(self._open)

    def _connected(self) -> AnyConnection:
        """Return a connection that was alive just now, opening one if need be."""
        if self._connection is not None and not self._connection.alive():
            self._drop()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def _give_up_connection(self) -> None:
        """Let go of the connection, and begin with the next URL."""
        if self._connection is not None:
            self._failover.next_url()
        self._drop()

    def pause(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        super().pause(targets)
        self._fallback.pause(targets)

    def keepalive(self) -> str | None:
        """Keep the idle connection alive; one that is dead is replaced."""
        try:
            wrong = self._look_at_idle()
        except Exception as error:  # noqa: BLE001 — each library raises errors of its own
            self._drop()
            wrong = error
        return self._answers.reason(wrong) if wrong else None

    def check(self) -> str | None:
        """Connect once, and try what a publish needs; None, or the reason why not."""
        try:
            connection = self._connect()
            wrong = connection.trial()
            connection.leave()
        except Exception as error:  # noqa: BLE001 — each library raises errors of its own
            wrong = error
        return self._answers.reason(wrong) if wrong else None

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()
        let_go(self._unconnected)
        self._fallback.close()
