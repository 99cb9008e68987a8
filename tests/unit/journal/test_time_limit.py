"""A question whose answer takes too long ends, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman.errors import TimeLimitOver
from watchman.journal import Journal, NewDelivery, archive, schema, sealing
from watchman.journal.answers import ask
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.journal.time_limit import TimeLimit
from watchman.model import Route, State, Version

COUNT = 3000
SLOW = Question(("*[xy]nothing",))


class Ending(TimeLimit):
    """Over after so many looks at it: no clock of the machine's decides."""

    def __init__(self, looks: int) -> None:
        super().__init__(5.0)
        self.left = looks

    @property
    def is_over(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(str(tmp_path))
    route = Route("b", "task")
    for start in range(0, COUNT, 500):
        made.record(
            [
                NewDelivery(f"id-{n}", f"/up/{n}.csv", None, Version(1, n, 2, 3), n, route)
                for n in range(start + 1, start + 501)
            ]
        )
        made.note([(n, State.SENT, "") for n in range(start + 1, start + 501)])
    yield made
    made.close()


def seal(top: Path) -> None:
    """Put what is old into the archive, and take it out of the journal."""
    sealing.seal(str(top), sealing.mark([]), 10, 2000)
    [file] = archive.files(str(top))
    connection = schema.connect(str(top / "journal.db"))
    connection.execute("DELETE FROM deliveries WHERE seq <= ?", (file.last,))
    connection.close()


def test_in_the_journal(journal: Journal, tmp_path: Path) -> None:
    limit = Ending(1)
    late = pytest.raises(TimeLimitOver, match=r"^this takes more than 5 s: ask for less")
    with late, open_reader(str(tmp_path), limit) as reader:
        ask(reader, SLOW, 10)
    assert limit.left < 0


def test_in_the_archive(journal: Journal, tmp_path: Path) -> None:
    seal(tmp_path)
    limit = Ending(10**9)
    late = pytest.raises(TimeLimitOver)
    with late, open_reader(str(tmp_path), limit) as reader:
        limit.left = 1
        ask(reader, SLOW, 10)


def test_with_time_enough_there_is_an_answer(journal: Journal, tmp_path: Path) -> None:
    with open_reader(str(tmp_path), TimeLimit(60)) as reader:
        assert ask(reader, SLOW, 10).records == []
        assert [record.seq for record in ask(reader, Question(), 2).records] == [COUNT, COUNT - 1]
