"""What is made of the snapshot, the lock's holder and the journal's counts."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from watchman import replacement, status
from watchman.errors import WatchmanError
from watchman.model import State
from watchman.status import Snapshot, overview
from watchman.status.lines import Style, as_text
from watchman.status.overview import HeldTasks, Now, Status, as_json

SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND
UP, RUN = 500 * SECOND, 17
"""The monotonic clock, and what tells the run."""
AT = Now(NOW, UP, RUN)
COUNTS = {("b", State.READY): (2, NOW - 90 * SECOND), ("", State.MOVED): (1, NOW - SECOND)}


WATCH: status.ShownWatch = {
    "path": "/up/ü\udcff",
    "kind": "files",
    "method": "inotify",
    "handler": "x.Y",
    "directories": 3,
}


def snapshot(**changes: Any) -> Snapshot:
    found: Snapshot = {
        "pid": 7,
        "started_ns": NOW - 100 * SECOND,
        "run_ns": RUN,
        "beat_ns": NOW - 10 * SECOND,
        "beat_monotonic_ns": UP - 10 * SECOND,
        "clock_set_ns": 0,
        "watching": True,
        "watches": [WATCH],
        "troubles": [
            {"subject": "/up/a\nb", "message": "Permission denied", "since_ns": NOW - 7200 * SECOND}
        ],
        "notes": [],
        "brokers": {
            "b": {
                "trouble": "refused",
                "since_ns": NOW - 60 * SECOND,
                "last_sent_ns": NOW - SECOND,
                "rate": 3.25,
            }
        },
        "moves": [],
        "last_arrival_ns": NOW - 5 * SECOND,
        "overflows": 1,
        "rates": {"in": 41.2, "out": 1234.5},
        "incomplete": 0,
        "being_written": [],
        "unjudged": 0,
        "partial": 0,
        "oldest_partial": [],
        "being_read": [],
        "scans": [],
    }
    found.update(changes)  # type: ignore[typeddict-item]  # — each test changes what it needs
    return found


def compose(process: tuple[int, int] | None, **changes: Any) -> Status:
    return overview.compose(process, snapshot(**changes), COUNTS, (0, 0), AT)


STARTED = NOW - 101 * SECOND


@pytest.mark.parametrize(
    ("process", "changes", "state"),
    [
        (None, {}, "inactive"),
        ((7, STARTED), {}, "active"),
        # In another container: only there is it the process 7.
        ((0, STARTED), {}, "active"),
        ((0, NOW - SECOND), {"run_ns": 16}, "starting"),
        ((7, STARTED), {"watching": False}, "starting"),
        ((7, STARTED), {"beat_monotonic_ns": UP - 44 * SECOND}, "active"),
        ((7, STARTED), {"beat_monotonic_ns": UP - 46 * SECOND}, "hung"),
        ((7, STARTED), {"beat_monotonic_ns": UP - 46 * SECOND, "watching": False}, "hung"),
        # The clock was set: that says nothing about the process.
        ((7, STARTED), {"beat_ns": NOW + 4600 * SECOND}, "active"),
        ((7, STARTED), {"beat_ns": NOW - 4600 * SECOND, "started_ns": NOW + SECOND}, "active"),
        ((7, NOW + 46 * SECOND), {"run_ns": 16}, "starting"),
        ((8, NOW - SECOND), {"run_ns": 16}, "starting"),
        ((8, NOW - 46 * SECOND), {"run_ns": 16}, "hung"),
        # The last run had the same pid, as in a container that was started again.
        ((7, NOW - SECOND), {"run_ns": 16}, "starting"),
        ((7, STARTED), {"watches": [{**WATCH, "directories": 0}]}, "waiting"),
        ((7, STARTED), {"watches": [{**WATCH, "directories": 0}, WATCH]}, "active"),
        ((7, STARTED), {"watches": []}, "waiting"),
    ],
)
def test_state(process: tuple[int, int] | None, changes: dict[str, Any], state: str) -> None:
    found = compose(process, **changes)
    assert found.state == state
    assert found.active == (state == "active")
    text = as_text(found, NOW)
    assert text.startswith(f"watchman is {state}")
    json.dumps(as_json(found, NOW))


def test_one_that_answers_does_not_hang() -> None:
    old = snapshot(beat_monotonic_ns=UP - 100 * SECOND)
    at = AT._replace(answered=True)
    assert overview.compose((7, STARTED), old, COUNTS, (0, 0), at).state == "active"


def test_who_opens_its_journal_for_long_is_not_told_to_begin_anew() -> None:
    """A journal of an older version, or a damaged one, takes minutes before there is any word."""
    found = compose((8, NOW - 60 * SECOND), run_ns=16)
    assert found.state == "hung"
    (headline, *_) = as_text(found, NOW).splitlines()
    assert headline.endswith(
        "; it does not watch yet: its log tells what it does; work on a large journal takes "
        "minutes, and a restart would begin it anew; if it does nothing, 'notify stop --kill'"
    )
    # It was damaged: the pipeline has ended, and there is no other before it is open again.
    ended = compose((7, STARTED), beat_monotonic_ns=UP - 46 * SECOND, watching=False)
    assert "it does not watch yet" in as_text(ended, NOW).splitlines()[0]
    silent = as_text(compose((7, STARTED), beat_monotonic_ns=UP - 46 * SECOND), NOW)
    assert "see its log, then 'notify restart'" in silent.splitlines()[0]


def test_what_was_given_up_has_not_vanished() -> None:
    counts = {("b", State.VANISHED): (1, NOW - SECOND)}
    given_up = {"b": (2, NOW - 2 * SECOND)}
    found = overview.compose(None, None, counts, (0, 0), AT, discarded=given_up)
    assert [(one.state, one.count) for one in found.deliveries] == [
        ("discarded", 2),
        ("vanished", 1),
    ]


def test_without_a_word_from_any_run() -> None:
    assert overview.compose(None, None, {}, (0, 0), AT).state == "inactive"
    assert overview.compose((7, NOW), None, {}, (0, 0), AT).state == "starting"
    text = as_text(overview.compose(None, None, {}, (0, 0), AT), NOW)
    assert "No deliveries yet" in text
    assert "Last sent:    never" in text


def test_what_is_wrong_comes_first() -> None:
    """A screen may be shorter than the report."""
    text = as_text(compose((7, STARTED)), NOW)
    assert text.index("Troubles") < text.index("Watches") < text.index("Deliveries")


def test_what_could_not_be_counted_is_not_said_to_be_none() -> None:
    found = dataclasses.replace(compose((7, STARTED)), counted=False)
    assert "nothing waits" not in as_text(found, NOW)
    assert as_json(found, NOW)["counted"] is False


def test_text_says_it_all() -> None:
    move = {
        "source": "/up",
        "root": "/dst",
        "waiting": 2,
        "stuck_since_ns": NOW - 3600 * SECOND,
        "reason": "No space left on device",
        "troubles": [[NOW - 2 * SECOND, "Is a directory: /dst/a"]],
        "rate": 0.5,
        "eta_s": 4.0,
        "copies": [
            {
                "source": "/up/a",
                "final": "/dst/a",
                "done": 1 << 29,
                "total": 1 << 31,
                "rate": 2.0**20,
                "eta_s": 1536.0,
            }
        ],
    }
    lines = as_text(compose((7, STARTED), moves=[move]), NOW).splitlines()

    def line(*words: str) -> str:
        (found,) = [line for line in lines if all(word in line for word in words)]
        return found

    assert "process 7, since" in lines[0]
    assert "(1 min ago)" in lines[0]
    assert line("/up/ü\\xff", "3 directories", "files, inotify", "x.Y")
    assert line("/up/a\\x0ab", "(2 h ago)", "Permission denied")
    assert line("broker b", "(1 min ago)", "refused")
    assert line("moving /up to /dst", "(1 h ago)", "No space left on device")
    assert line("moving /up to /dst", "(2 s ago)", "Is a directory: /dst/a")
    assert line("  b ", "ready", " 2 ", "(1 min ago)")
    assert line("(no task)", "moved", " 1 ", "(1 s ago)")
    assert line("Last arrival:", "(5 s ago)")
    assert line("Last sent:", "(1 s ago)")
    assert line("25 % of 2.1 GB, 1.0 MB/s, 25 min left", "/up/a → /dst/a")
    assert lines[1] == "1 watch · 41/s in, 1,234/s out · oldest waiting 1 min"
    assert line("  b ", "2 waiting", "oldest 1 min ago", "3.2/s", "takes no tasks for 1 min")
    assert line("/up → /dst", "2 waiting", "0.5/s", "stuck")


def test_what_is_under_way_is_shown() -> None:
    scan = {
        "paths": ["/up"],
        "first_run": True,
        "since_ns": NOW - 9 * SECOND,
        "listed": 1_200_000,
        "listing": True,
        "new": 30,
        "done": 20,
        "rate": 40_000.0,
        "eta_s": None,
    }
    reading: status.ShownReading = {
        "path": "/up/b\n.gz",
        "asked": ["gzip", "mine"],
        "since_ns": NOW - 130 * SECOND,
    }
    open_file = {"path": "/up/big\n", "since_ns": NOW - 130 * SECOND}
    held = [HeldTasks("task", "load", NOW - 3600 * SECOND, "anna", 2, NOW - 90 * SECOND, {"b": 2})]
    found = overview.compose(
        (7, STARTED),
        snapshot(scans=[scan], incomplete=12, being_written=[open_file], being_read=[reading]),
        COUNTS,
        (0, 0),
        AT,
        held=held,
    )
    text = as_text(found, NOW)
    assert (
        "the first run of /up: 1,200,000 files looked at so far, 20 of 30 new ones done, 40,000/s"
    ) in text
    assert "Being written, or not settled: 12 files\n  /up/big\\x0a  for 2 min\n" in text
    title = "Being read for long, to tell whether it is whole"
    assert f"{title}\n  /up/b\\x0a.gz  for 2 min  gzip, mine\n" in text
    [shown] = as_json(found, NOW)["being_read"]
    assert shown == {
        "path": "/up/b\n.gz",
        "asked": ["gzip", "mine"],
        "since": "2026-09-21T14:11:10+00:00",
    }
    assert "  task:load  2 tasks  1 h ago by anna" in text
    # What is held does not wait for anybody but the operator.
    assert text.splitlines()[1] == "1 watch · 41/s in, 1,234/s out · nothing waits · 2 held"
    assert "It does not answer now: what follows was true " in text
    plain = as_json(found, NOW)
    json.dumps(plain)
    assert plain["held"][0]["waiting"] == 2
    assert plain["scans"][0]["listed"] == 1_200_000


@pytest.mark.parametrize("kind", ["task", "broker"])
def test_what_may_be_more_is_said_to_be(kind: str) -> None:
    counts = {("b", State.READY): (9, NOW - 90 * SECOND)}
    about = "anna", 5, 0, {"b": 5}
    held = [HeldTasks("task", "load", NOW - SECOND, *about, or_more=True)]
    if kind == "broker":  # all of it is held, and counted
        held.append(HeldTasks("broker", "b", NOW - SECOND, "anna", 9, 0, {"b": 9}))
    found = overview.compose((7, STARTED), snapshot(), counts, (0, 0), AT, held=held)
    shown = "5 or more held" if kind == "task" else "9 held"
    text = as_text(found, NOW)
    assert text.splitlines()[1].endswith(f" · {shown}")
    assert f"  {shown}  " in text.partition("\nBrokers\n")[2]
    assert "  task:load  5 or more tasks  " in text
    assert as_json(found, NOW)["held"][0]["or_more"]


def test_what_waits_for_its_criteria_is_counted_and_named() -> None:
    one = {"path": "/up/half.gz\n", "since_ns": NOW - 130 * SECOND, "reason": "it ends early"}
    found = compose((7, STARTED), partial=1234, oldest_partial=[one])
    text = as_text(found, NOW)
    assert ("Not whole yet: 1,234 files\n  /up/half.gz\\x0a  for 2 min  it ends early\n") in text
    plain = as_json(found, NOW)
    assert plain["partial"] == 1234
    assert [waits["reason"] for waits in plain["oldest_partial"]] == ["it ends early"]
    assert "since" in plain["oldest_partial"][0]
    assert "'complete'" not in as_text(compose((7, STARTED)), NOW)


@pytest.mark.parametrize(
    ("oldest_ns", "shown"),
    [
        (0, "8 files to be checked"),
        (NOW - 90 * SECOND, "oldest waiting 1 min · 8 files to be checked"),
    ],
)
def test_what_has_yet_to_be_judged_waits_too(oldest_ns: int, shown: str) -> None:
    counts = {("b", State.READY): (1, oldest_ns)} if oldest_ns else {}
    found = overview.compose((7, STARTED), snapshot(unjudged=8), counts, (0, 0), AT)
    assert as_text(found, NOW).splitlines()[1].endswith(f" out · {shown}")
    assert as_json(found, NOW)["unjudged"] == 8


def test_on_a_screen_nothing_is_longer_than_it() -> None:
    watches = [{**WATCH, "path": f"/srv/{number}"} for number in range(30)]
    path = "/up/" + "x" * 150
    long = {"subject": path, "message": "y z " * 60, "since_ns": NOW - SECOND}
    waits = {"path": "/up/half", "reason": "y z " * 60, "since_ns": NOW - SECOND}
    found = compose(
        (7, STARTED), watches=watches, troubles=[long], partial=1, oldest_partial=[waits]
    )
    for width in (80, 120):
        text = as_text(found, NOW, Style(width, color=True))
        assert "\x1b[35mactive\x1b[0m" in text
        lines = re.sub("\x1b\\[\\d+m", "", text).splitlines()
        assert [line for line in lines if len(line) > width] == [f"  {path}"]
        assert "  and 20 more: 'notify status | less'" in lines
    assert "more:" not in as_text(found, NOW)


def test_failed_deliveries_are_a_trouble() -> None:
    counts = {("b", State.FAILED): (3, NOW - 90 * SECOND), ("", State.FAILED): (1, NOW)}
    found = overview.compose((7, STARTED), snapshot(), counts, (0, 0), AT)
    text = as_text(found, NOW).partition("Troubles")[2]
    assert "broker b" in text
    assert "3 have failed: 'notify failed' tells why" in text
    assert [one["subject"] for one in as_json(found, NOW)["troubles"][1:]] == [
        "moving without a task",
        "broker b",
    ]
    inactive = overview.compose(None, None, counts, (0, 0), AT)
    assert "3 have failed" in as_text(inactive, NOW)


def test_notes_are_shown_while_it_runs() -> None:
    note: status.ShownTrouble = {"subject": "/up", "message": "x\ny", "since_ns": NOW - SECOND}
    found = compose((7, STARTED), notes=[note])
    assert "  /up  since " in as_text(found, NOW).partition("\nNotes\n")[2]
    assert "x\\x0ay" in as_text(found, NOW)
    assert as_json(found, NOW)["notes"][0]["message"] == "x\ny"
    assert "Notes" not in as_text(compose(None, notes=[note]), NOW)


def test_old_news_are_not_told_of_an_inactive_one() -> None:
    text = as_text(compose(None), NOW)
    assert "refused" not in text
    assert "Permission denied" not in text
    assert "last seen" in text
    assert "ready" in text
    counts = {("b", State.FAILED): (3, NOW)}
    ended = overview.compose(None, snapshot(incomplete=2), counts, (0, 0), AT)
    nobody = dataclasses.replace(
        overview.compose(None, None, counts, (0, 0), AT),
        beat_ns=ended.beat_ns,
        last_arrival_ns=ended.last_arrival_ns,
        last_sent_ns=ended.last_sent_ns,
    )
    assert (ended.beat_ns, ended.last_arrival_ns) == (NOW - 10 * SECOND, NOW - 5 * SECOND)
    assert as_json(ended, NOW) == as_json(nobody, NOW)


def test_json_has_times_that_programs_read() -> None:
    found = as_json(compose((7, STARTED)), NOW)
    assert found["since"] == "2026-09-21T14:11:39+00:00"
    assert found["deliveries"][1] == {
        "broker": "b",
        "state": "ready",
        "count": 2,
        "oldest": "2026-09-21T14:11:50+00:00",
        "oldest_age": 90.0,
    }
    assert found["troubles"][0]["since"] == "2026-09-21T12:13:20+00:00"
    assert found["brokers"]["b"]["trouble"] == "refused"
    assert found["overflows"] == 1


def test_the_journal_knows_of_earlier_runs() -> None:
    found = overview.compose(None, None, {}, (NOW - 9, NOW - 8), AT)
    assert (found.last_arrival_ns, found.last_sent_ns) == (NOW - 9, NOW - 8)


def test_what_was_last_by_a_clock_that_was_ahead_is_not_the_last() -> None:
    broker = {**snapshot()["brokers"]["b"], "last_sent_ns": NOW + 10 * SECOND}
    last = snapshot(last_arrival_ns=NOW + 20 * SECOND, brokers={"b": broker})
    found = overview.compose(None, last, {}, (NOW - 9, NOW - 8), AT)
    assert (found.last_arrival_ns, found.last_sent_ns) == (NOW - 9, NOW - 8)
    found = overview.compose(None, last, {}, (NOW + 5, 0), AT)
    assert (found.last_arrival_ns, found.last_sent_ns) == (NOW + 20 * SECOND, NOW + 10 * SECOND)


def test_written_in_one_step_and_read_again(tmp_path: Path) -> None:
    copy = {"source": "/a/f", "final": "/b/f", "done": 1, "total": 2, "rate": 0.5, "eta_s": 2.0}
    about = {"waiting": 1, "stuck_since_ns": None, "reason": "", "rate": 0.0, "eta_s": None}
    move = {"source": "/a", "root": "/b", **about, "troubles": ((5, "x"),), "copies": [copy]}
    assert status.read(str(tmp_path)) is None
    status.write(str(tmp_path), snapshot(moves=[move]))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    found = status.read(str(tmp_path))
    assert found is not None
    assert found["watches"][0]["path"] == "/up/ü\udcff"
    assert found["moves"][0]["copies"] == [copy]
    assert found["moves"][0]["troubles"] == [[5, "x"]]
    as_text(overview.compose((7, STARTED), found, COUNTS, (0, 0), AT), NOW)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"x"', '{"pid": 7}', "\0"])
def test_what_another_version_or_a_crash_left(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)
    assert status.read(str(tmp_path)) is None


def test_a_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    status.write(str(tmp_path), snapshot())
    with pytest.raises(TypeError):
        status.write(str(tmp_path), snapshot(overflows=object()))
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert status.read(str(tmp_path)) == snapshot()


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no new file made from now on."""

    real = os.open

    def opening(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *rest)

    monkeypatch.setattr(replacement.os, "open", opening)  # type: ignore[attr-defined]  # — where it imports it


def test_a_full_disk_has_room_for_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status.write(str(tmp_path), snapshot())
    fill_disk(monkeypatch)
    longer = snapshot(troubles=[{"subject": "x", "message": "y" * 200, "since_ns": 1}])
    for word in (longer, snapshot(troubles=[]), longer):
        status.write(str(tmp_path), word)
        assert status.read(str(tmp_path)) == word
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_full_disk_tears_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        status.write(str(tmp_path), snapshot())
    assert not list(tmp_path.iterdir())
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(OSError, match="No space"):
        status.write(str(tmp_path), snapshot(troubles=["x" * 5000]))
    assert (tmp_path / "status.json").read_text() == "{}"


def test_one_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    with pytest.raises(WatchmanError, match="cannot be read: Is a directory"):
        status.read(str(tmp_path))
    assert os.path.isdir(tmp_path / "status.json")
