"""Any other transport: Celery's own ``send_task`` through one kombu connection.

Nobody can say how long a call of somebody else's transport takes, so it runs in a thread of its
own and is given up after a while.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from watchman.brokers.base import BasePublisher, shown
from watchman.brokers.capture import send_task, watchman_headers
from watchman.brokers.faults import Fault, is_unreadable, kombu_fault
from watchman.brokers.kombu_connection import (
    STALL_SECONDS,
    KombuConnection,
    TargetPaused,
    Unstored,
    is_encoding,
)
from watchman.brokers.message_factory import cannot_be_made
from watchman.brokers.urls import AMQP, scheme_of
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome

MAX_STUCK = 3
"""So many calls may hang at once; while they do, nothing new is tried."""

_STUCK = "earlier calls still hang"
_UNSTORED = (
    "no queue is bound there, so nothing was stored; bind one, or start the worker that does (a "
    "fanout exchange on Redis stores nothing, and only reaches workers that are running)"
)
_AMQP_DEFAULTS = {"confirm_publish": True, "read_timeout": 10.0, "write_timeout": 10.0}


class KombuPublisher(BasePublisher):
    """Publishes through kombu's Producer, one message after the other."""

    def __init__(
        self,
        broker: Broker,
        celery_settings: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(broker)
        self._broker = broker
        self._settings = celery_settings
        self._amqp = scheme_of(broker.urls[0]) in AMQP
        self._defaults = {**(_AMQP_DEFAULTS if self._amqp else {}), **(defaults or {})}
        self._host = socket.gethostname()
        self._in_trouble = False
        self._worker: _Worker | None = None
        self._stuck: list[_Worker] = []
        self._checks: list[threading.Thread] = []
        """Those that connect once, to see whether that works, and have not come back."""

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Send the batch; see :class:`watchman.model.Publisher`."""
        if not batch:
            return []
        worker = self._ready()
        if worker is None:
            return [self._answers.again(_STUCK)] * len(batch)
        worker.tasks.put(list(batch))
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(batch):
                outcomes.append(worker.outcomes.get(timeout=STALL_SECONDS))
        except queue.Empty:
            self._abandon()
            again = self._answers.again(_no_answer())
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

    def keepalive(self) -> str | None:
        """See whether a broker in trouble is back: kombu connects again when it has to."""
        return self.check() if self._in_trouble else None

    def check(self) -> str | None:
        """Connect once; None, or the reason why not."""
        self._checks = [thread for thread in self._checks if thread.is_alive()]
        if len(self._checks) >= MAX_STUCK:
            return self._answers.reason(_STUCK)
        answer: queue.Queue[str | None] = queue.Queue()

        def connect() -> None:
            try:
                connection = self.new_connection()
                connection.connect()
                connection.drop()
            except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
                answer.put(self._answers.reason(error))
            else:
                answer.put(None)

        self._checks.append(threading.Thread(target=connect, name="check", daemon=True))
        self._checks[-1].start()
        try:
            return answer.get(timeout=STALL_SECONDS)
        except queue.Empty:
            return self._answers.reason(_no_answer())

    def close(self) -> None:
        """Let go of the connection without waiting for it: its thread does."""
        if self._worker is not None:
            self._worker.tasks.put(None)
            self._worker = None

    # -- called in the worker's thread ---------------------------------------------------

    def new_connection(self) -> KombuConnection:
        """Return a connection that is not open yet."""
        return KombuConnection(
            self._broker, self._settings, self._defaults, self._failover, self._answers
        )

    def send(self, connection: KombuConnection, message: Message) -> Outcome:
        """Send one message."""
        extra = {"mandatory": True} if self._amqp else {}
        connection.begin(message.route.options)
        try:
            producer = connection.connect()
        except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
            connection.drop()
            return self._answers.again(error)
        try:
            headers = watchman_headers(message, self._host)
            send_task(connection.app, producer, message, headers, **extra)
        except TargetPaused:
            return Outcome(Answer.AGAIN, "", shown(connection.target))
        except Unstored:
            return self._answers.again(_UNSTORED, connection.target)
        except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
            return self._failed(connection, message, error)
        connection.fresh = False
        return ACCEPTED

    def _failed(self, connection: KombuConnection, message: Message, error: Exception) -> Outcome:
        if connection.published:
            # The task is there; what failed comes after it: its event, or somebody's signal.
            connection.drop()
            return ACCEPTED
        if is_encoding(error) and not is_unreadable(error):
            return cannot_be_made(message, error)
        fault = kombu_fault(error, virtual=connection.virtual)
        # A new connection declares the queue again, and knows nothing: one more try may work.
        if fault is Fault.MESSAGE and not connection.fresh:
            fault = Fault.TARGET
        outcome = self._answers.for_fault(fault, error, connection.target)
        if fault is Fault.BROKER:
            self._failover.next_url()
        connection.drop()
        return outcome

    def again(self, error: Exception) -> Outcome:
        """Return the answer where something unforeseen was raised."""
        return self._answers.again(error)


def _no_answer() -> str:
    return f"no answer within {STALL_SECONDS:.0f} s"


class _Worker:
    """A thread that publishes batches and answers message by message.

    It has a connection of its own, which nobody else touches: where a call hangs the thread is
    abandoned, and what it does later has no effect but on that.
    """

    def __init__(self, publisher: KombuPublisher) -> None:
        self.tasks: queue.SimpleQueue[list[Message] | None] = queue.SimpleQueue()
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._publisher = publisher
        self._connection: KombuConnection | None = None
        self.abandoned = False
        """True: whatever has not been sent yet will be sent by somebody else."""
        self.thread = threading.Thread(target=self._run, name="kombu", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (batch := self.tasks.get()) is not None:
            self._publish(batch)
        if self._connection is not None:
            self._connection.drop()

    def _publish(self, batch: list[Message]) -> None:
        failed: Outcome | None = None
        not_taken: dict[str, Outcome] = {}
        for message in batch:
            if self.abandoned:
                return
            # What follows a failure would wait for the same dead connection, one by one.
            outcome = failed or self._send(message, not_taken)
            if outcome.target:
                # Those behind it to the same target keep their order, and are not tried.
                outcome = not_taken.setdefault(outcome.target, outcome)
            elif outcome.answer is Answer.AGAIN:
                failed = outcome
            self.outcomes.put(outcome)

    def _send(self, message: Message, not_taken: Mapping[str, Outcome]) -> Outcome:
        try:
            if self._connection is None:
                self._connection = self._publisher.new_connection()
            self._connection.not_taken = not_taken.keys()
            return self._publisher.send(self._connection, message)
        except Exception as error:  # noqa: BLE001 — the caller must get an answer
            return self._publisher.again(error)
