"""A segment gives back what was put into it, and answers as a look at every row would."""

from __future__ import annotations

import os
import random
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchman.journal import segment
from watchman.journal.question import LARGEST, SMALLEST, Question
from watchman.journal.record import Record
from watchman.journal.sealed import Segment
from watchman.journal.segment import SealedRow
from watchman.model import DISCARDED, State, Version

ENDED = [State.SENT, State.VANISHED, State.MOVED]


def expected(row: SealedRow) -> Record:
    return Record(
        row.seq,
        row.task_id,
        os.fsdecode(row.source),
        os.fsdecode(row.source if row.final is None else row.final),
        Version(0, 0, row.size, row.mtime_ns),
        row.arrived_ns,
        row.broker,
        row.task,
        row.unit,
        State(row.state),
        row.noted_ns,
        row.reason or "",
    )


def plain(seq: int, source: bytes = b"/up/a", **other: Any) -> SealedRow:
    row = SealedRow(seq, f"id-{seq}", source, None, 1, 2, 3, "b", "t", "files", 3, False, 4, None)
    return row._replace(**other)


def make(tmp_path: Path, rows: Sequence[SealedRow], name: str = "segment") -> Segment:
    path = str(tmp_path / name)
    segment.write(path, lambda: rows)
    return Segment(path)


def found(file: Segment, question: Question = Question()) -> list[Record]:  # noqa: B008 — frozen
    return list(file.find(question))


ODD = [
    plain(1, b"/up/\xff\xfe\n'\"", task_id="0fd1e2a2-4b21-5c3f-8a26-12b6d34bb05a"),
    plain(2, b"/up/", task_id="0FD1E2A2-4B21-5C3F-8A26-12B6D34BB05A"),
    plain(3, b"/", task_id=""),
    plain(4, b"no slash", task_id="{0fd1e2a2-4b21-5c3f-8a26-12b6d34bb05a}"),
    plain(5, b"/up/done", unit="directories", task_id="\N{SNOWMAN}" * 12, reason="why \N{SNOWMAN}"),
    plain(6, mtime_ns=LARGEST, arrived_ns=SMALLEST, noted_ns=LARGEST, size=LARGEST),
    plain(7, mtime_ns=SMALLEST, arrived_ns=LARGEST, noted_ns=SMALLEST, size=SMALLEST),
    plain(8, final=b"/dst/a", broker=None, task=None, state=6),
    plain(9, final=b"/dst/other", state=5, reason=f"{DISCARDED}me", discarded=True),
    plain(10, final=b"", broker=None, task=None, state=6),
    plain(1 << 40, b"/" + b"x/" * 2000 + b"y"),
    plain(LARGEST, final=b"/up/a"),
]


def test_odd_rows_come_back_whole(tmp_path: Path) -> None:
    file = make(tmp_path, ODD)
    assert found(file) == [expected(row) for row in reversed(ODD)]
    assert sum(kind.rows for kind in file.kinds) == len(ODD)
    assert file.last_noted_ns == LARGEST
    states = {row.seq: (row.state, row.noted_ns) for row in ODD}
    assert file.having([*states, 11, 12]) == states
    file.close()
    for row in ODD:
        single = make(tmp_path, [row], f"only-{row.seq}")
        assert found(single) == [expected(row)]
        single.close()


def test_a_segment_without_rows(tmp_path: Path) -> None:
    file = make(tmp_path, [])
    assert found(file) == []
    file.close()


def test_what_is_new_at_the_second_look_is_left_out(tmp_path: Path) -> None:
    looks = iter([[plain(1)], [plain(1), plain(2, b"/new/a"), plain(3, final=b"/new/b")]])
    path = str(tmp_path / "segment")
    segment.write(path, lambda: next(looks))
    file = Segment(path)
    assert [record.seq for record in found(file)] == [1]
    file.close()


NAMES = ["a", "b", "data.csv", "a.csv", "ab", "[a]", "\udcff", "", "*"]
FOLDERS = [
    "/",
    "/up/",
    "/up/a/",
    "/up/ab/",
    "/up/a/b/",
    "/dst/",
    "/up/a-b/",
    "/up/\udcff\udcff/",
    "",
]
paths = st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from(NAMES))
asked = st.one_of(
    paths,
    st.sampled_from([folder.rstrip("/") or "/" for folder in FOLDERS]),
    st.sampled_from(
        [
            "*",
            "*/a",
            "/up/*",
            "/up/a*",
            "/up/a/?",
            "*/data.*",
            "/up/[ab]",
            "*[a]*",
            "*.csv",
            "*.xml",
        ]
    ),
    st.sampled_from(
        ["/up/[!a]/b", "[/]up/a", "*/[]a]b", "/up/\udcff*", "/dst/*.csv", "*sv", "?up/a*"]
    ),
)
times = st.one_of(st.integers(0, 40), st.sampled_from([SMALLEST, LARGEST, LARGEST - 1]))


@st.composite
def some_rows(draw: st.DrawFn, most: int = 900) -> list[SealedRow]:
    """Rows of few values, so that questions meet several; some values are rare among them."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    count = min(most, draw(st.sampled_from([0, 1, 7, 60, 900])))
    rows = []
    for seq in sorted(chance.sample(range(1, 2 * count + 2), count)):
        path, final = (os.fsencode(chance.choice(FOLDERS) + chance.choice(NAMES)) for _ in range(2))
        if chance.random() < 0.3:
            path = b"/up/much/%d" % chance.randrange(5)
        state = chance.choice([3] * 40 + [5, 6])
        given_up = state == 5 and chance.random() < 0.5
        rows.append(
            SealedRow(
                seq,
                str(uuid.UUID(int=chance.randrange(50))),
                path,
                final if chance.random() < 0.4 else None,
                chance.randrange(1 << 40),
                chance.choice([0, LARGEST, 17]),
                # Mostly in the order of the seqs, with a clock that was set now and then.
                chance.choice([seq, seq, seq, 20, LARGEST if chance.random() < 0.01 else seq]),
                chance.choice(["b", "b", "c"]),
                chance.choice(["t"] * 30 + ["rare"]),
                chance.choice(["files"] * 30 + ["directories"]),
                state,
                given_up,
                chance.randrange(100),
                f"{DISCARDED}me" if given_up else None,
            )
        )
    return rows


questions = st.builds(
    Question,
    paths=st.lists(asked, max_size=2).map(tuple),
    since_ns=st.one_of(st.just(SMALLEST), times),
    until_ns=st.one_of(st.just(LARGEST), times),
    state=st.sampled_from([None, None, *ENDED, State.FAILED]),
    discarded=st.sampled_from([None, None, True, False]),
    broker=st.sampled_from([None, None, "b", "none"]),
    task=st.sampled_from([None, None, "t", "rare"]),
    task_id=st.sampled_from([None, None, None, str(uuid.UUID(int=7)), "odd"]),
    reason=st.sampled_from([None, None, None, "DISCARDED", "me", "odd"]),
    directory=st.sampled_from([None, None, None, "/up", "/up/a", "/up/[a]"]),
    seqs=st.one_of(st.none(), st.frozensets(st.integers(0, 140), max_size=70)),
    up_to=st.one_of(st.just(LARGEST), st.integers(0, 1900)),
)


@given(some_rows(), st.lists(questions, min_size=1, max_size=20), st.sampled_from([1, 200]))
@settings(max_examples=60, deadline=None)
def test_each_answer_is_that_of_a_look_at_every_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[SealedRow],
    questions: list[Question],
    few: int,
) -> None:
    top = tmp_path_factory.mktemp("any")
    file = make(top, rows)
    file._most = max(few, len(rows) // segment.RARE)
    try:
        for question in questions:
            every = [expected(row) for row in reversed(rows)]
            meant = [one for one in every if question.means(one)]
            assert found(file, question) == meant, question
            for at in {len(meant) // 2, len(meant) - 1} if meant else ():
                there = replace(question, up_to=meant[at].seq)
                assert found(file, there) == meant[at:], there
    finally:
        file.close()


def test_a_file_is_found_where_it_was_and_where_it_is(tmp_path: Path) -> None:
    rows = [
        plain(1, b"/up/a/x.csv", final=b"/dst/a/x.csv"),
        plain(2, b"/up/a/y.csv", final=b"/dst/a/y@2.csv"),
        plain(3, b"/dst/a/x.csv"),
    ]
    file = make(tmp_path, rows)

    def seqs(*paths: str) -> list[int]:
        return [record.seq for record in found(file, Question(paths))]

    assert seqs("/up/a/x.csv") == [1]
    assert seqs("/dst/a/x.csv") == [3, 1]
    assert seqs("/dst/a/y@2.csv") == seqs("*/y@2.csv") == seqs("/dst/a/y@?.*") == [2]
    assert seqs("/dst/a/y.csv") == []
    assert seqs("/dst") == seqs("/dst/a") == [3, 2, 1]
    assert seqs("/up/a") == [2, 1]
    assert seqs("*/x.csv") == [3, 1]
    file.close()


@pytest.mark.parametrize("value", ["'x'", "x'00'", "0.5", "9e999"])
@pytest.mark.parametrize(
    "place",
    [
        *("by_name.seq", "by_folder.seq", "by_id.seq", "by_kind.seq"),
        *("whole.rows", "whole.folders", "whole.base", "whole.last_noted_ns"),
        *("kinds.state", "kinds.broker", "kinds.task", "kinds.unit", "kinds.count"),
        *("kinds.first_arrived_ns", "kinds.last_arrived_ns", "kinds.last_noted_ns"),
        *("deliveries.kind", "deliveries.folder", "deliveries.arrived", "deliveries.mtime"),
    ],
)
def test_what_is_of_another_type_means_damage(tmp_path: Path, place: str, value: str) -> None:
    """As a bit of it that has turned makes it: SQLite takes any value in any column."""
    rows = [plain(n, b"/up/%d/a" % n) for n in range(1, 40)]
    make(tmp_path, [*rows, plain(40, b"/rare/b", task="rare")]).close()
    table, column = place.split(".")
    connection = sqlite3.connect(tmp_path / "segment")
    query = f"UPDATE OR REPLACE {table} SET {column} = {value}"  # noqa: S608 — our own words
    connection.execute(query)
    connection.commit()
    connection.close()

    def ask() -> None:
        file = Segment(str(tmp_path / "segment"))
        try:
            for question in (
                Question(("/rare/b",)), Question(("/rare",)), Question(task_id="id-40"),
                Question(task="rare"), Question(since_ns=2), Question(),
            ):  # fmt: skip
                for record in file.find(question):
                    assert isinstance(record.broker, str)
                    assert isinstance(record.task, str)
                    assert isinstance(record.kind, str)
        finally:
            file.close()

    if place in {"kinds.broker", "kinds.task", "kinds.unit"} and value in {"'x'", "0.5", "9e999"}:
        ask()  # the column makes a text of it
    else:
        with pytest.raises(sqlite3.Error):
            ask()


@pytest.mark.parametrize("how", ["older", "too many", "told"])
def test_what_extensions_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "too many":
        monkeypatch.setattr(segment, "MOST_EXTENSIONS", 2)
    rows = [
        plain(1, b"/up/a.csv"),
        plain(2, b"/up/b.nc", final=b"/dst/b.zarr"),
        plain(3, b"/up/none"),
        plain(4, b"/up/sub.xml/c.csv"),
    ]
    make(tmp_path, rows).close()
    if how == "older":
        connection = sqlite3.connect(tmp_path / "segment")
        connection.execute("DROP TABLE extensions")
        connection.close()
    file = Segment(str(tmp_path / "segment"))
    for pattern, seqs in (
        ("*.csv", [4, 1]), ("*.zarr", [2]), ("*.nc", [2]), ("*.xml", []), ("*xml*", [4]),
        ("*.", []), ("/up/*.csv", [4, 1]), ("/up/sub.???", []),
    ):  # fmt: skip
        assert [record.seq for record in found(file, Question((pattern,)))] == seqs, pattern
    told = frozenset({b"csv", b"nc", b"zarr"})
    assert file._extensions == (told if how == "told" else None)
    file.close()
