"""The questions of docs/operating.rst: each has one command, which prints the answer shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import docs
from tests.docs import Block
from tests.questions import ACTS, SECONDS, QuestionSite, questions
from tests.waiting import wait_until

QUESTIONS = questions()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestionSite]:
    made = QuestionSite(tmp_path_factory.mktemp("questions"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def test_there_are_thirty_and_each_is_asked_by_one_command() -> None:
    assert len(QUESTIONS) >= 30
    for block in QUESTIONS:
        [shown] = block.commands
        assert shown.command.startswith("notify ")
        assert shown.output


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", QUESTIONS, ids=[block.caption for block in QUESTIONS])
def test_the_answer_is_the_one_that_is_shown(site: QuestionSite, block: Block) -> None:
    [shown] = block.commands
    answers: list[str] = []

    def told() -> bool:
        answers.append(site.ask(block))
        return docs.is_shown(shown.output, docs.in_form(answers[-1]))

    if ACTS.match(shown.command):
        assert told(), answers[-1]
        return
    try:
        wait_until(told, SECONDS, shown.command, interval=0.3)
    except AssertionError:
        # The last answer, for the comparison that pytest shows.
        assert docs.in_form(answers[-1]) == docs.in_form(shown.output)
        raise
