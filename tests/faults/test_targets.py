"""A queue in trouble holds up nobody else, keeps its order, and costs neither memory nor time."""

from __future__ import annotations

import logging
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import kombu
import pytest

from tests.faults.bench import Bench, warnings_of
from tests.running import Remembering
from tests.servers.rabbitmq import RabbitServer
from tests.waiting import wait_until
from watchman.brokers import open_publisher
from watchman.journal import NewDelivery
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome, Route, State, Version
from watchman.sender import targets
from watchman.sender.targets import FIRST_RETRY, LONGEST_RETRY, MOST, PausedTargets


def to(queue: str) -> Route:
    return Route("b", "task", options={"queue": queue})


class Queues(Remembering):
    """Takes up to ``room`` messages for each queue; respects what is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.room: dict[str, int] = {}
        self.tried: Counter[str] = Counter()
        self.paused: frozenset[str] = frozenset()

    def pause(self, targets: frozenset[str]) -> None:
        self.paused = targets

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        if self.answer is not ACCEPTED:
            return [self.answer] * len(batch)
        not_taken: set[str] = set()
        return [self._answer(message, not_taken) for message in batch]

    def _answer(self, message: Message, not_taken: set[str]) -> Outcome:
        queue = message.route.options["queue"]
        if f"queue {queue}" in self.paused:
            return Outcome(Answer.AGAIN, "", f"queue {queue}")
        self.tried[queue] += queue not in not_taken
        if queue in not_taken or self.room.get(queue, 1) <= 0:
            not_taken.add(queue)
            return Outcome(Answer.AGAIN, "it is full; let workers take from it", f"queue {queue}")
        if queue in self.room:
            self.room[queue] -= 1
        self.messages.append(message)
        return ACCEPTED

    def ids(self, queue: str) -> list[str]:
        return [each.task_id for each in self.messages if each.route.options["queue"] == queue]


@pytest.fixture
def queues(bench: Bench) -> Queues:
    bench.publisher = found = Queues()
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(targets, "LONGEST_RETRY", 0.05)


def record_many(bench: Bench, count: int, route: Route, start: int = 0) -> None:
    """Record deliveries that are ready and whose files are there (all are one)."""
    store = bench.root / "file"
    store.write_text("x")
    rows = [
        NewDelivery(f"{n}", f"/up/{n}", str(store), Version(1, n, 3, 4), 1, route)
        for n in range(start, start + count)
    ]
    bench.journal.record(rows)
    last = bench.journal.page_strays((), 1_000_000)[-1].seq
    bench.journal.note([(seq, State.READY, "") for seq in range(last - count + 1, last + 1)])


def test_a_full_queue_starves_nobody(
    bench: Bench, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    queues.room["full"] = 0
    record_many(bench, 2100, to("full"))
    for number in range(20):
        bench.record(f"{number}", route=to("free"))
    bench.sender.start()
    bench.until(READY=2100, SENT=20)
    assert bench.sender.trouble == ""
    # What comes now is sent at once, however long the queue's pause is.
    for number in range(20, 40):
        bench.record(f"{number}", route=to("free"))
        bench.until(READY=2100, SENT=number + 1)
    assert queues.ids("free") == [f"id {number} x" for number in range(40)]
    assert queues.tried["full"] < 30
    ((what, why, since),) = bench.sender.troubles()
    assert (what, why.partition("; see")[0]) == (
        "queue full of broker b",
        "it is full; let workers take from it",
    )
    assert since > 0
    (said,) = warnings_of(caplog, "takes no tasks for queue full")
    assert "let workers take from it" in said


def test_a_queue_that_is_drained_gets_all_in_its_order(
    bench: Bench, queues: Queues, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    queues.room["full"] = 10
    for number in range(200):
        bench.record(f"{number}", route=to("full" if number % 2 else "free"))
    bench.sender.start()
    bench.until(READY=90, SENT=110)
    for taken in range(20, 100, 10):
        queues.room["full"] = 10
        bench.until(READY=100 - taken, SENT=100 + taken)
    queues.room["full"] = 1000
    bench.until(SENT=200)
    assert queues.ids("full") == [f"id {number} x" for number in range(1, 200, 2)]
    wait_until(lambda: not bench.sender.troubles(), what="it is well")
    wait_until(lambda: warnings_of(caplog, "takes tasks for queue full again"), what="it is said")
    assert len(warnings_of(caplog, "takes no tasks")) == 1


def test_what_waits_for_a_full_queue_is_said_to_be_sent_once_at_most(
    bench: Bench, queues: Queues, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    queues.room["full"] = 5
    for number in range(50):
        bench.record(f"{number}", route=to("full"))
    bench.sender.start()
    bench.until(READY=45, SENT=5)
    wait_until(lambda: queues.tried["full"] > 20, what="it was tried several times")
    queues.room["full"] = 50
    bench.until(SENT=50)
    assert len(warnings_of(caplog, "Sending task task")) == 50


def test_deliveries_that_were_discarded_end_the_trouble(
    bench: Bench, queues: Queues, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    queues.room["full"] = 0
    path = bench.record("a", route=to("full"))
    bench.sender.start()
    wait_until(bench.sender.troubles, 5, "it is in trouble")
    path.unlink()
    bench.until(VANISHED=1)
    wait_until(lambda: not bench.sender.troubles(), 5, "nothing waits any more")
    # Nobody knows whether it would take one.
    said = wait_until(lambda: warnings_of(caplog, "queue full")[1:], what="it is said")
    assert said == ["Nothing is to be sent to queue full of broker b now"]


def test_while_a_broker_is_held_a_queue_in_trouble_costs_nothing(
    bench: Bench, queues: Queues, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues.room["full"] = 0
    bench.record("a", route=to("full"))
    bench.sender.start()
    wait_until(bench.sender.troubles, 5, "it is in trouble")
    asked: list[str] = []

    def is_held(broker: str) -> bool:
        asked.append(broker)
        return True

    monkeypatch.setattr(bench.journal, "is_held", is_held)
    wait_until(lambda: asked, what="the hold is met")
    never = threading.Event()
    never.wait(0.3)
    assert len(asked) < 10
    monkeypatch.undo()
    queues.room["full"] = 1
    bench.sender.obey()
    bench.until(SENT=1)


def test_what_was_moved_late_is_sent_though_it_lies_among_what_waits(
    bench: Bench, queues: Queues
) -> None:
    queues.room["full"] = 0
    record_many(bench, 100, to("full"))
    late = bench.record("late", route=to("free"))
    bench.journal.note([(101, State.MOVING, "")])
    record_many(bench, 100, to("full"), start=100)
    bench.sender.start()
    wait_until(bench.sender.troubles, 5, "it is in trouble")
    bench.record("later", route=to("free"))
    bench.until(READY=200, MOVING=1, SENT=1)
    bench.journal.note([(101, State.READY, "")])
    bench.until(READY=200, SENT=2)
    assert queues.messages[-1].path == str(late)


def test_a_broker_that_goes_and_comes_back_meanwhile(
    bench: Bench, queues: Queues, quick: None
) -> None:
    queues.room["full"] = 0
    bench.record("a", route=to("full"))
    bench.sender.start()
    wait_until(bench.sender.troubles, 5, "it is in trouble")
    queues.answer = Outcome(Answer.AGAIN, "down")
    bench.record("b", route=to("free"))
    bench.sender.wake()
    wait_until(lambda: bench.sender.trouble == "down", 5)
    queues.answer = ACCEPTED
    bench.until(READY=1, SENT=1)
    wait_until(lambda: not bench.sender.trouble, 5)
    queues.room["full"] = 1
    bench.until(SENT=2)


def test_a_large_backlog_of_a_full_queue_costs_others_neither_time_nor_memory(
    bench: Bench, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 60_000
    queues.room["full"] = 0
    for start in range(0, count, 10_000):
        record_many(bench, 10_000, to("full"), start)
    bench.sender.start()
    wait_until(lambda: bench.sender._read_to == count, 60, "all has been read once")
    read = bench.count_pages(monkeypatch)
    # Until all may be read again, a new arrival costs as much as it would without the backlog.
    bench.sender._read_all_at += 3600
    tracemalloc.start()
    try:
        for number in range(20):
            bench.record(f"{number}", route=to("free"))
            bench.until(READY=count, SENT=number + 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    retries = queues.tried["full"]
    assert sum(read) <= 20 + 2 * 2000 * retries
    assert peak < 20_000_000


def test_too_many_queues_in_trouble_are_the_brokers_trouble(
    bench: Bench, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "MOST", 30)
    for number in range(50):
        queues.room[f"q{number}"] = 0
        bench.record(f"{number}", route=to(f"q{number}"))
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble, 5)
    found = bench.sender.troubles()
    assert len(found) == 21
    assert "and 10 more" in found[-1][1]
    queues.room.clear()
    bench.until(SENT=50)


def test_the_pause_grows_to_a_minute_and_begins_anew_with_progress() -> None:
    found = PausedTargets("b")
    delays: list[float] = []
    for _ in range(20):
        found.begin_pass(float("inf"))
        assert found.not_taken("q", "full", 1, progress=False)
        delays.append(found._paused["q"].backoff.delay)
    assert delays[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert delays[-1] == LONGEST_RETRY
    found.begin_pass(float("inf"))
    found.not_taken("q", "full", 1, progress=True)
    assert found._paused["q"].backoff.delay == FIRST_RETRY
    assert found.paused == {"q"}
    assert 0 < (found.next_due() or 0) <= FIRST_RETRY
    found.begin_pass(float("inf"))
    assert found.paused == frozenset()
    found.end_pass()
    assert not found
    assert found.next_due() is None
    assert all(found.not_taken(str(n), "full", n, progress=False) for n in range(MOST))
    assert not found.not_taken("one too many", "full", 1, progress=False)


@pytest.mark.parametrize("settings", [{}, {"task_send_sent_event": True}], ids=["own", "kombu"])
def test_on_rabbitmq_a_bounded_queue_is_filled_as_it_is_drained_and_the_other_flows(
    bench: Bench,
    rabbit_server: RabbitServer,
    queue_name: Callable[[str], str],
    settings: dict[str, Any],
) -> None:
    full, free = queue_name("full"), queue_name("free")
    arguments = {"x-max-length": 20, "x-overflow": "reject-publish"}
    with rabbit_server.connection() as connection:
        kombu.Queue(full, queue_arguments=arguments)(connection.default_channel).declare()
    broker = Broker("b", (rabbit_server.url,))
    bench.open = lambda: open_publisher(broker, settings, "/nonexistent")
    for number in range(300):
        bench.record(f"{number}", route=to(full))
    bench.sender.start()
    wait_until(bench.sender.troubles, 20, "it is full")
    (what, why, _) = bench.sender.troubles()[0]
    assert what == f"queue '{full}' of broker b"
    for number in range(20):
        bench.record(f"free {number}", route=to(free))
        bench.sender.wake()
    wait_until(lambda: rabbit_server.count(free) == 20, 10, "the other queue has its tasks")
    assert rabbit_server.count(full) >= 20

    got: list[str] = []
    stop = threading.Event()

    def consume() -> None:
        with rabbit_server.connection() as connection:
            simple = connection.SimpleQueue(kombu.Queue(full, queue_arguments=arguments))
            while not stop.is_set():
                try:
                    taken = simple.get(timeout=0.2)
                except simple.Empty:
                    continue
                got.append(taken.headers["id"])
                taken.ack()
            simple.close()

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        bench.until_sent(320, 60)
        wait_until(lambda: len(got) >= 300, 10, "all are taken")
    finally:
        stop.set()
        consumer.join(10)
    assert "full" in why or "nack" in why.lower()
    assert Counter(got) == Counter(f"id {number} x" for number in range(300))
    # Those of the first page were on their way before anybody knew that it is full.
    behind = [int(each.split()[1]) for each in got[40:]]
    assert behind == sorted(behind)
    wait_until(lambda: not bench.sender.troubles(), 10, "it is well")
