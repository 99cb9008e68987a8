"""What a question to the archive costs is what its answer is: counted in SQLite's own steps."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from watchman.journal import segment
from watchman.journal.question import Question
from watchman.journal.sealed import Segment
from watchman.journal.segment import SealedRow
from watchman.model import State

SMALL, LARGE = 6_000, 96_000
BASE = 1_764_148_000_000_000_000
SECOND = 1_000_000_000
SPECIAL = 3_000
"""Where in each segment the rows are that are asked for; all others are like one another."""


def rows(count: int, *, moved: bool = False) -> Iterator[SealedRow]:
    """Return deliveries as those of a site: paths of 60 characters, ids as watchman makes them."""
    chance = random.Random(count)
    for n in range(count):
        special = SPECIAL <= n < SPECIAL + 20
        customer = b"special" if special else b"customer-%03d" % (n % 97)
        below = b"%s/2026-11/IMG_20261126_%07d.csv" % (customer, n)
        arrived = BASE + n * SECOND + chance.randrange(SECOND)
        yield SealedRow(
            1_000_000 + n,
            str(uuid.UUID(int=chance.getrandbits(128), version=5)),
            b"/srv/ftp/uploads/" + below,
            b"/srv/archive/incoming/" + below if moved else None,
            chance.randrange(1_000, 5_000_000),
            arrived - chance.randrange(SECOND),
            arrived,
            "rabbit",
            "special" if special else "process",
            "files",
            int(State.VANISHED if special else State.SENT),
            False,
            arrived + chance.randrange(SECOND // 100),
            "the file is gone" if special else None,
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Segment, Segment]]:
    top = tmp_path_factory.mktemp("growth")
    paths = [str(top / "small"), str(top / "large")]
    for path, count in zip(paths, (SMALL, LARGE), strict=True):
        data = list(rows(count))
        segment.write(path, lambda data=data: data)  # type: ignore[misc]  # — binds the rows
    small, large = map(Segment, paths)
    yield small, large
    small.close()
    large.close()


def steps(file: Segment, question: Question, limit: int) -> tuple[int, int]:
    """Return how many answers there are, and a tenth of the steps that they cost."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    file._paths.clear()
    file._connection.set_progress_handler(count, 10)
    try:
        return len(list(islice(file.find(question), limit))), taken
    finally:
        file._connection.set_progress_handler(None, 10)


NAME = f"IMG_20261126_{SPECIAL:07d}.csv"
TOP = "/srv/ftp/uploads"
ASKED = {
    "path": (Question((f"{TOP}/special/2026-11/{NAME}",)), 1),
    "name": (Question((f"*/{NAME}",)), 1),
    "directory": (Question((f"{TOP}/special",)), 20),
    "pattern": (Question((f"{TOP}/special/*/IMG*[0-9].csv",)), 20),
    "time": (Question(since_ns=BASE + 900 * SECOND, until_ns=BASE + 950 * SECOND - 1), 50),
    "state": (Question(state=State.VANISHED), 20),
    "task": (Question(task="special"), 20),
    "state and directory": (Question((TOP,), state=State.VANISHED), 20),
    "reason": (Question(reason="the file is GONE"), 20),
    "reason and directory": (Question(reason="gone", directory=TOP), 20),
    "a directory": (Question(directory=f"{TOP}/special"), 20),
    "directory and name": (Question((f"*/{NAME}",), directory=f"{TOP}/special"), 1),
    "seqs": (Question(seqs=frozenset({1_000_000 + SPECIAL, 7})), 1),
    "where a list goes on": (Question(up_to=1_000_000 + SPECIAL), 100),
    "no reason": (Question(reason="refused"), 0),
    "no such directory": (Question(directory="/none"), 0),
    "no seqs": (Question(seqs=frozenset({7})), 0),
    "no path": (Question((f"{TOP}/none.csv",)), 0),
    "no directory": (Question(("/none",)), 0),
    "no name": (Question(("*/none.csv",)), 0),
    "no time": (Question(until_ns=BASE - 1), 0),
    "no state": (Question(state=State.MOVED), 0),
    "no broker": (Question(broker="none"), 0),
    "no extension": (Question(("*.xml",)), 0),
    "no extension in a directory": (Question((f"{TOP}/*[0-9].txt",)), 0),
    "no id": (Question(task_id=str(uuid.UUID(int=0))), 0),
    "the newest": (Question(), 100),
    "the newest below": (Question(("/srv",)), 100),
    "the newest of a pattern": (Question(("*.csv",)), 100),
    "the newest sent": (Question(state=State.SENT, broker="rabbit"), 100),
}


LONG_LISTS = {"the newest below", "the newest of a pattern"}
"""What is looked for in an index until that has given a sixteenth of the rows, some steps each."""


@pytest.mark.parametrize("what", ASKED)
def test_it_is_the_answer_that_costs(pair: tuple[Segment, Segment], what: str) -> None:
    question, expected = ASKED[what]
    (few, cheap), (same, steps_taken) = (steps(file, question, 100) for file in pair)
    assert few == same == expected
    # A search goes deeper by a few steps.
    given_up = (LARGE - SMALL) // segment.RARE if what in LONG_LISTS else 0
    assert steps_taken <= 1.5 * cheap + 30 + given_up, (cheap, steps_taken)
    if not expected:
        assert steps_taken < 60


def test_a_known_id_is_found(pair: tuple[Segment, Segment]) -> None:
    for file in pair:
        (newest,) = islice(file.find(Question()), 1)
        found, taken = steps(file, Question(task_id=newest.task_id), 100)
        assert (found, taken < 60) == (1, True)


@pytest.mark.parametrize("moved", [False, True])
def test_a_row_takes_150_bytes_at_most(tmp_path: Path, moved: bool) -> None:
    data = list(rows(50_000, moved=moved))
    assert 55 <= sum(len(row.source) for row in data) / len(data) <= 65
    path = str(tmp_path / "segment")
    segment.write(path, lambda: data)
    assert os.path.getsize(path) / len(data) <= 150


@pytest.mark.parametrize(
    "pattern", ["*xml.csv", "*[0-9]txt", "*2025-1?*", "*IMG*x*y*", "/srv/*[a]xml"]
)
def test_a_pattern_without_a_beginning_makes_no_object_of_a_row(
    pair: tuple[Segment, Segment], pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite alone goes through them, in a few steps for each."""

    def paths_of(self: Segment, row: Sequence[object]) -> tuple[bytes, bytes | None]:
        pytest.fail(f"looked at {row}")

    monkeypatch.setattr(Segment, "_paths_of", paths_of)
    for file, count in zip(pair, (SMALL, LARGE), strict=True):
        found, taken = steps(file, Question((pattern,)), 100)
        assert (found, taken <= 3 * count) == (0, True)
