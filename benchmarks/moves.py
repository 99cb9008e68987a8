"""60,000 files, moved on the same file system → Redis, beside our own rate without moves."""

from __future__ import annotations

from pathlib import Path

import harness
from bursts import COLUMNS, Subject, burst, interleaved, median, ours, table
from queues import redis_queue
from report import Report

STORAGE = "storage"


def moving(name: str = "with MOVES", checkout: Path = harness.ROOT) -> Subject:
    """A checkout's daemon, moving everything on the same file system."""
    return ours(
        name,
        lambda root: {"MOVES": {str(root): str(root.parent / STORAGE)}},
        moved_to=STORAGE,
        checkout=checkout,
    )


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=60_000, runs=5).parse_args()
    plain, moved = ours("without"), moving()
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("MOVES on the same file system", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        found = interleaved(
            [plain, moved], options.runs, lambda s: burst(s, queue, places, options.files)
        )
    report.rows = table(found, plain.name)
    report.details = {name: [t._asdict() for t in trials] for name, trials in found.items()}
    for name, trials in found.items():
        report.whole(name, trials)
    ratio = median(found[moved.name], "rate") / median(found[plain.name], "rate")
    report.target("files/s with MOVES, against our own rate without", ratio, unit="×", at_least=0.6)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
