"""60,000 small files in 100 directories → RabbitMQ, each message confirmed by the broker.

The peer keeps a producer and asks for no confirms: what it has sent may be lost.
"""

from __future__ import annotations

import harness
from bursts import COLUMNS, burst, interleaved, median, ours, peers, table
from queues import rabbit_queue
from report import Report


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=60_000, runs=3).parse_args()
    subjects = [ours("watchman, confirmed"), *peers(options.peer, "kept")]
    kept = subjects[1].name if len(subjects) > 1 else ""
    with harness.places(options) as places, rabbit_queue(places.disk) as queue:
        report = Report("A burst of files to RabbitMQ", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        found = interleaved(
            subjects, options.runs, lambda s: burst(s, queue, places, options.files)
        )
    report.rows = table(found, kept)
    report.details = {name: [t._asdict() for t in trials] for name, trials in found.items()}
    mine = found[subjects[0].name]
    report.whole(subjects[0].name, mine)
    ratio = median(mine, "rate") / median(found[kept], "rate") if kept else None
    report.target(
        "files/s to RabbitMQ, confirmed, against the kept-producer peer without confirms",
        ratio,
        unit="×",
        at_least=3,
    )
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
