"""What a sender does about publishers that raise, files that left, and brokers that are dead."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench import ROUTE, Bench, warnings_of
from tests.journals import failures, retry
from tests.running import Remembering, config_for, running
from tests.waiting import wait_until
from watchman import file_access, signals
from watchman.file_access import version_of
from watchman.journal import Journal, NewDelivery
from watchman.journal.failed_deliveries import Selection
from watchman.model import Answer, Delivery, Message, Outcome, Publisher, Route, State, Version
from watchman.sender import Sender, precheck, sender
from watchman.sender.pages import FEW


class Raising(Remembering):
    """Raises a number of times, from each of its methods."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times
        self.closed = 0

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        if self.left:
            self.left -= 1
            raise KeyError("amqp://user:secret@host// has no such thing")
        return super().publish(batch)

    def keepalive(self) -> None:
        raise ValueError("not alive")

    def close(self) -> None:
        self.closed += 1
        raise ValueError("close")


def test_what_a_publisher_raises_means_again(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "KEEPALIVE", 0.01)
    publisher = bench.publisher = Raising(3)
    bench.record("a")
    bench.sender.start()
    bench.until(SENT=1)
    # Each failure begins with a new one, and so does tending, which comes after all that is said.
    wait_until(lambda: publisher.closed == 4, 5, "tending failed")
    (said,) = warnings_of(caplog, "takes no tasks")
    assert "KeyError" in said
    assert "secret" not in said
    assert len(warnings_of(caplog, "takes tasks again")) == 1
    bench.record("b")
    bench.until(SENT=2)


def test_a_publisher_that_cannot_be_made_means_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def broken() -> Publisher:
        tries.append(1)
        raise ImportError("No module named 'redis'")

    bench.open = broken
    bench.record("a")
    bench.sender.start()
    wait_until(lambda: len(tries) > 3, 10)
    assert "No module named 'redis'" in bench.sender.trouble
    bench.open = lambda: bench.publisher
    bench.until(SENT=1)
    assert len(warnings_of(caplog, "takes no tasks")) == 1
    assert warnings_of(caplog, "Sending task") == []  # caplog holds warnings only


def test_a_broker_that_is_back_is_seen_though_nothing_is_left_to_send(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Ill(Remembering):
        ill = True

        def keepalive(self) -> str | None:
            return "still down" if self.ill else None

    publisher = bench.publisher = Ill()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    path = bench.record("a")
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble == "down", 5)
    since = bench.sender.trouble_since_ns
    path.unlink()
    bench.until(VANISHED=1)
    wait_until(lambda: bench.sender.trouble == "still down", 5)
    assert bench.sender.trouble_since_ns == since
    publisher.ill = False
    wait_until(lambda: not bench.sender.trouble, 5)
    assert len(warnings_of(caplog, "takes no tasks")) == 1
    wait_until(lambda: len(warnings_of(caplog, "takes tasks again")) == 1, 5)


def test_a_broker_that_is_down_is_seen_before_there_is_anything_to_send(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ill(Remembering):
        def keepalive(self) -> str | None:
            return "down"

    monkeypatch.setattr(sender, "KEEPALIVE", 0.01)
    bench.publisher = Ill()
    bench.sender.start()
    bench.sender.warm_up()
    wait_until(lambda: bench.sender.trouble == "down", 5)


@pytest.mark.parametrize("answer", [Answer.AGAIN, Answer.REFUSED])
def test_what_a_broker_says_cannot_forge_a_log_line(
    bench: Bench, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    bench.publisher.answer = Outcome(answer, "ERR \x1b[2Jgone\nBroker b takes tasks again\u202e")
    bench.record("a")
    bench.sender.start()
    wait_until(lambda: warnings_of(caplog, "gone"), 5)
    (said,) = warnings_of(caplog, "gone")
    assert "ERR \\x1b[2Jgone Broker b takes tasks again\\u202e" in said
    assert said.isprintable()
    assert bench.sender.trouble.isprintable()
    assert all(row.reason.isprintable() for row in failures(bench.journal))


class Late(Remembering):
    """Answers when it may, and that nothing was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        self.asked.set()
        assert self.go_on.wait(20)
        return [Outcome(Answer.AGAIN, "no answer")] * len(batch)


def test_what_one_learns_that_was_left_at_a_reload_is_too_late(bench: Bench) -> None:
    """The next one has sent it all meanwhile: nothing is to be put back on its way."""
    late = bench.publisher = Late()
    left = bench.sender
    bench.record("a")
    left.start()
    assert late.asked.wait(20)
    left.stop()
    assert not left.join(0.05)
    bench.publisher = Remembering()
    bench.sender = bench.another()
    bench.sender.start()
    bench.until(SENT=1)
    late.go_on.set()
    assert left.join(20)
    bench.record("b")
    bench.until(SENT=2)
    assert len(bench.publisher.messages) == 2


def test_too_few_answers_are_no_answers(bench: Bench) -> None:
    class Short(Remembering):
        def publish(self, batch: Sequence[Message]) -> list[Outcome]:
            answers = super().publish(batch)
            return answers if len(batch) == 1 else answers[:1]

    bench.publisher = Short()
    bench.record("a")
    bench.record("b")
    bench.sender.start()
    wait_until(lambda: "1 answers for 2 messages" in bench.sender.trouble, 10)
    assert bench.states() == {State.READY: 2}


def test_refused_is_failed_and_announced(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.publisher.answer = Outcome(Answer.REFUSED, "too large")
    for number in range(20):
        bench.record(f"{number}")
    bench.sender.start()
    bench.until(FAILED=20)
    wait_until(lambda: len(bench.failed) == 20, 5)
    said = warnings_of(caplog, "was refused")
    assert len(said) < 20
    assert "too large" in said[0]


@pytest.mark.parametrize("arrived", ["long ago", "just now"])
def test_a_file_that_left_is_vanished(bench: Bench, arrived: str) -> None:
    fresh = time.time_ns() if arrived == "just now" else 1
    bench.record("gone", arrived_ns=fresh).unlink()
    bench.record("sub/gone", arrived_ns=fresh).unlink()
    (bench.root / "sub").rmdir()
    stays = bench.record("stays", arrived_ns=fresh)
    bench.sender.start()
    bench.until(VANISHED=2, SENT=1)
    assert bench.publisher.paths == [str(stays)]
    # It is looked at again, should it only have been away for a moment.
    wait_until(lambda: sorted(map(os.path.basename, bench.changed)) == ["gone", "gone"], 5)
    assert bench.journal.known.lookup(str(bench.root), ["gone"]) == {}


def test_a_newer_version_supersedes_an_unsent_older_one(bench: Bench) -> None:
    bench.record("a", "old")
    path = bench.record("a", "newer")
    bench.sender.start()
    bench.until(VANISHED=1, SENT=1)
    (message,) = bench.publisher.messages
    assert (message.path, message.size) == (str(path), 5)
    assert list(bench.journal.known.lookup(str(bench.root), ["a"])) == ["a"]


@pytest.mark.parametrize("arrived_ns", [1, 1 << 62], ids=["long ago", "by a clock that was ahead"])
def test_a_file_that_is_being_written_waits_and_holds_up_nobody(
    bench: Bench, arrived_ns: int
) -> None:
    bench.record("busy", arrived_ns=arrived_ns)
    bench.record("free", arrived_ns=arrived_ns)
    with (bench.root / "busy").open("a"):
        bench.sender.start()
        bench.until(READY=1, SENT=1)
        wait_until(lambda: len(bench.changed) > 2, 30, "it is looked at again")
    bench.until(SENT=2)


def test_what_cannot_be_looked_at_waits(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor left, no permission, an I/O error: that does not make a file vanish."""
    bench.record("a")
    real = file_access.open_directory
    tries = []

    def refused(root: str, relative: str) -> int:
        tries.append(relative)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(precheck, "open_directory", refused)
    bench.sender.start()
    wait_until(lambda: len(tries) > 3, 30)
    assert bench.states() == {State.READY: 1}
    assert f"Cannot look at {bench.root}/a: Permission denied" in bench.sender.obstacle
    assert bench.sender.obstacle_since_ns > 0
    monkeypatch.setattr(precheck, "open_directory", real)
    bench.until(SENT=1)
    wait_until(lambda: not bench.sender.obstacle, 5)
    assert len(warnings_of(caplog, "Cannot look at")) == 1


def test_what_another_program_has_leased_has_not_vanished(bench: Bench) -> None:
    """Samba and NFS servers hold write leases: an open by somebody else waits, or fails at once."""
    path = bench.record("a")
    program = (
        "import fcntl, os, signal, sys\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        f"fd = os.open({str(path)!r}, os.O_RDWR)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print('leased', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "leased\n"
        bench.sender.start()
        wait_until(lambda: "cannot be opened now" in bench.sender.obstacle, 10)
        assert bench.states() == {State.READY: 1}
        holder.communicate("")
    wait_until(lambda: bench.states() == {State.SENT: 1}, 30, "it is sent")


def test_without_descriptors_nothing_vanishes(bench: Bench) -> None:
    bench.record("first")
    bench.sender.start()
    bench.until(SENT=1)  # its thread has the journal open
    # One more that is open, to look while nothing can be opened.
    watching = sqlite3.connect(bench.journal.path)
    sent = "SELECT count(*) FROM deliveries WHERE state = 3"
    assert watching.execute(sent).fetchone() == (1,)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    held: list[int] = []
    for n in range(10):
        bench.record(f"d{n}/a")
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        bench.sender.wake()
        wait_until(lambda: "Too many open files" in bench.sender.obstacle, 10)
        assert watching.execute(sent).fetchone() == (1,)
        vanished = "SELECT count(*) FROM deliveries WHERE state = 5"
        assert watching.execute(vanished).fetchone() == (0,)
    finally:
        watching.close()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: bench.states() == {State.SENT: 11}, 30, "all are sent")


def test_a_destination_that_is_away_waits(bench: Bench, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    away = tmp_path / "away"
    for name in ("a", "b"):
        (share / name).write_text(name)
        source, final = str(bench.root / name), str(share / name)
        bench.journal.record([NewDelivery(name, source, final, Version(1, 2, 3, 4), 1, ROUTE)])
    bench.journal.note([(1, State.READY, ""), (2, State.READY, "")])
    share.rename(away)
    bench.sender.start()
    wait_until(lambda: bench.sender.obstacle, 5)
    assert bench.states() == {State.READY: 2}
    (away / "b").unlink()
    away.rename(share)
    bench.until(SENT=1, VANISHED=1)


@pytest.mark.parametrize("mounted", [False, True])
def test_an_empty_mount_point_says_nothing_about_its_files(
    bench: Bench, tmp_path: Path, mounted: bool
) -> None:
    """At boot watchman may begin before the share is mounted."""
    store = tmp_path / "store"
    store.mkdir()
    device = store.stat().st_dev + (not mounted)
    source, final = str(bench.root / "a"), str(store / "a")
    bench.journal.record([NewDelivery("a", source, final, Version(device, 2, 3, 4), 1, ROUTE)])
    bench.journal.note([(1, State.READY, "")])
    bench.sender.start()
    if mounted:
        bench.until(VANISHED=1)
    else:
        wait_until(lambda: "not mounted" in bench.sender.obstacle, 5)
        assert bench.states() == {State.READY: 1}
        (store / "a").write_text("a")
        bench.until(SENT=1)


def test_a_late_file_is_in_the_log_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A large file that is moved slowly becomes ready behind smaller ones that came later."""
    caplog.set_level(logging.INFO, "watchman.notify")
    path = bench.record("slow")
    bench.journal.note([(1, State.MOVING, "")])
    bench.record("quick")
    bench.sender.start()
    bench.until(MOVING=1, SENT=1)
    bench.journal.note([(1, State.READY, "")])
    bench.until(SENT=2)
    assert bench.publisher.paths[-1] == str(path)
    assert len(warnings_of(caplog, "Sending task")) == 2


def test_the_backlog_of_a_dead_broker_costs_no_memory_and_drains_in_order(bench: Bench) -> None:
    count = 100_000
    store = bench.root / "file"
    store.write_text("x")
    for start in range(0, count, 10_000):
        bench.journal.record(
            [
                NewDelivery(f"{n}", f"/up/{n}", str(store), Version(1, n, 3, 4), 1, ROUTE)
                for n in range(start, start + 10_000)
            ]
        )
    bench.journal.note([(seq, State.READY, "") for seq in range(1, count + 1)])
    bench.publisher.answer = Outcome(Answer.AGAIN, "down")
    tried = threading.Semaphore(0)
    answered: list[int] = []
    in_vain: list[int] = []

    class Counting(Remembering):
        def publish(self, batch: Sequence[Message]) -> list[Outcome]:
            outcome = bench.publisher.answer
            if outcome.answer is Answer.AGAIN:
                in_vain.append(len(batch))
                tried.release()
            else:
                answered.extend(int(each.task_id) for each in batch)
            return [outcome] * len(batch)

    counting = Counting()
    bench.open = lambda: counting
    tracemalloc.start()
    try:
        bench.sender.start()
        for _ in range(5):
            assert tried.acquire(timeout=10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    # Each attempt in vain costs what a few deliveries cost, whatever waits behind them.
    assert set(in_vain) == {FEW}
    bench.publisher.answer = Outcome(Answer.ACCEPTED)
    wait_until(lambda: bench.states() == {State.SENT: count}, 60, "all are sent", interval=0.2)
    assert answered == list(range(count))


def test_back_off_grows_to_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    unused: Any = None
    made = Sender("b", unused, unused, unused, unused)
    pauses = []
    monkeypatch.setattr(
        made._condition, "wait_for", lambda _, timeout: pauses.append(timeout), raising=False
    )
    for _ in range(20):
        made._judge("down", worked=False)
        made._wait()
    assert all(0 < pause <= sender.LONGEST_RETRY for pause in pauses)
    assert pauses[0] < 1
    assert max(pauses[10:]) > 30
    assert len(set(pauses[10:])) > 5  # jitter
    made._judge("", worked=True)
    assert made._backoff.delay == 0


def test_a_broker_that_left_the_configuration_fails_its_tasks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are ready at the start, and those whose move is only finished then."""
    root, store = tmp_path / "up", tmp_path / "store"
    for path in (root, store, tmp_path / "state"):
        path.mkdir()
    journal = Journal(str(tmp_path / "state"))
    old = Route("left", "task")
    for name in ("ready", "moving"):
        (root / name).write_text(name)
        version = version_of((root / name).stat())
        final = str(store / name) if name == "moving" else None
        journal.record([NewDelivery(name, str(root / name), final, version, 1, old)])
    journal.note_first_run([str(root)])
    journal.close()
    failed: list[str] = []

    def note(_: object, delivery: Delivery, **__: object) -> None:
        failed.append(delivery.task_id)

    with signals.failed.connected_to(note):
        config = config_for(root, tmp_path / "state", moves=((str(root), str(store)),))
        with running(config) as (pipeline, publisher):
            wait_until(lambda: sorted(failed) == ["moving", "ready"], 10)
            assert (store / "moving").read_text() == "moving"
            rows = failures(pipeline.journal)
            assert {row.task_id for row in rows} == {"moving", "ready"}
            (root / "later").write_text("later")
            wait_until(lambda: publisher.paths == [str(store / "later")], 10)
    assert "Broker left is no longer in BROKERS" in caplog.text


def test_a_destination_that_left_the_configuration_fails_its_moves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "up"
    for path in (root, tmp_path / "state"):
        path.mkdir()
    journal = Journal(str(tmp_path / "state"))
    for name in ("a", "b"):
        (root / name).write_text(name)
        version = version_of((root / name).stat())
        journal.record([NewDelivery(name, str(root / name), f"/gone/{name}", version, 1, ROUTE)])
    journal.note_first_run([str(root)])
    journal.close()
    with running(config_for(root, tmp_path / "state")) as (pipeline, publisher):
        wait_until(lambda: len(failures(pipeline.journal)) == 2, 10)
        assert publisher.messages == []
        line = "no MOVES entry leads there any more"
        assert caplog.text.count(line) == 1
        # A retry is answered; nothing is remembered of all that ever failed.
        assert len(retry(tmp_path / "state", Selection(all=True))) == 2
        pipeline.parts.mover.rescan()
        wait_until(lambda: caplog.text.count(line) == 2, 10)
        wait_until(lambda: len(failures(pipeline.journal)) == 2, 10)
    assert (root / "a").read_text() == "a"
    assert caplog.text.count(line) == 2


def test_a_store_that_is_away_is_in_the_status_while_tasks_wait_for_it(tmp_path: Path) -> None:
    root, store = tmp_path / "up", tmp_path / "store"
    for path in (root, store):
        path.mkdir()
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    config = config_for(root, tmp_path / "state", moves=((str(root), str(store)),))
    with running(config, publisher) as (pipeline, _):

        def troubles() -> list[str]:
            return [
                f"{each['subject']}: {each['message']}"
                for each in pipeline.snapshots.take()["troubles"]
            ]

        (root / "a").write_text("a")
        wait_until((store / "a").exists, 10)
        store.rename(tmp_path / "away")
        wait_until(troubles, 10, "it is in the status")
        (said,) = troubles()
        assert said.startswith(f"tasks for broker b: Cannot look at {store}/a: No such file")
        assert "mount what is missing" in said
        publisher.answer = Outcome(Answer.ACCEPTED)
        (tmp_path / "away").rename(store)
        pipeline.parts.senders["b"].wake()
        wait_until(lambda: not troubles(), 15, "it is over")
        wait_until(lambda: pipeline.parts.senders["b"].last_sent_ns, 10, "it is sent")
