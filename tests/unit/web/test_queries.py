"""What a query string asks for, and what is said where it cannot be understood."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchman.journal.question import LARGEST
from watchman.model import State
from watchman.web.queries import STATES, BadQuestion, WebQuery, parse

ID = "6F9619FF-8B86-5011-B42D-00CF4FC964FF"


@given(st.binary(max_size=60).filter(lambda name: b"\0" not in name), st.text(max_size=20))
@settings(deadline=None)
def test_a_link_asks_for_what_it_was_made_of(name: bytes, task: str) -> None:
    # Spaces around what was typed are nobody's.
    asked = WebQuery(q=os.fsdecode(name).strip(), task=task.replace("\0", "").strip(), state="sent")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in asked.task):
        return  # no task has such a name, and no query string can
    query = asked.query().encode("ascii")
    assert parse(query.removeprefix(b"?")) == asked


def test_what_is_not_known_is_passed_over() -> None:
    assert parse(b"q=a&page=3&__class__=x&query=1&;") == WebQuery(q="a")
    assert parse(b"") == WebQuery()
    assert WebQuery().query() == ""
    assert not WebQuery(before="7").narrowed
    assert WebQuery(state="sent").narrowed


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"state=lost", "'lost' is no state; these are: moving, ready"),
        (b"before=x", "'x' is no number of a delivery"),
        (b"before=%D9%A3", "is no number of a delivery"),
        (b"since=soon", "'soon' is no"),
        (b"until=2026-13-01", "'2026-13-01' is no"),
        (b"since=2026-11-26&until=2026-11-25", "nothing can have arrived between them"),
        (b"q=a%00b", "q: no path and no name has the character NUL in it"),
        (b"q=" + b"x" * 9000, "longer than any path"),
        (b"&".join([b"q=a"] * 60), "too many things"),
    ],
)
def test_mistakes_are_told_in_one_line(query: bytes, words: str) -> None:
    with pytest.raises(BadQuestion) as error:
        parse(query).question()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("state", STATES)
def test_each_state_can_be_asked_for(state: str) -> None:
    question = WebQuery(state=state).question()
    wanted = State.VANISHED if state == "discarded" else State[state.upper()]
    assert question.state is wanted
    assert question.discarded is (state == "discarded")


def test_times_names_and_ids() -> None:
    question = WebQuery(since="2026-11-26T14:30Z", broker="b", task="t", q=ID).question()
    assert question.since_ns == 1_795_703_400 * 10**9
    assert (question.until_ns, question.broker, question.task) == (LARGEST, "b", "t")
    assert question.task_id == ID.lower()
    assert WebQuery(before="7").question().up_to == 6
    for digits in (30, 5000):
        assert WebQuery(before="9" * digits).question().up_to == LARGEST
    assert WebQuery(reason="refused").question().reason == "refused"
    assert WebQuery(q=ID).ways() == [()]


@pytest.mark.parametrize(
    ("q", "ways"),
    [
        ("", [()]),
        ("/srv/a.csv", [("/srv/a.csv",)]),
        ("/srv//x/../a/", [("/srv/a",)]),
        ("//srv/a", [("/srv/a",)]),
        ("/srv/*.csv", [("/srv/*.csv",)]),
        ("a.csv", [("*/a.csv",), ("*a.csv*",)]),
        ("anna/a.csv", [("*/anna/a.csv",), ("*anna/a.csv*",)]),
        ("a[1].csv", [("*/a[[]1].csv",), ("*/a[1].csv",), ("a[1].csv",)]),
        ("*.csv", [("*/*.csv",), ("*.csv",)]),
    ],
)
def test_what_a_name_may_mean(q: str, ways: list[tuple[str, ...]]) -> None:
    assert WebQuery(q=q).ways() == ways


@pytest.mark.parametrize(
    ("q", "number"), [("7", 7), ("#7", 7), ("7a", None), ("9" * 30, None), ("٣", None), ("", None)]
)
def test_what_may_be_a_number(q: str, number: int | None) -> None:
    assert WebQuery(q=q).number == number
