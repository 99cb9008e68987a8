"""The log says "Sending task" once for a delivery, whoever tries it and however often."""

from __future__ import annotations

import logging

import pytest

from tests.faults.bench import Bench, Told
from tests.journals import history
from tests.running import Remembering
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import ACCEPTED, Answer, Outcome
from watchman.sender import Sender, sender


def another(bench: Bench) -> Sender:
    """Return the sender that a reload or restart brings."""
    bench.sender.stop()
    assert bench.sender.join(10)
    bench.sender = Sender(
        "b",
        bench.journal,
        lambda: bench.publisher,
        lambda _: str(bench.root),
        Told(bench.changed, bench.failed),
    )
    return bench.sender


def said(caplog: pytest.LogCaptureFixture) -> int:
    return len([r for r in caplog.records if r.getMessage() == "Sending task task"])


def test_across_restarts(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "watchman.notify")
    bench.publisher.answer = Outcome(Answer.AGAIN, "down")
    paths = [bench.record(name) for name in "abc"]
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble == "down", 5)
    assert said(caplog) == 3
    for _ in range(2):
        another(bench).start()
        wait_until(lambda: bench.sender.trouble == "down", 5)
    new = bench.record("new")
    bench.sender.wake()
    wait_until(lambda: said(caplog) == 4, 5, "the new one is said")
    with open_reader(str(bench.root.parent)) as journal:
        reasons = {record.reason for record in history(journal, [str(paths[0])], 9)}
    assert reasons == {"not taken yet: down"}
    bench.publisher.answer = ACCEPTED
    another(bench).start()
    bench.until(SENT=4)
    assert said(caplog) == 4
    expected = [f"Sent task task id {p.name} x for {p}" for p in (*paths, new)]

    def sent() -> list[str]:
        lines = [r.getMessage() for r in caplog.records]
        return [line for line in lines if line.startswith("Sent task")]

    wait_until(lambda: sent() == expected, 5, "what the broker has is said")
    with open_reader(str(bench.root.parent)) as journal:
        assert {record.reason for record in history(journal, [], 9)} == {""}


def test_where_more_wait_than_are_remembered(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "PAGE", 0)  # nothing is remembered from one try to the next
    caplog.set_level(logging.INFO, "watchman.notify")
    tries = []

    class Down(Remembering):
        def publish(self, batch: object) -> list[Outcome]:
            tries.append(batch)
            return [Outcome(Answer.AGAIN, "down")] * 2

    bench.publisher = Down()
    for name in "ab":
        bench.record(name)
    bench.sender.start()
    wait_until(lambda: len(tries) >= 3, 10)
    assert said(caplog) == 2


def test_sent_is_said_only_to_who_wants_to_know_all(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    bench.record("a")
    bench.sender.start()
    bench.until(SENT=1)
    assert [r.getMessage() for r in caplog.records if "task" in r.getMessage()] == [
        "Sending task task"
    ]


def test_a_delivery_that_vanished(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for path in [bench.record(name) for name in ("a", "b", "c")]:
        path.unlink()
    bench.sender.start()
    bench.until(VANISHED=3)

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if "Not sent" in r.getMessage()]

    wait_until(lambda: len(lines()) == 1, 5, "it is said")
    [line] = lines()
    assert line.startswith(f"Not sent: {bench.root}/a (and 2 more): ")
