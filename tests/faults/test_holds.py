"""Tasks that an operator has ordered to wait: nothing else waits for them, and none is lost."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench import ROUTE, Bench
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.journal import Journal, NewDelivery, rescue, schema
from watchman.journal.held import HoldCounts
from watchman.journal.hold_orders import hold, release
from watchman.journal.journal_reader import open_reader
from watchman.model import HoldKind, Route, State
from watchman.sender.pages import FEW, PAGE

OTHER = Route("b", "other")


def order(bench: Bench, kind: HoldKind, name: str) -> None:
    """Hold it, and have the sender obey, as the daemon does."""
    hold(os.path.dirname(bench.journal.path), [(kind, name)], "anna")
    obey(bench)


def let_go(bench: Bench, kind: HoldKind, name: str) -> list[HoldCounts]:
    released = release(os.path.dirname(bench.journal.path), [(kind, name)])
    obey(bench)
    return released


def obey(bench: Bench) -> None:
    assert bench.journal.holds.refresh()
    bench.sender.obey()


def held(bench: Bench) -> list[tuple[str, int]]:
    with open_reader(os.path.dirname(bench.journal.path)) as journal:
        return [(one.hold.name, one.number) for one in journal.holds()]


def all_is_marked(bench: Bench, *expected: tuple[str, int]) -> None:
    """Wait until a sender has come to all that is held, and look what is told of that."""
    wait_until(lambda: not bench.journal.page_ready("b", 0, 1), 60)
    assert held(bench) == list(expected)


def names(bench: Bench) -> list[str]:
    return [os.path.basename(path) for path in bench.publisher.paths]


def record_many(bench: Bench, count: int, route: Route, start: int = 0) -> None:
    """Record deliveries of one file."""
    path = bench.root / "one"
    if not path.exists():  # else it were another version
        path.touch()
    version = version_of(path.stat())
    rows = [
        NewDelivery(f"id {number}", str(path), None, version, 1 + number, route)
        for number in range(start, start + count)
    ]
    for first in range(0, count, 10_000):
        bench.journal.record(rows[first : first + 10_000])


def test_a_held_task_waits_and_others_do_not(bench: Bench) -> None:
    order(bench, HoldKind.TASK, "task")
    for number in range(3):
        bench.record(f"held{number}")
        bench.record(f"free{number}", route=OTHER)
    bench.sender.start()
    bench.until(READY=3, SENT=3)
    assert names(bench) == ["free0", "free1", "free2"]
    all_is_marked(bench, ("task", 3))
    before = bench.record("between")
    bench.until(READY=4, SENT=3)
    [released] = let_go(bench, HoldKind.TASK, "task")
    assert (released.number, released.hold.by) == (4, "anna")
    bench.until(SENT=7)
    assert names(bench)[3:] == ["held0", "held1", "held2", before.name]
    ids = [message.task_id for message in bench.publisher.messages]
    assert len(set(ids)) == len(ids)
    assert ids[3] == "id held0 x"
    assert held(bench) == []


def test_a_held_broker_is_not_even_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    order(bench, HoldKind.BROKER, "b")
    read: list[int] = []
    page_ready = bench.journal.page_ready

    def counting(broker: str, after: int, limit: int) -> Any:
        read.append(limit)
        return page_ready(broker, after, limit)

    monkeypatch.setattr(bench.journal, "page_ready", counting)
    bench.record("a")
    bench.sender.start()
    bench.sender.wake()
    wait_until(lambda: not bench.sender._woken, what="it has looked")
    assert held(bench) == [("b", 1)]
    assert not read
    let_go(bench, HoldKind.BROKER, "b")
    bench.until(SENT=1)


def test_a_directory_is_held_before_and_after_the_move(bench: Bench) -> None:
    odd = bench.root / "an%_nä"
    order(bench, HoldKind.DIRECTORY, str(odd))
    bench.record(f"{odd.name}/a")
    bench.record(f"{odd.name}x")  # its name only begins like that
    bench.sender.start()
    bench.until(READY=1, SENT=1)
    moved = bench.root / "elsewhere"
    moved.touch()
    version = version_of(moved.stat())
    new = NewDelivery("moved", str(moved), f"{odd}/moved", version, 5, ROUTE)
    bench.journal.record([new])
    [row] = bench.journal.page_strays((), 10)
    (odd / "moved").touch()
    bench.journal.note([], [row])
    bench.until(READY=2, SENT=1)
    all_is_marked(bench, (str(odd), 2))
    let_go(bench, HoldKind.DIRECTORY, str(odd))
    bench.sender.wake()
    wait_until(lambda: not bench.journal.page_ready("b", 0, 9), what="all is dealt with")


def test_a_name_that_is_no_text(bench: Bench) -> None:
    path = str(bench.root / os.fsdecode(b"an\xff\n"))
    order(bench, HoldKind.DIRECTORY, path)
    assert held(bench) == [(path, 0)]
    assert [one.name for one in bench.journal.holds.active] == [path]
    [released] = let_go(bench, HoldKind.DIRECTORY, path)
    assert released.hold.name == path


def test_what_two_holds_keep_waits_for_both(bench: Bench) -> None:
    order(bench, HoldKind.TASK, "task")
    order(bench, HoldKind.DIRECTORY, str(bench.root))
    bench.record("a")
    bench.record("b", route=OTHER)
    bench.sender.start()
    all_is_marked(bench, ("task", 1), (str(bench.root), 1))
    let_go(bench, HoldKind.TASK, "task")
    all_is_marked(bench, (str(bench.root), 2))
    assert not bench.publisher.messages
    let_go(bench, HoldKind.DIRECTORY, str(bench.root))
    bench.until(SENT=2)
    assert names(bench) == ["a", "b"]


def test_held_again_before_all_was_sent(bench: Bench) -> None:
    """What the first hold has kept is not taken for what the second one means, nor forgotten."""
    order(bench, HoldKind.TASK, "task")
    bench.record("a")
    bench.sender.start()
    all_is_marked(bench, ("task", 1))
    release(os.path.dirname(bench.journal.path), None)
    order(bench, HoldKind.TASK, "task")
    all_is_marked(bench, ("task", 1))
    order(bench, HoldKind.TASK, "nothing")
    release(os.path.dirname(bench.journal.path), [(HoldKind.TASK, "task")])
    obey(bench)
    bench.until(SENT=1)


def test_nothing_is_kept_for_a_hold_that_is_gone(bench: Bench) -> None:
    """It is released between the sender's look and its mark: the row stays to be read."""
    order(bench, HoldKind.TASK, "task")
    bench.record("a")
    page = bench.journal.page_ready("b", 0, 10)
    release(os.path.dirname(bench.journal.path), None)
    assert bench.journal.without_held(page) == []
    assert bench.journal.page_ready("b", 0, 10) == page
    obey(bench)
    bench.sender.start()
    bench.until(SENT=1)


def test_a_page_that_was_read_ahead_is_not_sent_when_it_is_held_since(bench: Bench) -> None:
    record_many(bench, 6000, ROUTE)
    sent = bench.publisher.publish

    def publish(batch: Any) -> Any:
        # The first page is a small one; behind the second, another is read ahead.
        if len(bench.publisher.messages) == FEW:
            order(bench, HoldKind.TASK, "task")
        return sent(batch)

    bench.publisher.publish = publish  # type: ignore[method-assign]  # — for this one
    bench.sender.start()
    all_is_marked(bench, ("task", 6000 - FEW - PAGE))
    assert len(bench.publisher.messages) == FEW + PAGE
    let_go(bench, HoldKind.TASK, "task")
    bench.until_sent(6000, 30)
    assert [m.task_id for m in bench.publisher.messages] == [f"id {n}" for n in range(6000)]


def test_what_is_released_goes_before_what_came_later(bench: Bench) -> None:
    """The release comes while a pass is behind what was held."""
    order(bench, HoldKind.TASK, "task")
    record_many(bench, 10, ROUTE)
    record_many(bench, 2000, OTHER, 10)
    bench.sender.start()
    bench.until(READY=10, SENT=2000)
    sent = bench.publisher.publish

    def publish(batch: Any) -> Any:
        if len(bench.publisher.messages) == 2000:
            record_many(bench, 10, ROUTE, 6000)
            let_go(bench, HoldKind.TASK, "task")
        return sent(batch)

    bench.publisher.publish = publish  # type: ignore[method-assign]  # — for this one
    record_many(bench, 3000, OTHER, 2010)
    bench.sender.wake()
    bench.until_sent(5020, 30)
    ids = [m.task_id for m in bench.publisher.messages if m.route is ROUTE or m.route == ROUTE]
    assert ids == [f"id {number}" for number in (*range(10), *range(6000, 6010))]


def test_a_large_backlog_that_is_held_costs_others_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 20_000
    record_many(bench, count, ROUTE)
    order(bench, HoldKind.TASK, "task")
    bench.sender.start()
    all_is_marked(bench, ("task", count))
    read = bench.count_pages(monkeypatch)
    for number in range(20):
        bench.record(f"{number}", route=OTHER)
        bench.until(READY=count, SENT=number + 1)
    assert sum(read) <= 40
    let_go(bench, HoldKind.TASK, "task")
    bench.until_sent(count + 20, 60)
    ids = [message.task_id for message in bench.publisher.messages[20:]]
    assert ids == [f"id {number}" for number in range(count)]


def test_holds_and_what_was_kept_survive_the_end(bench: Bench) -> None:
    order(bench, HoldKind.TASK, "task")
    bench.record("a")
    bench.sender.start()
    all_is_marked(bench, ("task", 1))
    bench.sender.stop()
    assert bench.sender.join(10)
    directory = os.path.dirname(bench.journal.path)
    bench.journal.close()
    bench.journal = Journal(directory)
    assert [one.name for one in bench.journal.holds.active] == ["task"]
    assert bench.journal.page_ready("b", 0, 10) == []
    # Released while nothing runs.
    bench.journal.close()
    release(directory, None)
    bench.journal = Journal(directory)
    assert len(bench.journal.page_ready("b", 0, 10)) == 1
    assert bench.journal.ready_brokers() == {"b"}


@pytest.mark.parametrize("kind", [HoldKind.TASK, HoldKind.DIRECTORY, HoldKind.BROKER])
def test_what_no_sender_has_come_to_is_counted_when_it_is_released(
    bench: Bench, kind: HoldKind
) -> None:
    """As after a resend, a moment ago."""
    named = {"task": "task", "directory": str(bench.root / "held"), "broker": "b"}[kind.value]
    order(bench, kind, named)
    (bench.root / "held").mkdir()
    bench.record("held/a", arrived_ns=10)
    bench.journal.without_held(bench.journal.page_ready("b", 0, 10))
    bench.record("held/b", arrived_ns=20)
    bench.record("other", arrived_ns=30, route=OTHER)
    [released] = let_go(bench, kind, named)
    assert released.number == (3 if kind is HoldKind.BROKER else 2)
    assert min(one.oldest_ns for one in released.held) == 10


def test_the_oldest_that_waits_is_not_a_held_one(bench: Bench) -> None:
    order(bench, HoldKind.TASK, "task")
    bench.record("a", arrived_ns=10)
    bench.record("b", arrived_ns=20, route=OTHER)
    bench.journal.without_held(bench.journal.page_ready("b", 0, 10))
    directory = os.path.dirname(bench.journal.path)
    with open_reader(directory) as journal:
        assert journal.counts() == {("b", State.READY): (2, 20)}
        [one] = journal.holds()
        assert one.held[0].oldest_ns == 10
    release(directory, None)
    with open_reader(directory) as journal:
        assert journal.counts() == {("b", State.READY): (2, 10)}


def test_a_journal_that_is_begun_anew_keeps_holds(bench: Bench, tmp_path: Path) -> None:
    order(bench, HoldKind.TASK, "task")
    order(bench, HoldKind.TASK, "other")
    bench.record("a")
    bench.record("b", route=OTHER)
    bench.journal.without_held(bench.journal.page_ready("b", 0, 10))
    release(os.path.dirname(bench.journal.path), [(HoldKind.TASK, "other")])
    path = bench.journal.path
    fresh = sqlite3.connect(tmp_path / "fresh.db", isolation_level=None)
    schema.create(fresh)
    saved = rescue.take_over(path, fresh, whole=True)
    assert saved.complete
    rows = fresh.execute("SELECT held > 0 FROM deliveries ORDER BY seq").fetchall()
    assert rows == [(1,), (0,)]
    assert fresh.execute("SELECT broker, count FROM held").fetchall() == [("b", 1)]
    fresh.close()
