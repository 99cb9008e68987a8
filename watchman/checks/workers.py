"""``notify check --workers``: does anybody take the tasks that the patterns would send?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from watchman.checks.matching import RouteTarget
from watchman.checks.result import Check
from watchman.model import Broker, Config, Route


class WorkersAnswer(Protocol):
    """What is known of a broker's consumers (``brokers.worker_inspection.Workers``)."""

    @property
    def problem(self) -> str:
        """Why nothing is known; all else is empty then."""
        ...

    @property
    def tasks(self) -> Mapping[str, frozenset[str]]:
        """The names of the tasks that each worker knows."""
        ...

    @property
    def queues(self) -> Mapping[str, frozenset[str]]:
        """The names of the queues that each worker takes from."""
        ...

    @property
    def consumers(self) -> Mapping[str, int | None]:
        """How many consumers each queue has; None if there is no such queue."""
        ...

    @property
    def exchanges(self) -> Mapping[str, bool]:
        """Whether each exchange is there."""
        ...


Ask = Callable[[Broker, list[str], list[str]], WorkersAnswer]
"""Ask a broker for what takes from these queues, and whether these exchanges are there."""


class _Sent(NamedTuple):
    """A task that a pattern sends, and where it goes."""

    task: str
    target: RouteTarget


def check_workers(
    config: Config, ask: Ask, preview: Callable[[Route], RouteTarget]
) -> Iterator[Check]:
    """Yield what is found for each broker that a pattern names."""
    for broker in config.brokers.values():
        routes = [route for route in config.routes if route.broker == broker.name]
        sent = list(dict.fromkeys(_Sent(route.task, preview(route)) for route in routes))
        sent = [one for one in sent if not one.target.problem]
        if sent:
            yield from _check_broker(broker, sent, ask)


def _check_broker(broker: Broker, sent: list[_Sent], ask: Ask) -> Iterator[Check]:
    queues = sorted({one.target.queue for one in sent if one.target.queue is not None})
    exchanges = sorted({one.target.exchange for one in sent if one.target.exchange})
    answer = ask(broker, queues, exchanges)
    subject = f"workers of {broker.name}"
    if answer.problem:
        yield Check(subject, False, answer.problem, "see to the broker, and ask again")
        return
    if not answer.tasks:
        start = "start one; a busy one with one process (--pool solo) cannot answer"
        yield Check(subject, False, "no worker answers", start)
    else:
        yield Check(subject, True, f"{', '.join(sorted(answer.tasks))}")
        for task in dict.fromkeys(one.task for one in sent):
            yield _check_task(broker, task, answer)
    for queue in queues:
        yield _check_queue(broker, queue, answer)
    for exchange in exchanges:
        made = any(one.target.declares for one in sent if one.target.exchange == exchange)
        yield from _check_exchange(broker, exchange, answer, made=made)


def _check_task(broker: Broker, task: str, answer: WorkersAnswer) -> Check:
    subject = f"task {task} on {broker.name}"
    knowing = sorted(worker for worker, tasks in answer.tasks.items() if task in tasks)
    if knowing:
        return Check(subject, True, f"known to {', '.join(knowing)}")
    remedy = "correct 'task' in PATTERNS, or start a worker that has it"
    return Check(subject, False, "no worker that answers knows it", remedy)


def _check_queue(broker: Broker, queue: str, answer: WorkersAnswer) -> Check:
    subject = f"queue {queue} on {broker.name}"
    taking = sorted(worker for worker, queues in answer.queues.items() if queue in queues)
    count = answer.consumers.get(queue, 0)
    if taking:
        return Check(subject, True, f"taken from by {', '.join(taking)}")
    if count:
        return Check(subject, True, f"{count} consumer{'' if count == 1 else 's'}")
    what = "it is not there yet, and" if count is None else ""
    return Check(
        subject,
        False,
        f"{what} nobody takes from it".strip(),
        f"start a worker with '--queues {queue}', or correct the route",
    )


def _check_exchange(
    broker: Broker, exchange: str, answer: WorkersAnswer, *, made: bool
) -> Iterator[Check]:
    subject = f"exchange {exchange} on {broker.name}"
    there = answer.exchanges.get(exchange)
    if there:
        yield Check(subject, True, "is there")
    elif there is False and made:
        yield Check(subject, True, "is not there yet; the first task makes it")
    elif there is False:
        remedy = "make it, or correct the route: its tasks wait until it is there"
        yield Check(subject, False, "does not exist", remedy)
