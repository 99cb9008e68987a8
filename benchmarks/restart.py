"""Restart on 1,000,000 known files until caught up, beside one find over the same tree.

One file is written while the daemon is down: it must be the only task of the restart.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

import harness
from queues import RedisQueue, redis_queue
from report import Report, say

PER_DIRECTORY = 1000
OURS, PEER = "watchman, restart", "find -printf '%i %s %T@'"
COLUMNS = ["who", "s", "ratio", "files/s", "CPU s", "peak MB"]


def make_files(root: Path, files: int) -> None:
    """Make empty files, a thousand to a directory."""
    for first in range(0, files, PER_DIRECTORY):
        directory = f"{root}/d{first // PER_DIRECTORY:05d}"
        os.mkdir(directory)
        for number in range(first, min(files, first + PER_DIRECTORY)):
            os.close(os.open(f"{directory}/f{number:07d}.csv", os.O_CREAT | os.O_WRONLY, 0o644))


def find(root: Path) -> tuple[float, float]:
    """Return find's time for the tree in seconds, and its CPU time."""
    before, began = os.times(), time.monotonic()
    argv = ["find", str(root), "-type", "f", "-printf", "%i %s %T@\n"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.monotonic() - began, cpu - before.children_user - before.children_system


def restart(config: Path, root: Path, number: int, queue: RedisQueue) -> tuple[float, float, float]:
    """Write a file, start the daemon, wait until it has caught up; return s, CPU s, peak MB."""
    new = root / f"d{0:05d}" / f"new{number}.csv"
    new.write_text("1,2\n")
    queue.clear()
    log = config.parent / "notify.log"
    log.unlink(missing_ok=True)
    with harness.program(harness.daemon_argv(config), log) as started:
        seconds = started.wait_for(harness.WATCHING, 900)
        found = (seconds, started.cpu_seconds(), started.memory_mb("VmHWM"))
        deadline = time.monotonic() + 60
        while not queue.count() and time.monotonic() < deadline:
            harness.pause(0.05)
        if started.stop() != 0:
            raise harness.BenchmarkError("the daemon did not end in order")
    sent = list(queue.paths())
    if sent != [str(new)]:
        raise harness.BenchmarkError(f"sent {len(sent)} tasks for one new file: {sent[:3]}")
    return found


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=1_000_000, runs=5).parse_args()
    harness.need("find")
    peers, mine = [], []
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report(f"Restart on {options.files:,} known files", options, places, COLUMNS)
        places.require(options.files)
        root, state = places.fresh("restart")
        make_files(root, options.files)
        config = harness.daemon_config(state, root, queue.url)
        with harness.daemon(config, 1800) as first:
            learning = time.monotonic() - first.began
            say(f"first start, all files noted: {learning:.1f} s")
        for number in range(options.runs):
            peers.append(find(root))
            mine.append(restart(config, root, number, queue))
            say(f"run {number + 1}: {OURS} {mine[-1][0]:.2f} s, find {peers[-1][0]:.2f} s")
    base, cpu = (statistics.median(column) for column in zip(*peers, strict=True))
    rate = round(options.files / base)
    report.rows.append([PEER, round(base, 3), 1.0, rate, round(cpu, 2), None])
    ours, cpu, peak = (statistics.median(column) for column in zip(*mine, strict=True))
    ratio, rate = ours / base, round(options.files / ours)
    report.rows.append([OURS, round(ours, 3), round(ratio, 2), rate, round(cpu, 2), round(peak, 1)])
    report.details = {"first start": learning, PEER: peers, OURS: mine}
    what = f"restart on {options.files:,} known files until caught up, against find"
    report.target(what, ratio, unit="×", at_most=4)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
