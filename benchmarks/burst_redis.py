"""60,000 small files in 100 directories → Redis, beside the usual recipe in both its forms."""

from __future__ import annotations

import harness
from bursts import COLUMNS, burst, interleaved, median, ours, peers, table
from queues import redis_queue
from report import Report


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=60_000, runs=3).parse_args()
    subjects = [ours(), *peers(options.peer, "kept", "call")]
    kept = subjects[1].name if len(subjects) > 1 else ""
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("A burst of files to Redis", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        found = interleaved(
            subjects, options.runs, lambda s: burst(s, queue, places, options.files)
        )
    report.rows = table(found, kept)
    report.details = {name: [t._asdict() for t in trials] for name, trials in found.items()}
    mine = found[subjects[0].name]
    report.whole(subjects[0].name, mine)
    ratio = median(mine, "rate") / median(found[kept], "rate") if kept else None
    report.target("files/s to Redis, against the kept-producer peer", ratio, unit="×", at_least=10)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
