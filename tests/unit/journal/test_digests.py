"""Digests change no answer; with them, it costs what is looked at and not what the journal has."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchman.journal import Journal, NewDelivery, archive, digests
from watchman.journal.answers import ask
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question, by_name
from watchman.model import Move, Route, State, Version

MOVE = Move("/up", "/dst")
ROUTE = Route("b", "t")
SMALL, LARGE = 3 * digests.ROWS, 12 * digests.ROWS
MARKED = digests.ROWS + 7
"""The seq of the one that is looked for."""
ROUTES = {MARKED: Route("rare", "t"), MARKED + 1: Route("b", "rare")}
WHY = "its file has gone"


def deliver(journal: Journal, count: int) -> None:
    """Record deliveries in some directories, a part of them on their way to other ones."""
    news = []
    for n in range(journal.last_seq() + 1, journal.last_seq() + 1 + count):
        below = (
            f"{n % 5}/sub/{n}.{'xml' if n == MARKED + 8 else 'csv'}"
            if n % 7
            else os.fsdecode(b"\xff/%d" % n)
        )
        moving = n % 3 == 1
        final = f"/dst/{below}" if moving else None
        about = f"/up/{below}", final, Version(1, n, 1000 * n, n), 1000 + n, ROUTES.get(n, ROUTE)
        news.append(NewDelivery(f"id-{n}", *about, move=MOVE if moving else None))
    journal.record(news)


def digest(journal: Journal) -> None:
    while journal.digests.step(journal.last_seq()):
        pass


def steps_of(top: Path, question: Question) -> tuple[list[int], int]:
    """Return the seqs that are found, and hundreds of SQLite's steps that this took."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    with open_reader(str(top)) as reader:
        reader.connection.set_progress_handler(count, 100)
        found = ask(reader, question, 1000).records
    return [one.seq for one in found], taken


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two journals, one with four times as many deliveries."""
    tops = []
    for count in (SMALL, LARGE):
        top = tmp_path_factory.mktemp("journal")
        journal = Journal(str(top))
        deliver(journal, count)
        journal.redirect(MARKED + 2, "/elsewhere/new-name.csv")
        journal.note([(MARKED + 3, State.VANISHED, WHY)])
        digest(journal)
        journal.note([(MARKED + 4, State.FAILED, "refused"), (MARKED + 6, State.READY, "down")])
        journal.redirect(MARKED + 5, "/elsewhere/newer-name.csv")
        journal.close()
        tops.append(top)
    return tops[0], tops[1]


ASKED = {
    "name": Question(by_name(f"{MARKED}.csv")),
    "path": Question((f"/up/{MARKED % 5}/sub/{MARKED}.csv",)),
    "name that is no UTF-8": Question(by_name(os.fsdecode(b"%d" % (MARKED - MARKED % 7)))),
    "id": Question(task_id=f"id-{MARKED}"),
    "final path": Question((f"/dst/{(MARKED + 11) % 5}/sub/{MARKED + 11}.csv",)),
    "extension": Question(("*.xml",)),
    "extension of none": Question(("/up/*.nc",)),
    "one of two": Question(("/up/*.nc", f"*/{MARKED}.csv")),
    "name in a directory": Question(by_name(f"{MARKED}.csv"), directory="/up"),
    "time": Question(since_ns=1000 + MARKED, until_ns=1000 + MARKED + 9),
    "broker": Question(broker="rare"),
    "broker of none": Question(broker="none"),
    "task": Question(task="rare"),
    "task of none": Question(task="none"),
    "task, to a broker that has none": Question(task="rare", broker="rare"),
    "state of none": Question(state=State.SENT),
    "state of none to a broker": Question(state=State.FAILED, broker="rare"),
    "what vanished": Question(state=State.VANISHED),
    "reason": Question(reason="GONE"),
    "reason of a broker that is down": Question(reason="down"),
    "reason of none": Question(reason="no such reason"),
}


@pytest.mark.parametrize("what", ASKED)
def test_it_costs_what_is_looked_at(pair: tuple[Path, Path], what: str) -> None:
    (found, cheap), (same, taken) = (steps_of(top, ASKED[what]) for top in pair)
    assert found == same
    assert bool(found) == ("none" not in what)
    # The last block has no digest. Each other block takes a few steps.
    assert taken <= cheap + 10


def test_where_it_was_redirected_to_is_found(pair: tuple[Path, Path]) -> None:
    assert (MARKED + 2) % 3 == (MARKED + 5) % 3 == 1
    for top in pair:
        assert steps_of(top, Question(by_name("new-name.csv")))[0] == [MARKED + 2]
        assert steps_of(top, Question(by_name("newer-name.csv")))[0] == [MARKED + 5]
        assert steps_of(top, Question(("/elsewhere",)))[0] == [MARKED + 5, MARKED + 2]


def test_there_is_none_to_make_where_only_the_archive_has_any(tmp_path: Path) -> None:
    """The journal was begun anew."""
    history = tmp_path / archive.DIRECTORY
    history.mkdir()
    (history / archive.name_of(1, 5 * digests.ROWS)).touch()
    journal = Journal(str(tmp_path))
    assert journal.last_seq() == 5 * digests.ROWS
    steps = [journal.digests.step(journal.last_seq()) for _ in range(3)]
    assert not any(steps[1:])
    deliver(journal, 2 * digests.ROWS)
    digest(journal)
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (2,)


def test_there_is_one_for_each_block_that_is_full(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    assert not journal.digests.step(journal.last_seq())
    deliver(journal, 2 * digests.ROWS + 7)
    assert journal.digests.step(journal.last_seq())
    assert not journal.digests.step(journal.last_seq())
    assert not journal.digests.step(journal.last_seq())
    journal.close()
    journal = Journal(str(tmp_path))
    assert not journal.digests.step(journal.last_seq())
    assert blocks(tmp_path) == [0, 1]
    deliver(journal, digests.ROWS)
    assert not journal.digests.step(journal.last_seq())
    assert blocks(tmp_path) == [0, 1, 2]
    # What has left the journal needs none.
    journal.note([(seq, State.SENT, "") for seq in range(1, 2 * digests.ROWS)])
    while journal.prune(1 << 62).more:
        pass
    deliver(journal, digests.ROWS)
    digest(journal)
    assert blocks(tmp_path)[-1] == 3
    assert 0 not in blocks(tmp_path)
    journal.close()


def blocks(top: Path) -> list[int]:
    connection = sqlite3.connect(top / "journal.db")
    try:
        return [block for (block,) in connection.execute("SELECT block FROM digests")]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two journals with the same deliveries, one of them without digests."""
    top, other = (
        tmp_path_factory.mktemp("twins") / "one",
        tmp_path_factory.mktemp("twins") / "other",
    )
    top.mkdir()
    journal = Journal(str(top))
    for _ in range(3):
        deliver(journal, digests.ROWS - 100)
        digest(journal)
    journal.redirect(10, "/elsewhere/10.csv")
    journal.note([(n, State.SENT, "") for n in range(20, 2000, 3)])
    journal.note([(n, State.VANISHED, WHY) for n in range(21, 2000, 30)])
    journal.note([(22, State.VANISHED, "discarded by me"), (23, State.FAILED, "refused")])
    journal.close()
    shutil.copytree(top, other)
    connection = sqlite3.connect(other / "journal.db", isolation_level=None)
    connection.execute("DELETE FROM digests")
    connection.close()
    assert (len(blocks(top)), len(blocks(other))) == (2, 0)
    return top, other


NUMBERS = st.integers(0, 3 * digests.ROWS)
ODD = (
    "/ /up /up/ /up/3 /up/3/sub /up/3/sub/ /dst/* * *1.csv /up/[12]/sub/[0-9].csv /elsewhere "
    "10.csv /*/3/sub/8.csv \udcff */\udcff/* *.csv *.xml *.nc /up/*.xml /dst/3/*.csv *.c?v *[.]csv"
)
TEXTS = st.one_of(
    NUMBERS.map(lambda n: f"/up/{n % 5}/sub/{n}.csv"),
    NUMBERS.map(lambda n: f"*/{n}.csv"),
    NUMBERS.map(lambda n: f"/dst/{n % 5}/sub/{n}*"),
    NUMBERS.map(lambda n: f"/up/*/{n}.csv"),
    NUMBERS.map(lambda n: os.fsdecode(b"/up/\xff/%d" % n)),
    st.sampled_from(["", *ODD.split()]),
)


NARROWED = st.fixed_dictionaries(
    {},
    optional={
        "since_ns": NUMBERS.map(lambda n: 1000 + n),
        "until_ns": NUMBERS.map(lambda n: 1000 + n),
        "directory": st.sampled_from(["/up/3", "/dst"]),
        "task_id": st.just("id-7"),
        "task": st.sampled_from(["t", "rare", "none"]),
        "broker": st.sampled_from(["b", "rare", "none", ""]),
        "state": st.sampled_from([*State]),
        "discarded": st.booleans(),
        "reason": st.sampled_from(["GONE", "e", "none"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=3), NARROWED)
def test_they_change_no_answer(
    twins: tuple[Path, Path], paths: list[str], narrowed: dict[str, Any]
) -> None:
    question = Question(tuple(paths), **narrowed)
    with open_reader(str(twins[0])) as one, open_reader(str(twins[1])) as other:
        everything = ask(one, Question(), 10_000).records
        expected = [record for record in everything if question.means(record)]
        assert ask(one, question, 10_000).records == expected
        assert ask(other, question, 10_000).records == expected
