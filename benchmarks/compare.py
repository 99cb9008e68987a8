"""Another checkout, and this one, in turns: is anything worse than before?

The other one is named with ``--before``, say a ``git worktree`` of an earlier commit. Both run with
the packages of the Python that runs this, and are measured by this checkout's programs.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import bursts
import harness
import latency
from bursts import Subject, burst, ours
from moves import moving
from queues import RedisQueue, redis_queue
from report import Report, say
from start import start_ours

COLUMNS = ["what", "before", "after", "after / before"]
WORSE = 0.05
"""What counts as worse, as a share."""
RATE = "files/s"
"""Of these figures more is better, of all others less."""

Figures = Mapping[str, float]


class Comparison:
    """What is measured of one checkout."""

    def __init__(
        self, queue: RedisQueue, places: harness.Places, options: argparse.Namespace
    ) -> None:
        self._queue = queue
        self._places = places
        self._options = options
        self._tree, _ = places.fresh("tree")
        harness.make_tree(self._tree, options.directories)

    def all(self) -> list[tuple[str, Callable[[Path], Figures]]]:
        """Return what there is to measure, each with its name."""
        return [
            ("a burst", lambda checkout: self._burst(ours(checkout=checkout))),
            ("a burst with MOVES", lambda checkout: self._burst(moving(checkout=checkout))),
            ("close(2) to Redis", self._latency),
            (f"start on {self._options.directories:,} directories", self._start),
        ]

    def _burst(self, subject: Subject) -> Figures:
        got = burst(subject, self._queue, self._places, self._options.files)
        _check(got)
        return {RATE: got.rate, "CPU µs/file": got.cpu_us, "peak MB": got.peak_mb}

    def _latency(self, checkout: Path) -> Figures:
        files, rate = int(self._options.seconds * self._options.rate), self._options.rate
        got = latency.trial(ours(checkout=checkout), self._queue, self._places, files, rate)
        _check(got)
        return {f"p{percent} ms": got.percentile(percent) for percent in (50, 99)}

    def _start(self, checkout: Path) -> Figures:
        _, state = self._places.fresh("state")
        config = harness.daemon_config(state, self._tree, self._queue.url)
        first, again = start_ours(config, checkout), start_ours(config, checkout)
        return {"first, s": first[0], "second, s": again[0], "peak MB": again[2]}


def _check(trial: bursts.Trial | latency.Trial) -> None:
    if not trial.whole:
        raise harness.BenchmarkError(f"{trial.missing} files missing, {trial.doubled} doubled")


@contextlib.contextmanager
def comparison(options: argparse.Namespace) -> Iterator[tuple[Comparison, Report]]:
    """Make places and a broker for both."""
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("Before and after", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        yield Comparison(queue, places, options), report


def main() -> int:
    """Measure, print, write."""
    parser = harness.parser(
        __doc__ or "", files=60_000, seconds=20.0, rate=200.0, directories=50_000, runs=5
    )
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "after": harness.ROOT}
    with comparison(options) as (compared, report):
        for title, measure in compared.all():
            found: dict[str, list[Figures]] = {name: [] for name in checkouts}
            for number in range(options.runs):
                # A B B A: whoever comes second finds what the first one has left, warm or cold.
                turn = list(checkouts.items())
                for name, checkout in reversed(turn) if number % 2 else turn:
                    found[name].append(measure(checkout))
                    told = ", ".join(f"{k} {v:,.2f}" for k, v in found[name][-1].items())
                    say(f"run {number + 1}: {title}, {name}: {told}")
            for what in found["after"][0]:
                before, after = (
                    statistics.median(run[what] for run in found[name]) for name in checkouts
                )
                ratio = after / before
                row = [round(before, 2), round(after, 2), round(ratio, 3)]
                report.rows.append([f"{title}: {what}", *row])
                limit = {"at_least": 1 - WORSE} if what == RATE else {"at_most": 1 + WORSE}
                report.target(f"{title}: {what}, after / before", ratio, unit="×", **limit)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
