"""Each state of a delivery in words, with what it waits for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

import pytest

from watchman.commands.timeline import DaemonNow, Event, Way, timeline
from watchman.journal.acts import RESENT, RETRIED, Act
from watchman.journal.bundles import Membership
from watchman.journal.record import Record
from watchman.model import Delivery, Hold, HoldKind, State, Version
from watchman.mover.obstacles import Obstacle, describe, directories_of, file_of
from watchman.status import Snapshot
from watchman.text import moment

RECORD = Record(
    *(7, "id-7", "/up/a.csv", "/store/a.csv", Version(1, 2, 1_234_567, 3), 1000, "b", "task"),
    *("files", State.SENT, 3000, ""),
)
WAY = Way("/up", "/up/*.csv", {"b": None})
ACTIVE, STOPPED = DaemonNow(True, None), DaemonNow(False, None)


def told(record: Record = RECORD, way: Way = WAY, now: DaemonNow = ACTIVE) -> list[str]:
    return [event.what for event in timeline(record, [], way, None, now)]


def test_what_was_sent() -> None:
    assert timeline(RECORD, [], WAY, None, ACTIVE) == [
        Event(1000, "complete, 1.2 MB: delivery 7"),
        Event(None, "in the watch /up"),
        Event(None, "pattern /up/*.csv: task task on broker b"),
        Event(None, "moved to /store/a.csv"),
        Event(3000, "sent as id-7", "sent"),
    ]


SNAPSHOT = {
    "brokers": {"b": {"trouble": "refused: no\nroute", "since_ns": 0, "last_sent_ns": 0}},
    "moves": [
        {"source": "/up", "root": "/store", "waiting": 1, "stuck_since_ns": 10**18,
         "reason": "no space", "troubles": [], "copies": []},
        {"source": "/x", "root": "/sto", "waiting": 1, "stuck_since_ns": 0,
         "reason": "another", "troubles": [], "copies": []},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "reason", "now", "last"),
    [
        (State.MOVED, "", ACTIVE, "moved to /store/a.csv"),
        (
            State.FAILED,
            "refused",
            ACTIVE,
            "failed: refused; mend the cause, then 'notify retry 7' or 'notify discard 7'",
        ),
        (State.VANISHED, "replaced", ACTIVE, "vanished: replaced"),
        (State.VANISHED, "discarded by anna", ACTIVE, "discarded by anna"),
        (State.MOVING, "", ACTIVE, "waits to be moved to /store/a.csv"),
        (
            State.MOVING,
            "",
            STOPPED,
            "waits to be moved to /store/a.csv; watchman is not running: 'notify start'",
        ),
        (State.READY, "", ACTIVE, "waits for broker b"),
        (State.READY, "not taken yet: away", ACTIVE, "waits for broker b: not taken yet: away"),
        (State.READY, "", STOPPED, "waits for broker b; watchman is not running: 'notify start'"),
    ],
)
def test_the_end_of_each(state: State, reason: str, now: DaemonNow, last: str) -> None:
    assert told(RECORD._replace(state=state, reason=reason), now=now)[-1] == last


def test_what_waits_for_a_part_of_its_set_and_what_has_failed_with_one() -> None:
    for state, why in ((State.MOVING, "has yet to be moved"), (State.FAILED, "has failed")):
        together = Membership("id", "set", 2, None, ("/up/b.csv", state))
        ready = RECORD._replace(state=State.READY)
        found = [one.what for one in timeline(ready, [], WAY, None, STOPPED, together=together)]
        assert found[-1] == f"waits for /up/b.csv, a part of its set, which {why}"
    failed = RECORD._replace(state=State.FAILED, reason="a part of its set, b: gone")
    assert told(failed)[-1] == (
        "failed: a part of its set, b: gone; run 'notify retry 7' to have the set sent without "
        "that, or drop it with 'notify discard 7'"
    )
    failed = RECORD._replace(state=State.FAILED, reason="the main file of its set, b: gone")
    assert told(failed)[-1] == (
        "failed: the main file of its set, b: gone; upload the set again, and drop this with "
        "'notify discard 7'"
    )


def test_the_daemon_says_why_it_waits() -> None:
    now = DaemonNow(True, cast("Snapshot", SNAPSHOT))
    assert told(RECORD._replace(state=State.READY), now=now)[-1] == (
        "waits for broker b because refused: no\\x0aroute"
    )
    assert told(RECORD._replace(state=State.MOVING), now=now)[-1] == (
        f"waits to be moved to /store/a.csv since {moment(10**18)} because no space"
    )


def test_what_holds_up_another_move_to_the_same_place_is_no_reason() -> None:
    moves = [
        {"source": "/other", "root": "/store", "stuck_since_ns": 10**18, "reason": "it is away",
         "troubles": []},
        {"source": "/up", "root": "/store", "stuck_since_ns": None, "reason": "", "troubles": []},
    ]  # fmt: skip
    now = DaemonNow(True, cast("Snapshot", {**SNAPSHOT, "moves": moves}))
    moving = RECORD._replace(state=State.MOVING)
    assert told(moving, now=now)[-1] == "waits to be moved to /store/a.csv"
    # Of what no entry means any more, the place is all that is known.
    older = moving._replace(source="/old/a.csv")
    assert told(older, now=now)[-1].endswith(" because it is away")


@pytest.mark.parametrize("where", ["", "/store/sub"])
@pytest.mark.parametrize("of", [directories_of, file_of])
def test_what_holds_up_its_directory_or_itself_is_why_it_waits(
    of: Callable[[Delivery], str], where: str
) -> None:
    def waits(source: str, final: str) -> str:
        row = Delivery(1, "id", source, final, Version(1, 2, 3, 4), 1, None, State.MOVING)
        error = PermissionError(errno.EACCES, "Permission denied", where or None)
        obstacle = Obstacle(describe(error, of(row)), "let it in", errno.EACCES)
        move = {**cast("Any", SNAPSHOT)["moves"][0], "reason": "", "stuck_since_ns": None}
        moves = [{**move, "troubles": [[10**18, obstacle.told]]}]
        now = DaemonNow(True, cast("Snapshot", {**SNAPSHOT, "moves": moves}))
        return told(RECORD._replace(state=State.MOVING), now=now)[-1]

    because = f"waits to be moved to /store/a.csv since {moment(10**18)} because Permission denied"
    assert waits("/up/a.csv", "/store/a.csv").startswith(because)
    assert waits("/up/x/b.csv", "/store/x/b.csv") == "waits to be moved to /store/a.csv"


@pytest.mark.parametrize(
    ("kind", "name", "keeps"),
    [
        (HoldKind.BROKER, "b", True),
        (HoldKind.BROKER, "c", False),
        (HoldKind.TASK, "task", True),
        (HoldKind.DIRECTORY, "/up", True),
        (HoldKind.DIRECTORY, "/u", False),
    ],
)
def test_what_is_held_says_by_whom(kind: HoldKind, name: str, keeps: bool) -> None:
    now = ACTIVE._replace(holds=(Hold(1, kind, name, 10**18, "anna"),))
    held = f"; held since {moment(10**18)} by anna: 'notify release'" if keeps else ""
    assert told(RECORD._replace(state=State.READY), now=now)[-1] == f"waits for broker b{held}"


def test_what_the_configuration_says_now() -> None:
    assert told(way=Way(None, None, {}))[1] == "a pattern that is no more: task task on broker b"
    assert told(way=Way(None, None, None))[1] == "task task on broker b"
    ready = RECORD._replace(state=State.READY)
    assert (
        told(ready, Way(None, None, {}))[-1]
        == "waits for broker b, which is not in BROKERS any more"
    )
    assert told(RECORD._replace(task=None))[2] == "no pattern matches: no task"


def test_what_operators_did_and_what_came_later_is_in_its_place() -> None:
    acts = [Act(7, 2000, RETRIED, "anna"), Act(7, 5000, RESENT, "bert", 9)]
    later = RECORD._replace(seq=8, arrived_ns=4000)
    found = timeline(RECORD, acts, WAY, later, ACTIVE)
    assert [(event.at_ns, event.what) for event in found[3:]] == [
        (2000, "tried again by anna"),
        (None, "moved to /store/a.csv"),
        (3000, "sent as id-7"),
        (4000, "superseded by a later upload, delivery 8"),
        (5000, "a second task by bert: delivery 9"),
    ]
    second = timeline(RECORD._replace(seq=9), [acts[1]], WAY, None, ACTIVE)
    assert second[0] == Event(1000, "a second task for delivery 7, by bert: delivery 9")


def of_incomplete(record: Record, way: Way = WAY) -> list[str]:
    return [event.what for event in timeline(record, [], way, None, ACTIVE, None, "it is empty")]


def test_what_was_not_whole_is_not_called_complete() -> None:
    moved = RECORD._replace(task=None, broker=None, state=State.MOVING)
    assert of_incomplete(moved, Way("/up", None, {})) == [
        "incomplete, 1.2 MB: delivery 7",
        "in the watch /up",
        "not whole: it is empty",
        "no task",
        "waits to be moved to /store/a.csv",
    ]
    assert of_incomplete(RECORD)[3] == "pattern /up/*.csv: task task on broker b"
    other = Way("/up", None, {"b": None})
    assert of_incomplete(RECORD, other)[3] == "'incomplete_task': task task on broker b"


def test_a_file_that_alone_cannot_be_moved_has_its_own_reason() -> None:
    move: dict[str, Any] = {
        "source": "/up",
        "root": "/store",
        "stuck_since_ns": None,
        "reason": "",
        "copies": [],
    }
    troubles = [[10**18, "no space: /up/b.csv to /store/b.csv"]]
    snapshot = cast("Snapshot", {"brokers": {}, "moves": [{**move, "troubles": troubles}]})
    now = DaemonNow(True, snapshot)
    moving = RECORD._replace(state=State.MOVING)
    assert told(moving, now=now)[-1] == "waits to be moved to /store/a.csv"
    other = moving._replace(source="/up/b.csv", final="/store/b.csv")
    assert told(other, now=now)[-1] == (
        f"waits to be moved to /store/b.csv since {moment(10**18)} "
        "because no space: /up/b.csv to /store/b.csv"
    )
