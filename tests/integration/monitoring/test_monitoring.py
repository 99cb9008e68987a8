"""Which troubles of monitoring itself the hooks are told of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.integration.monitoring.receiver import Event
from tests.integration.pipeline.test_status import snapshot
from tests.running import config_for
from tests.waiting import wait_until
from watchman.journal import Journal
from watchman.model import Hook
from watchman.monitoring import Monitoring
from watchman.monitoring.hooks import RECOVERED, TROUBLE


def test_hooks_are_told_of_a_file_that_cannot_be_written_and_not_of_themselves(
    tmp_path: Path, quick: None
) -> None:
    """One that fails would be told of its own failure, again and again."""
    told: list[Event] = []

    def failing(event: Event) -> None:
        told.append(event)
        raise ValueError("no")

    metrics = tmp_path / "away" / "watchman.prom"
    config = config_for(
        tmp_path / "up",
        tmp_path / "state",
        metrics_file=str(metrics),
        hooks={name: Hook(name, "f", function=failing) for name in (TROUBLE, RECOVERED)},
    )
    (tmp_path / "state").mkdir()
    journal = Journal(str(tmp_path / "state"))
    made = Monitoring()
    made.begin(config, journal)

    def look() -> set[str]:
        troubles = [
            {"subject": one.subject, "message": one.message, "since_ns": one.since_ns}
            for one in made.troubles()
        ]
        made.look_at(snapshot(troubles=troubles, brokers={}))
        return {one.subject for one in made.troubles()}

    wait_until(lambda: look() == {str(metrics), "hook ON_TROUBLE"})
    look()
    assert [(one["event"], one["subject"]) for one in told] == [("trouble", str(metrics))]
    made.close()
    journal.close()
    assert [one["subject"] for one in told] == [str(metrics)]


def test_what_lasts_is_no_news_to_a_hook_that_a_reload_brings(tmp_path: Path, quick: None) -> None:
    told: list[Event] = []
    before = config_for(tmp_path / "up", tmp_path / "state")
    hooks = {name: Hook(name, "f", function=told.append) for name in (TROUBLE, RECOVERED)}
    trouble = {"subject": "/up", "message": "it is away", "since_ns": 1}
    (tmp_path / "state").mkdir()
    journal = Journal(str(tmp_path / "state"))
    made = Monitoring()
    made.begin(before, journal)
    made.look_at(snapshot(troubles=[trouble], brokers={}))
    made.begin(dataclasses.replace(before, hooks=hooks), journal)
    made.look_at(snapshot(troubles=[trouble], brokers={}))
    made.look_at(snapshot(troubles=[], brokers={}))
    made.close()  # which has told all
    journal.close()
    assert [(one["event"], one["subject"]) for one in told] == [("recovered", "/up")]
