"""Any other transport: Celery's own ``send_task`` through one kombu connection.

Nobody can say how long a call of somebody else's transport takes, so it runs in a thread of its
own and is given up after a while.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from watchman.brokers.answers import Answers, target_name
from watchman.brokers.application import connect_options, make_application, make_connection
from watchman.brokers.envelope import refused
from watchman.brokers.recorder import send_task, watchman_headers
from watchman.brokers.replies import Fault, kombu_fault
from watchman.brokers.stored import StoreCounter, Unstored
from watchman.brokers.urls import scheme_of
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome

STALL_SECONDS = 15.0
"""After so long without one message sent, the connection counts as dead."""
MAX_STUCK = 3
"""So many calls may hang at once; while they do, nothing new is tried."""

_UNSTORED = (
    "no queue is bound there, so nothing was stored; bind one, or start the worker that does (a "
    "fanout exchange on Redis stores nothing, and only reaches workers that are running)"
)
_AMQP = {"confirm_publish": True, "read_timeout": 10.0, "write_timeout": 10.0}


class KombuPublisher:
    """Publishes through kombu's Producer, one message after the other."""

    def __init__(
        self,
        broker: Broker,
        celery_settings: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self._broker = broker
        self._settings = celery_settings
        self._amqp = scheme_of(broker.urls[0]) in ("amqp", "amqps", "pyamqp")
        self._defaults = {**(_AMQP if self._amqp else {}), **(defaults or {})}
        self._host = socket.gethostname()
        self._answers = Answers(broker)
        self._in_trouble = False
        self._worker: _Worker | None = None
        self._stuck: list[_Worker] = []

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Send the batch; see :class:`watchman.model.Publisher`."""
        if not batch:
            return []
        worker = self._ready()
        if worker is None:
            return [self._answers.again("earlier calls still hang")] * len(batch)
        worker.tasks.put(list(batch))
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(batch):
                outcomes.append(worker.outcomes.get(timeout=STALL_SECONDS))
        except queue.Empty:
            self._abandon()
            again = self._answers.again(f"no answer within {STALL_SECONDS:.0f} s")
            outcomes += [again] * (len(batch) - len(outcomes))
        self._in_trouble = any(one.answer is Answer.AGAIN and not one.target for one in outcomes)
        return outcomes

    def _ready(self) -> _Worker | None:
        """Return the thread that publishes, starting one if need be."""
        self._stuck = [worker for worker in self._stuck if worker.thread.is_alive()]
        if self._worker is None:
            if len(self._stuck) >= MAX_STUCK:
                return None
            self._worker = _Worker(self)
        return self._worker

    def _abandon(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.abandoned = True
            worker.tasks.put(None)
            self._stuck.append(worker)

    def tend(self) -> str | None:
        """See whether a broker in trouble is back: kombu connects again when it has to."""
        return self.check() if self._in_trouble else None

    def check(self) -> str | None:
        """Connect once; None, or the reason why not."""
        answer: queue.Queue[str | None] = queue.Queue()

        def connect() -> None:
            try:
                link = _Link(self._broker, self._settings, self._defaults)
                link.connect()
                link.close()
            except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
                answer.put(self._answers.reason(error))
            else:
                answer.put(None)

        threading.Thread(target=connect, name="check", daemon=True).start()
        try:
            return answer.get(timeout=STALL_SECONDS)
        except queue.Empty:
            return self._answers.reason(f"no answer within {STALL_SECONDS:.0f} s")

    def close(self) -> None:
        """Let go of the connection without waiting for it."""
        if self._worker is not None:
            self._worker.tasks.put(None)
            self._worker = None

    def send(self, link: _Link, message: Message) -> Outcome:
        """Send one message; called in the worker's thread."""
        extra = {"mandatory": True} if self._amqp else {}
        link.begin(message.route.options)
        try:
            producer = link.connect()
        except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
            link.close()
            return self._answers.again(error)
        try:
            headers = watchman_headers(message, self._host)
            send_task(link.app, producer, message, headers, **extra)
        except Unstored:
            return self._answers.again(_UNSTORED, link.target)
        except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
            return self._failed(link, message, error)
        link.fresh = False
        return ACCEPTED

    def _failed(self, link: _Link, message: Message, error: Exception) -> Outcome:
        if link.published:
            # The task is there; what failed comes after it: its event, or somebody's signal.
            link.close()
            return ACCEPTED
        if link.is_encoding(error):
            return refused(message, error)
        fault = kombu_fault(error, virtual=link.virtual)
        # A new connection declares the queue again, so one more try may find a route.
        if fault is Fault.MESSAGE and not link.fresh and not link.virtual:
            fault = Fault.TARGET
        link.close()
        return self._answers.for_fault(fault, error, link.target)

    def again(self, error: Exception) -> Outcome:
        """Return the answer where something unforeseen was raised."""
        return self._answers.again(error)

    def open_link(self) -> _Link:
        """Return a link, not connected yet."""
        return _Link(self._broker, self._settings, self._defaults)


class _Worker:
    """A thread that publishes batches and answers message by message."""

    def __init__(self, publisher: KombuPublisher) -> None:
        self.tasks: queue.SimpleQueue[list[Message] | None] = queue.SimpleQueue()
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._publisher = publisher
        self.abandoned = False
        """True: whatever has not been sent yet will be sent by somebody else."""
        self.thread = threading.Thread(target=self._run, name="kombu", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        link: _Link | None = None
        while (batch := self.tasks.get()) is not None:
            failed: Outcome | None = None
            for message in batch:
                if self.abandoned:
                    break
                if failed is None:
                    try:
                        link = link or self._publisher.open_link()
                        outcome = self._publisher.send(link, message)
                    except Exception as error:  # noqa: BLE001 — the caller must get an answer
                        outcome = self._publisher.again(error)
                    # What follows would wait for the same dead connection, one by one.
                    down = outcome.answer is Answer.AGAIN and not outcome.target
                    failed = outcome if down else None
                    self.outcomes.put(outcome)
                else:
                    self.outcomes.put(failed)
        if link is not None:
            link.close()


class _Link:
    """A kombu connection and its producer."""

    def __init__(
        self, broker: Broker, settings: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        self.app = make_application(settings)
        options = connect_options(self.app, broker, defaults)
        self._urls = broker.urls
        self._options = options
        self._connection: Any = None
        self._producer: Any = None
        self._raw: Any = None
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
        """Return a producer on an open connection to the first URL that answers."""
        if self._producer is None:
            *others, last = self._urls
            for url in others:
                with contextlib.suppress(Exception):
                    self._open(url)
                    return self._producer
            self._open(last)
        return self._producer

    def _open(self, url: str) -> None:
        from kombu import Producer

        connection = make_connection(self.app, url, self._options)
        try:
            transport = connection.transport
            raw = transport.establish_connection()
            channel = transport.create_channel(raw)
        except BaseException:
            let_go(connection)
            raise
        sock = getattr(getattr(raw, "transport", None), "sock", None)
        if sock is not None and hasattr(sock, "settimeout"):
            sock.settimeout(STALL_SECONDS / 2)
        self._connection, self._raw = connection, raw
        self._observe(channel)

        link = self

        class Observed(Producer):
            def publish(self, body: Any, **options: Any) -> Any:  # type: ignore[override]  # — Celery calls it so
                link.note_target(options.get("exchange"), options.get("routing_key"))
                return super().publish(body, **options)

        self._producer = Observed(channel, auto_declare=False)
        self.fresh = True

    def begin(self, options: Mapping[str, Any]) -> None:
        """Begin with another message, of a route with these options."""
        self._exchange_type = str(options.get("exchange_type") or "")
        self.target = ""
        self.published = False

    def note_target(self, exchange: Any, routing_key: Any) -> None:
        """Note where a message goes, before anything is declared for it."""
        if not self.published:
            name = getattr(exchange, "name", exchange)
            self.target = target_name(str(name or ""), str(routing_key or ""))

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
        with contextlib.suppress(Exception):
            if hasattr(raw, "collect"):
                raw.collect()  # py-amqp: close() waits for the broker
            elif connection is not None:
                connection.transport.close_connection(raw)
        let_go(connection)

    @staticmethod
    def is_encoding(error: Exception) -> bool:
        """True if the message itself is at fault, not the connection."""
        from kombu.exceptions import SerializationError

        return isinstance(error, (SerializationError, TypeError, UnicodeError))
