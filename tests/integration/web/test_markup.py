"""What those need who do not see the page: names of fields and parts, and headings in order."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.integration.pipeline.test_status import NOW, WATCH, compose
from tests.integration.web.test_pages import STRAY, Tags
from tests.running import config_for
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, State, Version
from watchman.status.overview import HeldTasks
from watchman.web.access import Access
from watchman.web.flask_app import create_app
from watchman.web.observed import Observer

COPY = {"source": "/a", "final": "/b", "done": 1, "total": 2, "rate": 1.0, "eta_s": None}
MOVE = {"source": "/up", "root": "/store", "waiting": 1, "stuck_since_ns": NOW, "reason": "full"}
SCAN = {"paths": ["/up"], "first_run": True, "since_ns": NOW, "listed": 2, "listing": True}
TOLD: dict[str, Any] = {
    "notes": [{"subject": "/up", "message": "no task", "since_ns": NOW}],
    "moves": [{**MOVE, "troubles": [], "rate": 0.0, "eta_s": None, "copies": [COPY]}],
    "scans": [{**SCAN, "new": 2, "done": 1, "rate": 1.0, "eta_s": None}],
    "incomplete": 1,
    "being_written": [{"path": STRAY, "since_ns": NOW}],
    "partial": 2,
    "oldest_partial": [{"path": "/up/x", "since_ns": NOW, "reason": "cut"}],
    "being_read": [{"path": "/up/y", "since_ns": NOW, "asked": ["gzip"]}],
    "watches": [WATCH, {**WATCH, "directories": 0}],
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """Pages with something in each of their parts."""
    config = config_for(tmp_path / "up", tmp_path)
    journal = Journal(config.state_dir)
    new = NewDelivery("id", STRAY, "/store/a", Version(1, 2, 3, 4), NOW, Route("b", "t"))
    journal.record([new])
    journal.note([(1, State.FAILED, "refused")])
    journal.close()
    held = [HeldTasks("task", "t", NOW, "anna", 1, NOW, {"b": 1})]
    seen = Observer(config).overview()
    told = compose((7, NOW), **TOLD)
    seen = seen._replace(now_ns=NOW, status=replace(told, held=held))
    monkeypatch.setattr(Observer, "overview", lambda _: seen)
    return create_app(config, Access(None)).test_client()


@pytest.mark.parametrize("path", ["/", "/files?q=x", "/files", "/files/1", "/files?since=x", "/no"])
def test_all_that_is_used_has_a_name(client: FlaskClient, path: str) -> None:
    tags = Tags(client.get(path)).tags
    ids = Counter(attributes["id"] for _, attributes in tags if "id" in attributes)
    assert [one for one, number in ids.items() if number > 1] == []
    named = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    for tag, attributes in tags:
        if tag in {"input", "select"}:
            assert attributes.get("aria-label") or attributes["id"] in named, attributes
        if tag in {"section", "nav"}:
            assert attributes.get("aria-label") or ids[attributes["aria-labelledby"]], attributes
    levels = [int(tag[1]) for tag, _ in tags if tag in {f"h{level}" for level in range(1, 7)}]
    assert levels.count(1) == 1
    assert all(level <= before + 1 for before, level in itertools.pairwise(levels))


def test_each_part_of_the_first_page_is_there(client: FlaskClient) -> None:
    """Else the other test looks at less than there is."""
    ids = {attributes.get("id") for _, attributes in Tags(client.get("/")).tags}
    parts = "state troubles activity brokers moves progress partial being-read held watches notes"
    assert ids >= {*parts.split(), "failed", "latest"}
