"""What commands for failed deliveries cost, in SQLite's steps; and that nothing piles up."""

from __future__ import annotations

import gc
import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journals import discard, retry
from watchman.commands import common
from watchman.journal import Journal, NewDelivery, answers, failed_deliveries, schema
from watchman.journal.failed_deliveries import Record, Selection, failed
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.model import Route, State, Version

FEW, MANY = 1_000, 4_000
ROUTE = Route("b", "task")
_open = schema.connect


class Watched:
    """Counts what the commands' connections do: steps in all, and the most in a transaction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.longest = self.transactions = 0
        self._begun: int | None = None
        monkeypatch.setattr(schema, "connect", self.connect)

    def connect(self, path: str, *, read_only: bool = False) -> sqlite3.Connection:
        connection = _open(path, read_only=read_only)
        connection.set_progress_handler(self._step, 1)
        connection.set_trace_callback(self._statement)
        return connection

    def _step(self) -> int:
        self.steps += 1
        return 0

    def _statement(self, text: str) -> None:
        if text.startswith("BEGIN"):
            self._begun = self.steps
        elif text == "COMMIT" and self._begun is not None:
            self.longest = max(self.longest, self.steps - self._begun)
            self.transactions += 1


def fill(directory: Path, count: int) -> Path:
    """Make a journal with so many that failed, a tenth of them moved."""
    directory.mkdir()
    journal = Journal(str(directory))
    journal.record(
        [
            NewDelivery(
                f"id-{n:06d}",
                f"/up/{n % 100:02d}/{n}.csv",
                f"/to/{n % 100:02d}/{n}.csv" if n % 10 == 0 else None,
                Version(1, n, 2, 3),
                1000 + n,
                ROUTE,
            )
            for n in range(1, count + 1)
        ]
    )
    journal.note([(n, State.FAILED, "refused") for n in range(1, count + 1)])
    journal.close()
    return directory


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [fill(tmp_path / str(count), count) for count in (FEW, MANY)]


def costs(
    pair: list[Path], call: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> list[Watched]:
    found = []
    for directory in pair:
        watched = Watched(monkeypatch)
        call(directory)
        found.append(watched)
    return found


def test_one_by_its_number_costs_the_same_among_many(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = costs(pair, lambda at: retry(at, Selection(frozenset({500}))), monkeypatch)
    assert many.steps <= few.steps + 20
    few, many = costs(pair, lambda at: discard(at, Selection(frozenset({501})), "me"), monkeypatch)
    assert many.steps <= few.steps + 20


def test_options_narrow_down_what_is_selected(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrowed = Question(since_ns=1005, directory="/up/07", reason="REFUSED", task="task")
    selection = Selection(all=True, narrowed=narrowed)
    few, many = costs(pair, lambda at: retry(at, selection), monkeypatch)
    with open_reader(str(pair[0])) as journal:
        ready = answers.ask(journal, Question(state=State.READY), FEW).records
    assert [one.seq for one in ready] == list(range(907, 0, -100))
    assert many.steps <= 1.1 * few.steps * MANY / FEW
    assert retry(pair[0], Selection(frozenset({1, 2}), narrowed=Question(broker="none"))) == []


def test_what_failed_is_counted_without_looking_at_it(pair: list[Path]) -> None:
    for directory, count in zip(pair, (FEW, MANY), strict=True):
        with open_reader(str(directory)) as journal:
            steps = 0

            def step() -> int:
                nonlocal steps
                steps += 1
                return 0

            journal.connection.set_progress_handler(step, 1)
            assert failed_deliveries.count_failed(journal) == count
            assert steps < 60
            assert (
                failed_deliveries.count_failed(journal, Question(directory="/up/07"))
                == count // 100
            )
            groups = failed_deliveries.failed_groups(journal, Question(), [1501, 1001])
            assert [group.ages for group in groups] == [(count - 500, 500, 0)]


def test_reasons_beyond_the_largest_groups_are_one(tmp_path: Path) -> None:
    count = failed_deliveries.GROUPS + 5
    journal = Journal(str(tmp_path))
    news = [
        NewDelivery(f"id-{n}", f"/up/{n}", None, Version(1, n, 2, 3), n, ROUTE)
        for n in range(1, count + 1)
    ]
    journal.record(news)
    journal.note([(n, State.FAILED, f"reason {n}") for n in range(1, count + 1)])
    journal.close()
    with open_reader(str(tmp_path)) as reader:
        groups = failed_deliveries.failed_groups(reader, Question(), [])
    assert len(groups) == failed_deliveries.GROUPS + 1
    assert (groups[-1].reason, groups[-1].ages) == ("other reasons", (5,))


def test_more_numbers_and_paths_than_fit_into_a_query(pair: list[Path]) -> None:
    seqs = range(2, MANY, 2)
    paths = [f"/up/{n % 100:02d}/{n}.csv" for n in range(1, 200, 2)]
    found = retry(pair[1], Selection(frozenset(seqs), (*paths, "/up/02")))
    assert [one.seq for one in found] == sorted({*seqs, *range(1, 200, 2)})


def test_a_path_is_looked_for_by_sqlite_alone(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is made of what is not meant."""
    made: list[int] = []
    original = answers.record

    def record(row: tuple[Any, ...]) -> Record:
        made.append(row[0])
        return original(row)

    monkeypatch.setattr(answers, "record", record)
    found = retry(pair[1], Selection(paths=("/up/07/7.csv", "/up/08", "/up/0[9]/9?9.csv")))
    expected = [7, *range(8, MANY + 1, 100), 909]
    assert [one.seq for one in found] == sorted(expected)
    assert len(made) <= 2 * len(found)


def test_a_transaction_has_the_same_bound_however_many_there_are(
    pair: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = costs(pair, lambda at: retry(at, Selection(all=True), lambda _: True), monkeypatch)
    assert (few.transactions, many.transactions) == (
        FEW // failed_deliveries.PAGE,
        MANY // failed_deliveries.PAGE,
    )
    assert many.longest <= 1.1 * few.longest
    # Going on behind the last page, and not from the beginning.
    assert many.steps <= 1.1 * few.steps * MANY / FEW


def peak(call: Callable[[Path], object], at: Path) -> int:
    gc.disable()  # else it depends on what was allocated before when cycles are freed
    tracemalloc.start()
    try:
        call(at)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


def test_all_of_them_take_no_more_memory_than_a_page(pair: list[Path]) -> None:
    def list_all(at: Path) -> None:
        with open_reader(str(at)) as journal:
            assert sum(1 for _ in failed(journal)) == (FEW if at is pair[0] else MANY)

    def act(at: Path) -> None:
        with failed_deliveries.discard(str(at), Selection(all=True), "me") as changes:
            changed = sum(1 for _ in changes.changed)
            assert sum(1 for _ in changes.left_behind()) == changed // 10

    for call in (list_all, act):
        few, many = (peak(call, at) for at in pair)
        assert many <= 1.5 * few + 100_000, (call, few, many)


@pytest.mark.parametrize("count", [0, 1, 3, 450])
def test_a_list_in_pieces_is_the_list(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    values = [{"a": 'b"\n', "n": n, "none": None, "in": [n, {"x": "\udcff"}]} for n in range(count)]
    common.print_json_list(iter(values))
    assert capsys.readouterr().out == json.dumps(values, indent=2) + "\n"
