"""CPU time while nothing happens for a minute, with 50,000 directories watched."""

from __future__ import annotations

import statistics
import time

import harness
from queues import redis_queue
from report import Report, say

SETTLE = 5.0
"""Seconds from the start until the minute begins."""
COLUMNS = ["what", "seconds", "CPU ms", "% of a core"]


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", directories=50_000, seconds=60.0, runs=3).parse_args()
    trials = []
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("CPU while idle", options, places, COLUMNS)
        root, _ = places.fresh("idle")
        harness.make_tree(root, options.directories)
        for number in range(options.runs):
            _, state = places.fresh("state")
            with harness.daemon(harness.daemon_config(state, root, queue.url)) as process:
                # One task first, so that the broker's connection is open and kept alive.
                (root / f"one{number}.csv").write_text("1,2\n")
                deadline = time.monotonic() + 60
                while queue.count() <= number and time.monotonic() < deadline:
                    harness.pause(0.05)
                report.must(queue.count() == number + 1, "the file before the minute was not sent")
                harness.pause(SETTLE)
                began, before = time.monotonic(), process.cpu_seconds()
                harness.pause(options.seconds)
                cpu, seconds = process.cpu_seconds() - before, time.monotonic() - began
            trials.append((seconds, cpu * 1e3, 100 * cpu / seconds))
            say(f"run {number + 1}: {trials[-1][2]:.4f} % of a core")
    seconds, cpu, percent = (statistics.median(column) for column in zip(*trials, strict=True))
    report.rows.append(
        [f"{options.directories:,} directories", round(seconds), round(cpu, 2), round(percent, 4)]
    )
    report.details["trials"] = trials
    what = f"CPU while idle with {options.directories:,} directories"
    report.target(what, percent, unit="% of a core", at_most=0.2)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
