"""What ``complete`` costs: 10,000 small gzips, and large ones that are read as a whole.

The small ones beside the same files without a condition; the large ones, which come all at once,
beside ``gzip -t`` in as many processes as there are cores.
"""

from __future__ import annotations

import gzip
import os
import random
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from bursts import COLUMNS, burst, interleaved, median, ours, table
from queues import RedisQueue, redis_queue
from report import Report, say

PLAIN, CHECKED = "without", "'complete': 'gzip'"
THOROUGH = "gzip:thorough"
MEGABYTES = 64
"""The size of a large file before it was compressed."""


def asking(check: str) -> Any:
    """Return settings that ask of each .csv to be whole."""

    def settings(root: Path) -> Mapping[str, Any]:
        route = {"broker": "b", "task": "import_csv", "complete": check}
        return {"PATTERNS": [(f"{root}/*.csv", route)]}

    return settings


def make_large(directory: Path, files: int) -> None:
    """Make large gzips, all of the same numbers: their names are links to one."""
    chance = random.Random(1)  # noqa: S311 — no secret
    text = b"".join(b"%d,%f\n" % (n, chance.random()) for n in range(1 << 16))
    with gzip.open(directory / "0.csv", "wb", compresslevel=6) as stream:
        for _ in range((MEGABYTES << 20) // len(text)):
            stream.write(text)
    for number in range(1, files):
        os.link(directory / "0.csv", directory / f"{number}.csv")


def read_by_us(queue: RedisQueue, places: harness.Places, files: int) -> float:
    """Return how many seconds large files take from their arrival until the last task."""
    base, state = places.fresh("large")
    root, aside = base / "up", base / "aside"
    for path in (root, aside):
        path.mkdir()
    make_large(aside, files)
    queue.clear()
    with ours(settings=asking(THOROUGH)).running(root, state, queue.url):
        begun = time.monotonic()
        for path in aside.iterdir():
            path.rename(root / path.name)
        while queue.count() < files:
            if time.monotonic() > begun + 600:
                raise harness.BenchmarkError(f"{queue.count()} tasks for {files} large files")
            harness.pause(queue.poll)
        seconds = time.monotonic() - begun
    harness.remove(base)
    return seconds


def read_by_gzip(places: harness.Places, files: int) -> float:
    """Return how many seconds gzip takes for the same, with all cores."""
    base, _ = places.fresh("gzip")
    make_large(base, files)
    cores = len(os.sched_getaffinity(0))
    names = "".join(f"{path}\n" for path in sorted(base.iterdir()))
    begun = time.monotonic()
    subprocess.run(
        ["xargs", f"-P{cores}", "-n1", "sh", "-c", 'gzip -t <"$0"'],
        input=names,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - begun
    harness.remove(base)
    return seconds


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=10_000, large=16, runs=3).parse_args()
    harness.need("gzip", "xargs")
    subjects = [ours(PLAIN), ours(CHECKED, asking("gzip"))]
    by_us: list[float] = []
    by_gzip: list[float] = []
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("Files that must be whole", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        found = interleaved(
            subjects, options.runs, lambda s: burst(s, queue, places, options.files, "gzip")
        )
        for number in range(options.runs):
            by_gzip.append(read_by_gzip(places, options.large))
            by_us.append(read_by_us(queue, places, options.large))
            say(f"run {number + 1}: large: gzip -t {by_gzip[-1]:.2f} s, we {by_us[-1]:.2f} s")
    report.rows = table(found, PLAIN)
    for name, trials in found.items():
        report.whole(name, trials)
    ratio = median(found[CHECKED], "rate") / median(found[PLAIN], "rate")
    report.target("files/s of small gzips, against those without", ratio, unit="×", at_least=0.5)
    seconds = {"gzip -t": statistics.median(by_gzip), "watchman": statistics.median(by_us)}
    rows = [
        [name, round(taken, 2), round(MEGABYTES * options.large / taken)]
        for name, taken in seconds.items()
    ]
    title = f"{options.large} gzips of {MEGABYTES} MB, read as a whole"
    report.more.append({"title": title, "columns": ["who", "s", "MB/s"], "rows": rows})
    times = seconds["watchman"] / seconds["gzip -t"]
    report.target("large gzips, read as a whole, against gzip -t", times, unit="×", at_most=1.1)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
