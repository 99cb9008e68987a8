"""notify check --workers: what is said of each broker, task, queue and exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.conftest import Site
from watchman import brokers, checks
from watchman.brokers.worker_inspection import Workers
from watchman.model import Broker, Config

CONFIG = """
BROKERS = {'one': 'amqp://host//', 'two': 'amqp://other//', 'idle': 'redis://host/0'}
WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]
PATTERNS = [
    ('$D/ftp/*.csv', {'broker': 'one', 'task': 'load'}),
    ('$D/ftp/*.nc', {'broker': 'one', 'task': 'load'}),
    ('$D/ftp/*.txt', {'broker': 'one', 'task': 'read', 'options': {'queue': 'slow'}}),
    ('$D/ftp/*.xml', {
        'broker': 'two', 'task': 'parse', 'options': {'exchange': 'x', 'routing_key': 'k'},
    }),
]
"""
WORKER = {"w@host": frozenset({"load", "parse"})}


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    return Site(tmp_path).load(CONFIG)


def found(loaded: Config, answer: Workers, **asked: Any) -> dict[str, checks.Check]:
    def ask(broker: Broker, queues: list[str], exchanges: list[str]) -> Workers:
        asked[broker.name] = (queues, exchanges)
        return answer

    listed = checks.check(
        loaded,
        check_broker=lambda broker: "refused" if broker.name in asked.get("dead", ()) else None,
        preview=lambda route: brokers.preview(loaded.brokers[route.broker], {}, route),
        ask_workers=ask,
    )
    everything = {one.subject: one for one in listed}
    places = {word for word in everything if " on " in word or word.startswith("workers of ")}
    assert {name: asks for name, asks in asked.items() if name != "dead"} == {
        name: asks
        for name, asks in {"one": (["celery", "slow"], []), "two": ([], ["x"])}.items()
        if name not in asked.get("dead", ())
    }
    return {word: everything[word] for word in places}


def test_all_is_well(loaded: Config) -> None:
    tasks = {"w@host": frozenset({"load", "read", "parse"})}
    queues = {"w@host": frozenset({"celery"})}
    some = found(loaded, Workers("", tasks, queues, {"slow": 2, "celery": 1}, {"x": True}))
    assert all(one.ok for one in some.values())
    assert {subject: one.detail for subject, one in some.items()} == {
        "workers of one": "w@host",
        "task load on one": "known to w@host",
        "task read on one": "known to w@host",
        "queue celery on one": "taken from by w@host",
        "queue slow on one": "2 consumers",
        "workers of two": "w@host",
        "task parse on two": "known to w@host",
        "exchange x on two": "is there",
    }


def test_what_nobody_takes(loaded: Config) -> None:
    answer = Workers("", WORKER, {}, {"celery": 0, "slow": None}, {"x": False})
    some = found(loaded, answer)
    bad = {subject: (one.detail, one.remedy) for subject, one in some.items() if not one.ok}
    assert bad == {
        "task read on one": (
            "no worker that answers knows it",
            "correct 'task' in PATTERNS, or start a worker that has it",
        ),
        "queue celery on one": (
            "nobody takes from it",
            "start a worker with '--queues celery', or correct the route",
        ),
        "queue slow on one": (
            "it is not there yet, and nobody takes from it",
            "start a worker with '--queues slow', or correct the route",
        ),
        "exchange x on two": (
            "does not exist",
            "make it, or correct the route: its tasks wait until it is there",
        ),
    }


def test_no_worker_is_said_once_and_not_for_each_task(loaded: Config) -> None:
    some = found(loaded, Workers(consumers={"celery": 1, "slow": 1}, exchanges={"x": True}))
    assert [one for one in some if one.startswith("task ")] == []
    assert some["workers of one"].detail == "no worker answers"
    assert some["queue celery on one"].detail == "1 consumer"


def test_a_broker_that_fails_or_is_dead(loaded: Config) -> None:
    some = found(loaded, Workers("no answer within 20 s"))
    assert set(some) == {"workers of one", "workers of two"}
    assert not any(one.ok for one in some.values())
    some = found(loaded, Workers("", WORKER), dead=("one",))
    assert {subject.rpartition(" ")[2] for subject in some} == {"two"}


def test_the_task_for_what_is_incomplete_is_asked_for_too(tmp_path: Path) -> None:
    options = "'task': 'load', 'complete': 'gzip', 'incomplete_task': 'broken'"
    loaded = Site(tmp_path).load(CONFIG.replace("'task': 'load'", options, 1))
    some = found(loaded, Workers("", WORKER, {}, {"slow": 2, "celery": 1}, {"x": True}))
    assert some["task broken on one"].detail == "no worker that answers knows it"
    assert not some["task broken on one"].ok
