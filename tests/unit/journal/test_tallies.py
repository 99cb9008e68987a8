"""Counts that are kept, against counting; and that neither they nor pruning cost more in time."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journals import discard, failures, retry
from watchman.journal import Journal, NewDelivery, acts, pruning, tallies
from watchman.journal.acts import Act
from watchman.journal.failed_deliveries import Selection
from watchman.journal.journal_reader import open_reader
from watchman.model import Move, Route, State, Upload, Version

ROUTES = (Route("a", "task"), Route("b", "task"), None)
COUNTED = "SELECT broker, state, discarded, count FROM tallies WHERE count != 0"
COUNT = """SELECT coalesce(broker, ''), state, coalesce(reason, '') GLOB 'discarded by *', count(*)
    FROM deliveries GROUP BY 1, 2, 3"""
DAY = 86_400 * 10**9


def new(number: int, route: Route | None, arrived_ns: int, *, moved: bool = False) -> NewDelivery:
    source, final = f"/up/{number}", f"/store/{number}" if moved else None
    return NewDelivery(f"id {number}", source, final, Version(1, number, 3, 4), arrived_ns, route)


def rows(journal: Journal, query: str) -> set[tuple[int, ...]]:
    connection = sqlite3.connect(journal.path)
    try:
        return set(connection.execute(query))
    finally:
        connection.close()


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_what_counting_says(journal: Journal, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    now = time.time_ns()
    recorded = 0

    def record() -> None:
        nonlocal recorded
        # Some again, whose ids are under way or were.
        numbers = [recorded + n for n in range(20)] + chance.choices(range(recorded + 1), k=5)
        recorded += 20
        journal.record(
            [
                new(n, ROUTES[n % 3], now - chance.randrange(3) * DAY, moved=n % 2 == 0)
                for n in numbers
            ]
        )

    def note() -> None:
        seqs = chance.sample(range(1, journal.last_seq() + 1), min(30, journal.last_seq()))
        under_way = {row.seq: row for row in journal.page_strays((), 1000)}
        moved = [under_way[seq] for seq in seqs if seq in under_way]
        broker = chance.choice("ab")
        ready = {row.seq for row in journal.page_ready(broker, 0, 1000)}
        failed = {row.seq for row in failures(journal) if row.broker == broker}
        ends = (State.SENT, State.FAILED, State.VANISHED, State.MOVED, State.READY)
        # Some are not READY, as when somebody else was faster.
        changes = [(s, chance.choice(ends), "why") for s in seqs if s in ready | failed]
        journal.note(changes, moved, ready_for=chance.choice([broker, None]))

    def decide() -> None:
        act: Callable[[Selection], object] = chance.choice(
            [
                lambda which: discard(tmp_path, which, "root"),
                lambda which: retry(tmp_path, which, lambda _: bool(chance.getrandbits(1))),
            ]
        )
        act(Selection(frozenset(chance.choices(range(1, journal.last_seq() + 1), k=10))))

    steps = (record, note, note, decide, lambda: journal.prune(now - DAY))
    record()
    for _ in range(60):
        chance.choice(steps)()
        assert rows(journal, COUNTED) == rows(journal, COUNT)
    assert {state for _, state, _, _ in rows(journal, COUNT)} >= {1, 2, 3, 4, 5, 6}


def test_an_old_time_is_told_of_what_is_left(journal: Journal, tmp_path: Path) -> None:
    """The last one that was sent is known when nothing of it is left in the history."""
    old, now = 1_000 * DAY, time.time_ns()
    journal.record([new(1, ROUTES[0], old), new(2, ROUTES[0], old + 1), new(3, ROUTES[0], now)])
    journal.note([(1, State.SENT, ""), (2, State.SENT, "")])
    with open_reader(str(tmp_path)) as found:
        before = found.summary()
    assert before.counts == {("a", State.SENT): (2, old), ("a", State.READY): (1, now)}
    assert journal.prune(time.time_ns() + DAY) == (2, False)
    with open_reader(str(tmp_path)) as found:
        after = found.summary()
    assert after.counts == {("a", State.READY): (1, now)}
    assert after.latest == before.latest
    assert after.latest[1] >= now


def test_when_the_last_was_sent_by_a_clock_that_was_set_back(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(route: Route | None) -> None:
        number = journal.last_seq() + 1
        journal.record([new(number, route, time.time_ns())])
        journal.note([(number, State.SENT, "")])

    def told() -> set[int]:
        with open_reader(str(tmp_path)) as found:
            return {found.summary().latest[1], found.measures().last_sent_ns}

    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + DAY)
    send(ROUTES[0])
    send(ROUTES[1])
    assert told() == {now + DAY}
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert told() == {now + DAY}  # nothing else is known
    send(ROUTES[0])
    assert told() == {now}
    send(ROUTES[1])
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * DAY)
    assert told() == {now}


def fill(journal: Journal, number: int, arrived_ns: int, state: State = State.SENT) -> None:
    first = journal.last_seq() + 1
    journal.record([new(first + n, ROUTES[0], arrived_ns + n) for n in range(number)])
    journal.note([(first + n, state, "") for n in range(number)])


def test_pruning_is_done_in_small_steps(journal: Journal) -> None:
    fill(journal, 600, 1_000 * DAY)
    between = time.time_ns()
    fill(journal, 10, between)
    assert [journal.prune(between) for _ in range(4)] == [
        (pruning.ROWS, True),
        (pruning.ROWS, True),
        (600 - 2 * pruning.ROWS, False),
        (0, False),
    ]


def test_a_wrong_clock_and_what_ends_late_hold_up_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, future = 1_000 * DAY, time.time_ns() + 1_000 * DAY
    fill(journal, 1, future)
    fill(journal, 1, old, State.FAILED)
    fill(journal, 2, old)
    fill(journal, 1, time.time_ns())
    later = time.time_ns() + 1
    assert journal.prune(later).dropped == 3  # that from the future was sent in the past
    retry(Path(journal.path).parent, Selection(all=True))
    journal.note([(2, State.SENT, "")])
    later = time.time_ns() + 1
    assert journal.prune(later).dropped == 0
    monkeypatch.setattr(pruning, "_AGAIN", 0.0)
    assert journal.prune(later).dropped == 1


def test_what_was_told_by_a_wrong_clock_holds_up_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads and acts of operators, however many of them are from the future."""
    now, upload = time.time_ns(), Upload("anna", "host", "ftp", 1, 0.5, 7)

    def note(first: int, last: int, at_ns: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: at_ns)
        for seq in range(first, last + 1):
            journal.uploads.note(seq, upload)
        journal.uploads.write({})
        connection = sqlite3.connect(journal.path)
        acts.note(connection, [Act(n, at_ns, "resent", "me") for n in range(first, last + 1)])
        connection.commit()
        connection.close()

    def left() -> tuple[int, int]:
        uploads = rows(journal, "SELECT seq FROM uploads")
        noted = rows(journal, "SELECT id FROM acts")
        return len(uploads), len(noted)

    many = pruning.ROWS + 10
    note(1, many, now + DAY)
    note(many + 1, many + 20, now - DAY)
    note(many + 21, many + 30, now)
    assert journal.prune(now).more
    assert not journal.prune(now).more
    assert left() == (many + 10, many + 10)
    # When that time is over they go as well, once all is gone through again.
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * DAY)
    monkeypatch.setattr(pruning, "_AGAIN", 0.0)
    journal.prune(now + DAY + 1)
    monkeypatch.setattr(pruning, "_AGAIN", 3600.0)
    journal.prune(now + DAY + 1)
    assert left() == (0, 0)


class Steps:
    """Counts SQLite's instructions, in tens."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return 0


def work_of(path: str, call: Callable[[sqlite3.Connection], object]) -> int:
    connection = sqlite3.connect(path)
    steps = Steps()
    connection.set_progress_handler(steps, 10)
    try:
        call(connection)
    finally:
        connection.close()
    return steps.count


def test_the_length_of_the_history_costs_nothing(journal: Journal) -> None:
    """Neither the counts nor a look whether anything is to be pruned."""
    fill(journal, 10, 1_000 * DAY, State.FAILED)
    looks = "SELECT * FROM deliveries WHERE seq > 10"
    costs = []
    for more in (2 * pruning.ROWS, 5000):
        fill(journal, more, time.time_ns())
        assert journal.prune(time.time_ns() - DAY) == (0, False)
        costs.append(
            (
                work_of(journal.path, tallies.summary),
                work_of(journal.path, lambda c: c.execute(pruning.QUERY, (10,)).fetchall()),
                work_of(journal.path, lambda c: c.execute(looks).fetchall()),
            )
        )
    (counts, step, whole), (more_counts, more_step, more_whole) = costs
    assert (more_counts, more_step) == (counts, step)
    assert 0 < counts < step < whole < more_whole  # of the whole table it would show


def test_what_is_being_moved_is_found_without_all_that_came_before(journal: Journal) -> None:
    move = Move("/up", "/store")
    costs = []
    for number in (500, 5000):
        first = journal.last_seq()
        fill(journal, number, 1_000 * DAY)
        strays = [new(first + number, ROUTES[1], 7, moved=True)]
        own = [new(first + number + 1, ROUTES[0], 5, moved=True)._replace(move=move)]
        journal.record([*strays, *own, own[0]._replace(task_id=f"late {first}", arrived_ns=3)])
        with open_reader(str(Path(journal.path).parent)) as found:
            counts = found.counts()
        # The first of them, and not that with the least time.
        assert (counts["a", State.MOVING], counts["b", State.MOVING]) == ((2, 5), (1, 7))
        costs.append(work_of(journal.path, tallies.summary))
        last = journal.last_seq()
        journal.note([(seq, State.VANISHED, "gone") for seq in (last, last - 1, last - 2)])
    assert costs[1] <= costs[0] + 5
