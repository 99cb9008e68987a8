"""What a sender does about tasks for several files, and about files of theirs that left."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.bench import ROUTE, Bench
from tests.running import Remembering
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.journal import NewDelivery
from watchman.model import ACCEPTED, Answer, Batch, Outcome, Route

BY_THREE = ROUTE._replace(kwargs={"k": 1}, batch=Batch(3, 0.2))


def record(bench: Bench, *names: str, route: Route = BY_THREE, of: str = "") -> list[Path]:
    """Record files in one commit."""
    paths = [bench.root / name for name in names]
    for path in paths:
        path.write_text(path.name)
    bench.journal.record(
        [
            NewDelivery(
                f"id {path.name}", str(path), None, version_of(path.stat()), 1, route, set_id=of
            )
            for path in paths
        ]
    )
    return paths


def files(bench: Bench) -> list[list[str]]:
    return [[os.path.basename(path) for path in one.files] for one in bench.publisher.messages]


def test_one_message_has_the_files_of_a_batch_and_the_open_one_goes_in_time(bench: Bench) -> None:
    paths = record(bench, "a", "b", "c", "d")
    record(bench, "e", route=ROUTE)
    bench.sender.start()
    bench.until(SENT=5)
    assert files(bench) == [["a", "b", "c"], [], ["d"]]
    first = bench.publisher.messages[0]
    assert (first.path, first.source) == (str(paths[0]), str(paths[0]))
    assert bench.sender.sent_count == 5


def test_what_has_vanished_is_left_out_of_a_batch(bench: Bench) -> None:
    first, *_ = record(bench, "a", "b", "c")
    first.unlink()
    bench.sender.start()
    bench.until(SENT=2, VANISHED=1)
    assert files(bench) == [["b", "c"]]
    assert bench.publisher.messages[0].path.endswith("/b")
    wait_until(lambda: bench.changed == [str(first)], what="it is told")


def test_a_set_vanishes_with_each_part_and_is_looked_for(bench: Bench) -> None:
    first, second, third = record(bench, "a", "b", "c", route=ROUTE, of="set")
    second.unlink()
    record(bench, "d", "e", route=ROUTE, of="other")
    bench.sender.start()
    bench.until(SENT=2, VANISHED=3)
    assert files(bench) == [["d", "e"]]
    assert bench.publisher.messages[0].task_id == "other"
    told = [str(first), str(second), str(third)]
    wait_until(lambda: sorted(bench.changed) == told, what="all are told")
    reasons = bench.journal.reasons([1, 2, 3])
    assert reasons == {
        1: "a part of its set, b: the file is gone",
        2: "the file is gone",
        3: "a part of its set, b: the file is gone",
    }
    assert bench.journal.known.lookup(str(bench.root), ["a", "b", "c"]) == {}


def test_a_batch_is_tried_again_as_it_was_under_its_id(bench: Bench) -> None:
    publisher = bench.publisher
    tried: list[tuple[str, int]] = []
    publish = publisher.publish

    def watched(batch):  # type: ignore[no-untyped-def]  # — as what it stands in for
        tried.extend((one.task_id, len(one.files)) for one in batch)
        return publish(batch)

    publisher.publish = watched  # type: ignore[method-assign]  # — to look in
    publisher.answer = Outcome(Answer.AGAIN, "down")
    first, *_ = record(bench, "a", "b", "c")
    bench.sender.start()
    wait_until(lambda: len(tried) > 2, what="it is tried")
    record(bench, "d")  # joins another one
    assert set(tried) == {(tried[0][0], 3)}
    first.unlink()
    bench.until(READY=3, VANISHED=1)
    publisher.answer = ACCEPTED
    bench.until(SENT=3, VANISHED=1)
    assert (tried[0][0], 2) in tried


def test_a_task_that_is_refused_fails_for_all_its_files(bench: Bench) -> None:
    bench.publisher.answer = Outcome(Answer.REFUSED, "too large")
    record(bench, "a", "b", "c")
    bench.sender.start()
    bench.until(FAILED=3)
    assert [one.source.rpartition("/")[2] for one in bench.failed] == ["a", "b", "c"]


def test_a_file_that_is_written_to_keeps_its_set(bench: Bench) -> None:
    first, *_ = record(bench, "a", "b", route=ROUTE, of="set")
    record(bench, "c", route=ROUTE)
    with first.open("a"):
        bench.sender.start()
        wait_until(lambda: bench.changed, what="it is seen")
        bench.until(READY=2, SENT=1)
    bench.until(SENT=3)
    assert files(bench) == [[], ["a", "b"]]


def test_a_file_that_is_written_to_leaves_its_batch(bench: Bench) -> None:
    bench.sender.start()
    record(bench, "first", route=ROUTE)
    bench.until(SENT=1)
    with (bench.root / "a").open("a"):
        record(bench, "a", "b", "c")
        bench.until(READY=1, SENT=3)
        assert files(bench) == [[], ["b", "c"]]
    bench.until(SENT=4)
    assert files(bench) == [[], ["b", "c"], ["a"]]


def test_a_file_of_a_task_that_may_be_out_stays_in_its_batch(bench: Bench) -> None:
    publisher = bench.publisher
    publisher.answer = Outcome(Answer.AGAIN, "lost")
    first, *_ = record(bench, "a", "b", "c")
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble == "lost", what="it is tried")
    with first.open("a"):
        publisher.answer = ACCEPTED
        wait_until(lambda: bench.changed, what="it is seen")
        record(bench, "d", route=ROUTE)
        bench.until(READY=3, SENT=1)
    bench.until(SENT=4)
    assert files(bench) == [[], ["a", "b", "c"]]


def test_batches_fill_up_while_the_broker_is_tried_with_something_else(bench: Bench) -> None:
    publisher = bench.publisher
    publisher.answer = Outcome(Answer.AGAIN, "down")
    bench.record("alone")
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble == "down", what="it is tried")
    by_directory = ROUTE._replace(batch=Batch(3, 0.05, by_directory=True))
    for name in ("x/1", "y/1", "z/1"):
        bench.record(name, name, route=by_directory)
    wait_until(lambda: bench.journal.batch_due_in("b") == 0, what="they are due")
    for name in ("x/2", "y/2", "z/2"):
        bench.record(name, name, route=by_directory)
    publisher.answer = ACCEPTED
    bench.until(SENT=7)
    assert list(map(len, files(bench))) == [0, 2, 2, 2]


def test_while_the_broker_takes_nothing_one_batch_is_completed_to_try_it(bench: Bench) -> None:
    class Down(Remembering):
        def keepalive(self) -> str | None:
            return self.answer.reason or None

    publisher = bench.publisher = Down()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    path = bench.record("alone")
    bench.sender.start()
    wait_until(lambda: bench.sender.trouble == "down", what="it is tried")
    by_directory = ROUTE._replace(batch=Batch(2, 0.05, by_directory=True))
    for name in ("x/1", "y/1", "z/1"):
        bench.record(name, name, route=by_directory)
    path.unlink()
    bench.until(READY=3, VANISHED=1)
    wait_until(lambda: bench.journal.page_ready("b", 0, 9), what="one is completed")
    wait_until(lambda: bench.journal.batch_due_in("b") == 0, what="the others are due")
    assert len(bench.journal.page_ready("b", 0, 9)) == 1
    publisher.answer = ACCEPTED
    bench.until(SENT=3, VANISHED=1)
