"""Once a trouble, not once a file; and whatever a hook does, nobody waits for it."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.monitoring.receiver import Event
from tests.integration.pipeline.test_status import snapshot
from tests.running import config_for
from tests.waiting import wait_until
from watchman.errors import JournalError
from watchman.model import Config, Delivery, Hook, Route, State, Version
from watchman.monitoring import hook_thread, hooks
from watchman.monitoring.hooks import FAILED, RECOVERED, TROUBLE, Hooks
from watchman.troubles import Troubles

SETTINGS = (FAILED, TROUBLE, RECOVERED)


@pytest.fixture
def told() -> dict[str, list[Event]]:
    return {setting: [] for setting in SETTINGS}


@pytest.fixture
def config(tmp_path: Path, told: dict[str, list[Event]]) -> Config:
    found = {name: Hook(name, f"the function {name}", function=told[name].append) for name in told}
    return config_for(tmp_path / "up", tmp_path / "state", hooks=found)


@pytest.fixture
def own() -> Troubles:
    return Troubles()


def no_reasons(_: Sequence[int]) -> dict[int, str]:
    return {}


@pytest.fixture
def made(own: Troubles, config: Config, quick: None) -> Iterator[Hooks]:
    found = Hooks(own)
    found.begin(config, no_reasons)
    yield found
    found.close()


def look(made: Hooks, *subjects: str, **changes: Any) -> None:
    troubles = [{"subject": name, "message": f"{name}!", "since_ns": 1} for name in subjects]
    made.look_at(snapshot(troubles=troubles, **{"brokers": {}, **changes}))


def delivery(seq: int) -> Delivery:
    route = Route("b", "task")
    version = Version(1, seq, 3, 4)
    path = f"/up/{seq}"
    return Delivery(seq, f"id {seq}", path, path, version, 1_000_000_000, route, State.READY)


def wait_for(events: list[Event], number: int) -> None:
    wait_until(lambda: len(events) >= number, what=f"{number} events")


def test_a_trouble_is_told_once_and_once_when_it_is_over(
    made: Hooks, config: Config, told: dict[str, list[Event]]
) -> None:
    for _ in range(3):
        look(made, "/up", "/other")
    wait_for(told[TROUBLE], 2)
    look(made, "/other")
    wait_for(told[RECOVERED], 1)
    look(made, "/other", "/up")
    wait_for(told[TROUBLE], 3)
    [event] = told[RECOVERED]
    assert (event["event"], event["subject"], event["message"]) == ("recovered", "/up", "/up!")
    assert event["since"] == "1970-01-01T00:00:00+00:00"
    assert event["state_dir"] == config.state_dir
    assert (event["left_out"], bool(event["time"]), bool(event["host"])) == (0, True, True)
    assert {one["subject"] for one in told[TROUBLE][:2]} == {"/up", "/other"}
    assert told[TROUBLE][2]["subject"] == "/up"


def test_brokers_and_moves_have_troubles_too(made: Hooks, told: dict[str, list[Event]]) -> None:
    broker = {"trouble": "refused", "since_ns": 2_000_000_000, "last_sent_ns": 0}
    move = {"source": "/up", "root": "/s", "waiting": 1, "stuck_since_ns": 5, "reason": "full"}
    move |= {"troubles": [], "copies": []}
    look(made, brokers={"b": broker, "c": {**broker, "trouble": ""}}, moves=[move])
    wait_for(told[TROUBLE], 2)
    found = {one["subject"]: one["message"] for one in told[TROUBLE]}
    assert found.keys() == {"broker b", "moving /up to /s"}
    assert found["broker b"].startswith("refused; see that it runs")
    assert found["moving /up to /s"] == "full"
    look(made)
    wait_for(told[RECOVERED], 2)


def test_a_broker_that_is_down_is_told_beside_its_queues(
    made: Hooks, told: dict[str, list[Event]]
) -> None:
    """Those beyond the first few are a trouble that bears the broker's name."""
    look(made, "broker b")
    wait_for(told[TROUBLE], 1)
    broker = {"trouble": "refused", "since_ns": 2_000_000_000, "last_sent_ns": 0}
    look(made, "broker b", brokers={"b": broker})
    wait_for(told[TROUBLE], 2)
    assert [one["subject"] for one in told[TROUBLE]] == ["broker b"] * 2
    assert told[TROUBLE][1]["message"].startswith("refused; ")
    look(made, "broker b")
    wait_for(told[RECOVERED], 1)
    assert told[RECOVERED][0]["message"].startswith("refused; ")


def test_two_troubles_of_one_subject_are_told_each(
    made: Hooks, told: dict[str, list[Event]]
) -> None:
    """A log with lines that nobody understands may be gone as well."""

    def see(*kinds: str) -> None:
        troubles = [
            {"subject": "/log", "message": kind, "since_ns": 1, "kind": kind} for kind in kinds
        ]
        made.look_at(snapshot(troubles=troubles, brokers={}))

    see("garbage")
    wait_for(told[TROUBLE], 1)
    see("garbage", "missing")
    wait_for(told[TROUBLE], 2)
    see("garbage")
    wait_for(told[RECOVERED], 1)
    assert [one["message"] for one in told[TROUBLE]] == ["garbage", "missing"]
    assert [one["message"] for one in told[RECOVERED]] == ["missing"]


def test_what_holds_up_single_files_of_a_move_is_told_too(
    made: Hooks, told: dict[str, list[Event]]
) -> None:
    """Once for all of them, and apart from what holds up everything."""
    move = {"source": "/up", "root": "/s", "waiting": 3, "stuck_since_ns": None, "reason": ""}
    move |= {"troubles": [[10**9, "/up/a: refused"], [2 * 10**9, "/up/b: refused"]], "copies": []}
    look(made, brokers={}, moves=[move])
    wait_for(told[TROUBLE], 1)
    look(made, brokers={}, moves=[{**move, "troubles": [[2 * 10**9, "/up/b: refused"]]}])
    look(made, moves=[{**move, "stuck_since_ns": 5, "reason": "full"}])
    wait_for(told[TROUBLE], 2)
    first, second = told[TROUBLE]
    assert (first["subject"], second["subject"]) == ("moving /up to /s",) * 2
    assert first["message"] == "/up/a: refused; 'notify status' names more"
    assert second["message"] == "full"
    assert first["since"] == "1970-01-01T00:00:01+00:00"
    look(made, moves=[{**move, "troubles": []}])
    wait_for(told[RECOVERED], 2)
    assert len(told[TROUBLE]) == 2


def test_a_reload_is_no_recovery(
    made: Hooks, config: Config, told: dict[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(made, "stays", "ends", "late")
    wait_for(told[TROUBLE], 3)
    made.begin(config, no_reasons)
    look(made)  # the new pipeline has found nothing yet
    look(made, "stays", "ends")
    look(made, "stays")
    wait_for(told[RECOVERED], 1)
    assert [one["subject"] for one in told[RECOVERED]] == ["ends"]
    # What it does not find for long is over.
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 1000)
    look(made, "stays")
    wait_for(told[RECOVERED], 2)
    assert told[RECOVERED][1]["subject"] == "late"
    assert len(told[TROUBLE]) == 3


def test_failures_are_gathered(made: Hooks, config: Config, told: dict[str, list[Event]]) -> None:
    made.begin(config, lambda seqs: {seq: f"why {seq}" for seq in seqs})
    for start in range(1, 2001, 100):
        made.failed([delivery(seq) for seq in range(start, start + 100)])
    wait_for(told[FAILED], 1)
    made.failed([delivery(9999)])
    wait_for(told[FAILED], 2)
    first, second = told[FAILED]
    assert (first["count"], second["count"]) == (2000, 1)
    assert [one["id"] for one in first["deliveries"]] == list(range(1, 11))
    assert second["deliveries"] == [
        {
            "id": 9999,
            "source": "/up/9999",
            "final": "/up/9999",
            "broker": "b",
            "task": "task",
            "task_id": "id 9999",
            "arrived": "1970-01-01T00:00:01+00:00",
            "reason": "why 9999",
        }
    ]


def test_without_its_journal_a_failure_is_told_without_its_reason(
    made: Hooks, config: Config, told: dict[str, list[Event]]
) -> None:
    def closed(_: Sequence[int]) -> dict[int, str]:
        raise JournalError("it is closed")

    made.begin(config, closed)
    made.failed([delivery(1)])
    wait_for(told[FAILED], 1)
    assert told[FAILED][0]["deliveries"][0]["reason"] == ""


def test_what_is_gathered_is_told_at_the_end(
    own: Troubles, config: Config, told: dict[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "GATHER", 3600.0)
    made = Hooks(own)
    made.begin(config, no_reasons)
    made.failed([delivery(1)])
    made.close()
    assert [one["count"] for one in told[FAILED]] == [1]


def replaced(config: Config, setting: str, function: Callable[[Event], object]) -> Config:
    hook = Hook(setting, "the function f", function=function)
    return dataclasses.replace(config, hooks={**config.hooks, setting: hook})


def test_one_that_hangs_holds_up_nobody_and_floods_nothing(
    made: Hooks, own: Troubles, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_thread, "LIMIT", 0.5)
    go_on, events = threading.Event(), []

    def hanging(event: Event) -> None:
        events.append(event)
        assert go_on.wait(60)

    made.begin(replaced(config, TROUBLE, hanging), no_reasons)
    subjects: list[str] = []
    begun = time.monotonic()
    for number in range(300):
        subjects.append(f"trouble {number}")
        look(made, *subjects)
    assert time.monotonic() - begun < 5

    def said() -> bool:
        look(made, *subjects)
        return len(own.all()) == 2

    wait_until(said, what="it is said")
    messages = sorted(one.message for one in own.all())
    assert messages[0].startswith("100 events wait for it already")
    assert messages[1].startswith("the function f has not come back for 0 s")
    go_on.set()
    wait_for(events, 101)
    wait_until(lambda: not own.all(), what="it is over")
    # The next call says how many it does not know of; the thread may have been slow to begin.
    left_out = [one["left_out"] for one in events]
    assert (sum(left_out[:2]), sum(left_out[2:])) == (199, 0)


@pytest.mark.parametrize("setting", [FAILED, TROUBLE])
def test_what_waits_for_one_that_hangs_is_told_by_the_next(
    made: Hooks, own: Troubles, config: Config, told: dict[str, list[Event]], setting: str
) -> None:
    """After a reload that corrects it; and then it goes on as if nothing had been."""
    go_on, called = threading.Event(), threading.Event()

    def hanging(_: Event) -> None:
        called.set()
        assert go_on.wait(60)

    def happens(number: int) -> None:
        if setting == FAILED:
            made.failed([delivery(number)])
        else:
            look(made, *map(str, range(number + 1)))

    def numbers() -> list[int]:
        if setting == FAILED:
            return [one["id"] for event in told[FAILED] for one in event["deliveries"]]
        return [int(event["subject"]) for event in told[TROUBLE]]

    made.begin(replaced(config, setting, hanging), no_reasons)
    happens(0)
    assert called.wait(10)
    happens(1)
    made.begin(config, no_reasons)
    wait_until(lambda: numbers() == [1])
    happens(2)
    wait_until(lambda: numbers() == [1, 2])
    # It comes back at last, and has nothing to say of the one that is called now.
    made.begin(replaced(config, setting, lambda _: 1 / 0), no_reasons)
    happens(3)
    wait_until(own.all)
    go_on.set()
    name = f"hook-{setting}"
    wait_until(lambda: sum(one.name == name for one in threading.enumerate()) == 1)
    assert [one.message for one in own.all()] == [
        "the function f: ZeroDivisionError: division by zero; correct it"
    ]
    made.begin(dataclasses.replace(config, hooks={}), no_reasons)
    made.begin(config, no_reasons)
    happens(4)
    wait_until(lambda: numbers() == [1, 2, 4])


def test_one_that_fails_is_said_once(
    made: Hooks, own: Troubles, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Event] = []

    def failing(event: Event) -> None:
        calls.append(event)
        if len(calls) < 4:
            raise SystemExit("no\nreason")

    made.begin(replaced(config, TROUBLE, failing), no_reasons)
    for number in range(3):
        look(made, f"{number}")
    wait_for(calls, 3)
    wait_until(own.all)
    assert [(one.subject, one.message) for one in own.all()] == [
        ("hook ON_TROUBLE", "the function f: SystemExit: no reason; correct it")
    ]
    # That is no trouble that it would be told of.
    look(made, "2", "hook ON_TROUBLE")
    look(made, "last")
    wait_for(calls, 4)
    wait_until(lambda: not own.all())
    assert [one["subject"] for one in calls] == ["0", "1", "2", "last"]
    said = [line.getMessage() for line in caplog.records if "hook ON_TROUBLE" in line.getMessage()]
    assert len(said) == 2
    assert said[1] == "hook ON_TROUBLE works again"


def test_the_end_does_not_wait_for_one_that_hangs(
    made: Hooks, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, called = threading.Event(), threading.Event()

    def hanging(_: Event) -> None:
        called.set()
        assert go_on.wait(60)

    made.begin(replaced(config, TROUBLE, hanging), no_reasons)
    look(made, "x")
    assert called.wait(10)
    monkeypatch.setattr(hooks, "END", 0.3)
    begun = time.monotonic()
    made.close()
    assert time.monotonic() - begun < 5
    go_on.set()


_UNTIL_TOLD = """import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with open(sys.argv[1], "a", buffering=1) as told:
    told.write(f"{os.getpid()}\\n")
    signal.sigwait([signal.SIGTERM])
    told.write("over\\n")
"""


def begun(made: Hooks, config: Config, path: Path) -> None:
    """Have ON_TROUBLE run a command that writes its number into a file, and waits for SIGTERM."""
    argv = (sys.executable, "-c", _UNTIL_TOLD, str(path))
    hook = Hook(TROUBLE, "the command c", command=argv)
    made.begin(dataclasses.replace(config, hooks={TROUBLE: hook}), no_reasons)
    look(made, "1", "2", "3")
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what="it runs")


def test_nothing_is_begun_after_the_end(
    made: Hooks, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines"
    begun(made, config, lines)
    [thread] = [one for one in threading.enumerate() if one.name == f"hook-{TROUBLE}"]
    monkeypatch.setattr(hooks, "END", 0.1)
    made.close()
    # Nobody would end what it began now.
    thread.join(10)
    assert not thread.is_alive()
    assert len(lines.read_text().splitlines()) == 1


def test_an_end_kills_no_command_of_others(
    made: Hooks, own: Troubles, config: Config, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    begun(made, config, lines)
    # As in a process that was forked: there its number may be anybody's.
    Hooks(own).close()
    os.kill(int(lines.read_text()), signal.SIGTERM)
    wait_until(lambda: "over" in lines.read_text(), what="it goes on")


def test_nothing_is_started_for_nothing(own: Troubles, config: Config) -> None:
    before = threading.active_count()
    made = Hooks(own)
    made.begin(dataclasses.replace(config, hooks={}), no_reasons)
    look(made, "x")
    look(made)
    made.failed([delivery(1)])
    assert threading.active_count() == before
    made.close()
