"""1,000,000 files in one burst → Redis with the default kernel queue, beside a burst of 60,000."""

from __future__ import annotations

import harness
from bursts import COLUMNS, burst, interleaved, median, ours, table
from queues import redis_queue
from report import Report

DEFAULT_QUEUE = 16_384
"""fs.inotify.max_queued_events as kernels come."""


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=1_000_000, usual=60_000, runs=2).parse_args()
    usual, many = ours(f"{options.usual:,} files"), ours(f"{options.files:,} files")
    counts = {usual.name: options.usual, many.name: options.files}
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report(f"{options.files:,} files in one burst", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        if report.machine["max_queued_events"] != DEFAULT_QUEUE:
            raise harness.BenchmarkError(
                f"set fs.inotify.max_queued_events to {DEFAULT_QUEUE} first"
            )
        found = interleaved(
            [usual, many], options.runs, lambda s: burst(s, queue, places, counts[s.name])
        )
    report.rows = table(found, usual.name)
    report.details = {name: [t._asdict() for t in trials] for name, trials in found.items()}
    for name, trials in found.items():
        report.whole(name, trials)
    missing = max(trial.missing for trial in found[many.name])
    report.target(f"missing of {options.files:,} in one burst", missing, unit="files", at_most=0)
    ratio = median(found[many.name], "rate") / median(found[usual.name], "rate")
    report.target(
        f"files/s of {options.files:,}, against {options.usual:,}", ratio, unit="×", at_least=0.8
    )
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
