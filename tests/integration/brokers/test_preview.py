"""Where a route's messages would go: by Celery itself, and nothing is sent."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Exchange, Queue

from watchman.brokers import preview
from watchman.brokers.capture import Preview
from watchman.model import Broker, Route

ROUTES = {"exact": {"queue": "q1"}, "im*": {"queue": "q2"}, "other": {"priority": 1}}
TOPIC = Queue("bound", Exchange("topics", type="topic"), routing_key="a.#")


@pytest.mark.parametrize(
    "url", ["amqp://u:p@127.0.0.1:9//", "redis://127.0.0.1:9/0", "filesystem://"]
)
@pytest.mark.parametrize(
    ("task", "options", "celery", "expected"),
    [
        ("t", {}, {}, "celery"),
        ("t", {}, {"task_default_queue": "d"}, "d"),
        ("t", {}, {"CELERY_DEFAULT_QUEUE": "d"}, "d"),
        ("exact", {}, {"task_routes": ROUTES}, "q1"),
        ("import", {}, {"CELERY_ROUTES": ROUTES}, "q2"),
        ("import", {}, {"task_routes": [{"x": {"queue": "y"}}, list(ROUTES.items())]}, "q2"),
        ("other", {}, {"task_routes": ROUTES}, "celery"),
        ("exact", {"queue": "own"}, {"task_routes": ROUTES}, "own"),
        ("t", {}, {"task_routes": lambda *_, **__: {"queue": "f"}}, "f"),
        ("t", {"exchange": "x", "routing_key": "k"}, {}, "exchange 'x', routing key 'k'"),
        ("t", {"queue": "bound"}, {"task_queues": [TOPIC]}, "bound"),
    ],
)
def test_the_target(
    url: str, task: str, options: dict[str, Any], celery: dict[str, Any], expected: str
) -> None:
    found = preview(Broker("b", (url,)), celery, Route("b", task, options=options))
    assert (found.text(), found.problem) == (expected, "")


@pytest.mark.parametrize(
    ("options", "celery", "problem"),
    [
        ({"serializer": "nope"}, {}, "SerializerNotInstalled: No encoder installed for nope"),
        ({"compression": "nope"}, {}, "nope"),
        ({}, {"task_routes": ["nowhere_site.R"]}, "ModuleNotFoundError: No module named 'nowhere_"),
        (
            {"queue": "z"},
            {"task_create_missing_queues": False},
            "QueueNotFound: \"Queue 'z' missing from task_queues\"",
        ),
    ],
)
def test_why_there_would_be_none(
    options: dict[str, Any], celery: dict[str, Any], problem: str
) -> None:
    found = preview(
        Broker("b", ("redis://127.0.0.1:9/0",)), celery, Route("b", "t", options=options)
    )
    assert found == Preview(problem=found.problem)
    assert problem in found.problem


def test_a_url_that_kombu_refuses() -> None:
    found = preview(Broker("b", ("redis://h/0?nope=1",)), {}, Route("b", "t"))
    assert "nope" in found.problem
