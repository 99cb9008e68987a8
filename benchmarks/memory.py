"""The daemon's memory: idle, many directories, a burst, and a backlog while its broker is down.

Limits hold for the peak (VmHWM), which the kernel keeps: no sample can miss it.
"""

from __future__ import annotations

import collections
import statistics
import sys
import time
from typing import Any

import harness
import writer
from bursts import DIRECTORIES, burst, ours
from queues import RedisQueue, redis_queue
from report import Report, say

SETTLE = 5.0
"""Seconds from the last thing that happened until memory is read."""
NOTIFIED = b"watchman.notify: Notified of "
COLUMNS = ["what", "MB now", "MB peak", "MB asked"]

Pair = tuple[float, float]
"""Resident MB now, and the peak."""


def read(process: harness.Program) -> Pair:
    """Return (now, peak) of a process in MB."""
    return process.memory_mb("VmRSS"), process.memory_mb("VmHWM")


def idle(places: harness.Places, directories: int) -> Pair:
    """Watch so many directories in which nothing happens."""
    root, state = places.fresh("idle")
    harness.make_tree(root, directories)
    nowhere = f"redis://127.0.0.1:{_free_port()}/0"
    with harness.daemon(harness.daemon_config(state, root, nowhere)) as process:
        harness.pause(SETTLE)
        found = read(process)
    harness.remove(root)
    return found


def _free_port() -> int:
    from tests.servers import free_port

    return free_port()


def backlog(places: harness.Places, files: int, report: Report) -> tuple[Pair, Pair]:
    """Write files while the broker is down, then bring it back: memory before and after."""
    from tests.servers.redis import RedisServer

    places.require(files)
    root, state = places.fresh("backlog")
    writer.make_directories(str(root), DIRECTORIES)
    server = RedisServer(state / "redis", "--appendonly", "no")
    config = harness.daemon_config(state, root, server.url)
    argv = [sys.executable, writer.__file__, str(root), str(files), str(DIRECTORIES)]
    try:
        with harness.daemon(config) as process:
            with harness.program(argv, state / "writer.log"):
                _until_noticed(process, files)
            harness.pause(SETTLE)
            unsent = read(process)
            say(f"backlog of {files:,}: {unsent[1]:.1f} MB; now the broker comes back")
            server.start()
            queue = RedisQueue(server)
            _until_sent(queue, files)
            sent = read(process)
        tasks = collections.Counter(queue.paths())
    finally:
        server.stop()
        harness.remove(root)
    expected = {writer.path_of(str(root), number, DIRECTORIES) for number in range(files)}
    missing, doubled = len(expected - tasks.keys()), sum(tasks.values()) - len(tasks)
    report.must(not missing and not doubled, f"backlog: {missing} missing, {doubled} doubled")
    return unsent, sent


def _until_noticed(process: harness.Program, files: int) -> None:
    """Wait until every file is in the log, or nothing has come for a minute."""
    seen, rest, last = 0, b"", time.monotonic()
    while seen < files:
        text = rest + process.read()
        fresh = text.count(NOTIFIED)
        # A line that is cut in two is counted with its second half.
        rest = text[-len(NOTIFIED) + 1 :] if not text.endswith(b"\n") else b""
        seen += fresh
        last = time.monotonic() if fresh else last
        if time.monotonic() - last > 60:
            raise harness.BenchmarkError(f"only {seen} of {files} files were noticed")
        harness.pause(0.1)


def _until_sent(queue: RedisQueue, files: int) -> None:
    """Wait until every task is in the queue, or none has come for longer than a retry takes."""
    seen, last = 0, time.monotonic()
    while seen < files and time.monotonic() - last < 120:
        count = queue.count()
        last = last if count == seen else time.monotonic()
        seen = count
        harness.pause(0.1)


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(
        __doc__ or "", directories=50_000, files=60_000, backlog=1_000_000, runs=3
    ).parse_args()
    many, some = f"{options.directories:,} directories", f"a burst of {options.files:,}"
    found: dict[str, list[Pair]] = {"idle": [], many: [], some: []}
    with harness.places(options) as places:
        report = Report("Memory", options, places, COLUMNS)
        with redis_queue(places.disk) as queue:
            report.machine["broker"] = queue.version
            for _ in range(options.runs):
                found["idle"].append(idle(places, 0))
                found[many].append(idle(places, options.directories))
                trial = burst(ours(), queue, places, options.files)
                report.whole(some, [trial])
                found[some].append((trial.end_mb, trial.peak_mb))
                say(", ".join(f"{name} {pairs[-1][1]:.1f} MB" for name, pairs in found.items()))
        unsent, sent = backlog(places, options.backlog, report)
    waiting = f"a backlog of {options.backlog:,} unsent"
    found |= {waiting: [unsent], "the same, sent when the broker is back": [sent]}
    limits = dict(zip(found, (60, 90, 120, 150, 150), strict=True))
    for name, pairs in found.items():
        now, peak = (statistics.median(column) for column in zip(*pairs, strict=True))
        row: list[Any] = [name, round(now, 1), round(peak, 1), limits[name]]
        report.rows.append(row)
        report.details[name] = pairs
        report.target(f"memory: {name}", peak, unit="MB", at_most=limits[name])
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
