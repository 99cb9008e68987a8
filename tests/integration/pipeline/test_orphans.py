"""Deliveries for a broker that has left the configuration fail a few at a time."""

from __future__ import annotations

import logging

import pytest

from tests.journals import counts, failures
from tests.listeners import PartsHeard
from watchman.journal import Journal, NewDelivery
from watchman.model import Batch, Route, State, Version
from watchman.pipeline.orphans import PAUSE, REASON, Orphans


def fill(journal: Journal, broker: str, number: int) -> None:
    first, route = journal.last_seq() + 1, Route(broker, "task")
    journal.record(
        [
            NewDelivery(f"id-{n}", f"/up/{n}", None, Version(1, n, 3, 4), n, route)
            for n in range(first, first + number)
        ]
    )


def numbers(journal: Journal) -> dict[tuple[str, State], int]:
    return {key: number for key, (number, _) in counts(journal).items()}


def test_a_step_takes_a_page_however_many_there_are(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, "left", 1_100)
    fill(journal, "here", 3)
    fill(journal, "gone", 2)
    heard = PartsHeard()
    orphans, now = Orphans(journal, {"here"}, heard), 100.0
    orphans.step(now)
    assert "left" in journal.ready_brokers()  # nobody has asked for it
    orphans.look()
    assert orphans.pause == 0
    orphans.step(now)  # "gone" comes first
    with caplog.at_level(logging.ERROR):
        steps = [numbers(journal)]
        while orphans.pause == PAUSE:
            orphans.step(now)
            orphans.step(now + PAUSE / 2)  # too early, unless that was the last of it
            now += PAUSE
            steps.append(numbers(journal))
    assert [step.get(("left", State.FAILED), 0) for step in steps] == [0, 500, 1_000, 1_100]
    assert numbers(journal) == {
        ("left", State.FAILED): 1_100,
        ("gone", State.FAILED): 2,
        ("here", State.READY): 3,
    }
    assert {row.reason for row in failures(journal)} == {REASON}
    assert len(heard.failures) == 1_102
    assert "Broker left is no longer in BROKERS: 1100 tasks for it have failed" in caplog.text


def test_those_of_an_operator_who_has_retried_them_fail_again(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    orphans = Orphans(journal, {"here"}, PartsHeard())
    for _ in range(2):
        fill(journal, "left", 1)
        orphans.look()
        orphans.step(1.0)
        assert orphans.pause > PAUSE
        assert journal.ready_brokers() == set()
    assert caplog.text.count("1 tasks for it have failed") == 2


def test_what_waits_in_batches_fails_too(journal: Journal) -> None:
    route = Route("left", "task", batch=Batch(3, 3600.0))
    versions = [(number, Version(1, number, 2, 3, 4)) for number in range(2000, 2008)]
    journal.record(
        [NewDelivery(f"b{n}", f"/up/b{n}", None, version, n, route) for n, version in versions]
    )
    heard = PartsHeard()
    orphans = Orphans(journal, {"here"}, heard)
    orphans.look()
    orphans.step(1.0)
    assert numbers(journal) == {("left", State.FAILED): 8}
    assert len(heard.failures) == 8
    assert journal.ready_brokers() == set()
