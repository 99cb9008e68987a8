"""200 patterns, none of which matches until the last, beside our own rate with two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness
from bursts import COLUMNS, burst, interleaved, median, ours, table
from queues import redis_queue
from report import Report


def patterns(count: int) -> Callable[[Path], Mapping[str, Any]]:
    """Return settings with ``count`` patterns: directories, names and endings that never match."""

    def settings(root: Path) -> Mapping[str, Any]:
        kinds = ("{root}/station{n}/*.csv", "*/d0??/level{n}*.csv", "{root}/*.type{n}")
        never = [
            (kinds[n % 3].format(root=root, n=n), {"broker": "b", "task": f"never{n}"})
            for n in range(count - 1)
        ]
        last = (f"{root}/*.csv", {"broker": "b", "task": "import_csv"})
        return {"PATTERNS": [*never, last]}

    return settings


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=60_000, runs=5, patterns=200).parse_args()
    few, many = ours("2 patterns", patterns(2)), ours("many patterns", patterns(options.patterns))
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report(f"{options.patterns} patterns, the last matches", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        found = interleaved(
            [few, many], options.runs, lambda s: burst(s, queue, places, options.files)
        )
    report.rows = table(found, few.name)
    report.details = {name: [t._asdict() for t in trials] for name, trials in found.items()}
    for name, trials in found.items():
        report.whole(name, trials)
    ratio = median(found[many.name], "rate") / median(found[few.name], "rate")
    report.target(
        f"files/s with {options.patterns} patterns, against our own rate with 2",
        ratio,
        unit="×",
        at_least=0.8,
    )
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
