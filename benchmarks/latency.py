"""close(2) → message readable in Redis, at 200 files a second for a minute.

What is measured begins when a first file's message is there: until then Celery and the broker's
library are being imported, which the column "first" tells of. Writer and reader are processes of
their own on one clock; the reader waits in BRPOP as a worker does, so its own wake-up is in every
figure, ours and the peer's.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import harness
import writer
from bursts import DIRECTORIES, Subject, ours, peers
from queues import QUEUE, RedisQueue, path_in, redis_queue
from report import Report, say

PERCENTILES = (50, 90, 95, 99, 99.9)


class Trial(NamedTuple):
    """Delays in ms, sorted; what did not come, and what came twice."""

    delays: Sequence[float]
    first: float
    """What the file took that was written as soon as it watched, in ms."""
    missing: int
    doubled: int

    @property
    def whole(self) -> bool:
        """Whether every file gave exactly one message."""
        return not self.missing and not self.doubled

    def percentile(self, percent: float) -> float:
        """Return a percentile in ms, by the nearest rank."""
        return self.delays[min(len(self.delays) - 1, int(len(self.delays) * percent / 100))]


class Consumer:
    """Takes messages as they come, and notes when."""

    def __init__(self, queue: RedisQueue) -> None:
        self.taken: list[tuple[int, bytes]] = []
        self._client = queue.client
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Consumer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            found = self._client.brpop(QUEUE, timeout=1)
            if found is not None:
                self.taken.append((time.monotonic_ns(), found[1]))


def trial(
    subject: Subject, queue: RedisQueue, places: harness.Places, files: int, rate: float
) -> Trial:
    """Write at a steady rate and take the messages."""
    base, state = places.fresh("latency")
    root = base / "up"
    writer.make_directories(str(root), DIRECTORIES)
    queue.clear()
    argv = [sys.executable, writer.__file__, str(root), str(files), str(DIRECTORIES), str(rate)]
    with subject.running(root, state, queue.url), Consumer(queue) as consumer:
        first = _first(writer.path_of(str(root), files, DIRECTORIES), consumer, subject.patience)
        with harness.program(argv, state / "writer.log") as writing:
            writing.wait_for(b"}\n", files / rate + 60)
        deadline = time.monotonic() + subject.patience
        while len(consumer.taken) <= files and time.monotonic() < deadline:
            harness.pause(0.05)
    told = json.loads((state / "writer.log").read_text(encoding="utf-8"))
    came: dict[str, int] = {}
    for when, envelope in consumer.taken[1:]:
        came.setdefault(path_in(envelope), when)
    closed = {
        writer.path_of(str(root), number, DIRECTORIES): when
        for number, when in enumerate(told["closed"])
    }
    delays = sorted((came[path] - when) / 1e6 for path, when in closed.items() if path in came)
    if not delays:
        raise harness.BenchmarkError(f"{subject.name} delivered nothing")
    return Trial(delays, first, files - len(delays), len(consumer.taken) - 1 - len(came))


def _first(path: str, consumer: Consumer, seconds: float) -> float:
    """Write a file and wait for its message; return how long that took, in ms."""
    Path(path).write_bytes(b"")
    written = time.monotonic_ns()
    deadline = time.monotonic() + seconds
    while not consumer.taken:
        if time.monotonic() > deadline:
            raise harness.BenchmarkError(f"no message for {path} within {seconds:.0f} s")
        harness.pause(0.01)
    return (consumer.taken[0][0] - written) / 1e6


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", seconds=60.0, rate=200.0, runs=3).parse_args()
    subjects = [ours(), *peers(options.peer, "kept")]
    files = int(options.seconds * options.rate)
    found: dict[str, list[Trial]] = {subject.name: [] for subject in subjects}
    columns = [
        "who",
        *(f"p{percent} ms" for percent in PERCENTILES),
        "max ms",
        "first ms",
        "missing",
    ]
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("From close(2) to Redis", options, places, columns)
        report.machine["broker"] = queue.version
        for number in range(options.runs):
            for subject in subjects:
                got = trial(subject, queue, places, files, options.rate)
                found[subject.name].append(got)
                say(f"run {number + 1}: {subject.name}: p50 {got.percentile(50):.2f} ms")
    for name, trials in found.items():
        row = [statistics.median(t.percentile(percent) for t in trials) for percent in PERCENTILES]
        worst = max(t.delays[-1] for t in trials)
        first = statistics.median(t.first for t in trials)
        missing = max(t.missing for t in trials)
        report.rows.append([name, *(round(value, 2) for value in [*row, worst, first]), missing])
        report.details[name] = [
            {"percentiles": [round(t.percentile(p), 3) for p in range(100)]} for t in trials
        ]
    mine = found[subjects[0].name]
    report.whole(subjects[0].name, mine)
    half = statistics.median(t.percentile(50) for t in mine)
    report.target("close(2) to Redis, p50", half, unit="ms", at_most=2)
    late = statistics.median(t.percentile(99) for t in mine)
    report.target("close(2) to Redis, p99", late, unit="ms", at_most=10)
    ratio = None
    if len(subjects) > 1:
        ratio = half / statistics.median(t.percentile(50) for t in found[subjects[1].name])
    report.target("p50 against the kept-producer peer's", ratio, unit="×", at_most=1.5)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
