"""What ``notify status`` shows as wrong says what to do about it."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT
from tests.unit.test_docs import said
from watchman.model import State
from watchman.mover.obstacles import WHOLE, Obstacles
from watchman.pipeline import unseen, unwatched
from watchman.pipeline.destinations import Destinations
from watchman.sender.targets import PausedTargets
from watchman.status import broker_trouble, status_file
from watchman.status.overview import Now, compose
from watchman.troubles import Troubles

PASSED_ON = {
    "pipeline/unwatched.py": "tested below",
    "pipeline/destinations.py": "tested below",
    "pipeline/unseen.py": "tested below",
    "pipeline/pipeline.py": "hanging.describe() names umount",
}
"""Where a message comes from elsewhere."""
GOOD: dict[str, Any] = dict.fromkeys(status_file.Snapshot.__required_keys__, ())


def told(function: ast.FunctionDef, argument: ast.expr) -> str:
    """Return the text of a message, where a function makes it."""
    if isinstance(argument, ast.Name):
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == argument.id
        ]
        argument = assigned[-1] if assigned else argument
    if isinstance(argument, ast.JoinedStr):
        # A part of the message may have been made before it.
        parts = (p.value for p in argument.values if isinstance(p, ast.FormattedValue))
        inner = [told(function, part) for part in parts if isinstance(part, ast.Name)]
        return f"{said(argument)} {' '.join(inner)}"
    return said(argument) or ""


def begun() -> Iterator[tuple[str, str]]:
    """Yield the module and the text of each trouble and note."""
    for path in sorted((ROOT / "watchman").rglob("*.py")):
        module = str(path.relative_to(ROOT / "watchman"))
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(
                        ("troubles.begin", "_found.begin")
                    ):
                        yield module, told(function, call.args[1])


def test_each_trouble_and_note_has_a_remedy() -> None:
    found = list(begun())
    assert len(found) > 15
    without = [
        (module, text)
        for module, text in found
        # An error of ours, which is all of the text, has its own.
        if module not in PASSED_ON and ";" not in text and not text.strip().endswith(": X")
    ]
    assert without == []


def test_so_has_each_that_stands_in_the_way_of_a_move() -> None:
    obstacles = Obstacles("/up", "/store")
    for code in errno.errorcode:
        for key in (WHOLE, "/up\0/store", "/up/a\0/store/a\0"):
            told = obstacles.add(key, OSError(code, os.strerror(code), "/store")).told
            reason, _, remedy = told.rpartition("; ")
            assert errno.errorcode[code] in reason
            assert len(remedy.split()) > 2


def test_so_has_each_directory_that_is_not_watched() -> None:
    for code in errno.errorcode:
        troubles = Troubles()
        unwatched.Unwatched(troubles).say("/up", OSError(code, os.strerror(code)))
        [trouble] = troubles.all()
        assert len(trouble.message.rpartition("; ")[2].split()) > 2


def test_so_has_what_cannot_be_looked_at() -> None:
    for code in errno.errorcode.keys() - {errno.EAGAIN}:  # which is not told
        reason, _, remedy = unseen._why(code).rpartition("; ")
        assert reason
        assert len(remedy.split()) > 2


@pytest.mark.parametrize("make", [Path.touch, None])
def test_so_has_a_destination_that_is_none(tmp_path: Path, make: Any) -> None:
    root = tmp_path / "store"
    if make is not None:
        make(root)
    troubles = Troubles()
    destinations = Destinations([("/up", str(root))], troubles)
    destinations.look_at_mounts()
    destinations.check()
    [trouble] = troubles.all()
    assert trouble.message.rpartition("; ")[2].startswith(("create it", "put one there"))


def test_so_has_a_queue_that_takes_nothing() -> None:
    paused = PausedTargets("lizard")
    for number in range(30):
        assert paused.not_taken(f"queue {number}", "it is full", number, progress=False)
    assert all("; see to it at the broker" in reason for _, reason, _ in paused.troubles())


def test_so_has_a_broker_that_takes_none() -> None:
    broker: status_file.ShownBroker = {
        "trouble": "Connection refused",
        "since_ns": 5,
        "last_sent_ns": 0,
        "rate": 0.0,
    }
    shown = {**GOOD, "run_ns": 7, "brokers": {"lizard": broker}}
    shown |= dict.fromkeys(("beat_ns", "beat_monotonic_ns", "last_arrival_ns"), 7)
    now = Now(8, 8, 7, answered=True)
    failed = {("lizard", State.FAILED): (2, 3)}
    status = compose((1, 1), status_file.understood(shown), failed, (0, 0), now)
    assert [message for _, _, message in status.troubles] == [
        "2 have failed: 'notify failed' tells why; then 'notify retry' or 'notify discard'",
        broker_trouble("lizard", broker)["message"],
    ]
    assert "'notify check' tries it" in status.troubles[1][2]
