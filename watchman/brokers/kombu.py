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

from watchman.brokers.answers import Answers, shown
from watchman.brokers.envelope import refused
from watchman.brokers.failover import Failover
from watchman.brokers.kombulink import STALL_SECONDS, KombuLink, OnHold
from watchman.brokers.recorder import send_task, watchman_headers
from watchman.brokers.replies import Fault, is_unreadable, kombu_fault
from watchman.brokers.stored import Unstored
from watchman.brokers.urls import scheme_of
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome

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
        self._failover = Failover(broker.urls, self._answers)
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

    def hold(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        self._answers.held = targets

    def tend(self) -> str | None:
        """See whether a broker in trouble is back: kombu connects again when it has to."""
        return self.check() if self._in_trouble else None

    def check(self) -> str | None:
        """Connect once; None, or the reason why not."""
        answer: queue.Queue[str | None] = queue.Queue()

        def connect() -> None:
            try:
                link = KombuLink(
                    self._broker, self._settings, self._defaults, self._failover, self._is_held
                )
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

    def send(self, link: KombuLink, message: Message) -> Outcome:
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
        except OnHold:
            return Outcome(Answer.AGAIN, "", shown(link.target))
        except Unstored:
            return self._answers.again(_UNSTORED, link.target)
        except Exception as error:  # noqa: BLE001 — each transport raises errors of its own
            return self._failed(link, message, error)
        link.fresh = False
        return ACCEPTED

    def _failed(self, link: KombuLink, message: Message, error: Exception) -> Outcome:
        if link.published:
            # The task is there; what failed comes after it: its event, or somebody's signal.
            link.close()
            return ACCEPTED
        if link.is_encoding(error) and not is_unreadable(error):
            return refused(message, error)
        fault = kombu_fault(error, virtual=link.virtual)
        # A new connection declares the queue again, and knows nothing: one more try may work.
        if fault is Fault.MESSAGE and not link.fresh:
            fault = Fault.TARGET
        outcome = self._answers.for_fault(fault, error, link.target)
        if fault is Fault.BROKER:
            link.go_on()
        else:
            link.close()
        return outcome

    def _is_held(self, target: str) -> bool:
        held = self._answers.held
        return bool(held) and shown(target) in held

    def again(self, error: Exception) -> Outcome:
        """Return the answer where something unforeseen was raised."""
        return self._answers.again(error)

    def open_link(self) -> KombuLink:
        """Return a link, not connected yet."""
        return KombuLink(
            self._broker, self._settings, self._defaults, self._failover, self._is_held
        )


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
        link: KombuLink | None = None
        while (batch := self.tasks.get()) is not None:
            failed: Outcome | None = None
            balked: dict[str, Outcome] = {}
            for message in batch:
                if self.abandoned:
                    break
                if failed is None:
                    try:
                        link = link or self._publisher.open_link()
                        link.balked = balked.keys()
                        outcome = self._publisher.send(link, message)
                    except Exception as error:  # noqa: BLE001 — the caller must get an answer
                        outcome = self._publisher.again(error)
                    # What follows would wait for the same dead connection, one by one.
                    if outcome.target:
                        # Those behind it keep their order, and are not tried one by one.
                        outcome = balked.setdefault(outcome.target, outcome)
                    down = outcome.answer is Answer.AGAIN and not outcome.target
                    failed = outcome if down else None
                    self.outcomes.put(outcome)
                else:
                    self.outcomes.put(failed)
        if link is not None:
            link.close()
