"""From the start of the process until 50,000 directories are watched, beside inotifywait -mr."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path

import harness
from queues import redis_queue
from report import Report, say

FIRST, AGAIN, PEER = "watchman, first start", "watchman, second start", "inotifywait -mr"
COLUMNS = ["who", "s", "ratio", "CPU s", "peak MB"]


class Started(tuple[float, float, float]):
    """Seconds until watching, CPU seconds until then, peak MB."""

    __slots__ = ()


def start_ours(config: Path, checkout: Path = harness.ROOT) -> Started:
    """Start a checkout's daemon, wait until it watches, and end it."""
    log = config.parent / "notify.log"
    log.unlink(missing_ok=True)
    with harness.program(harness.daemon_argv(config, checkout), log) as started:
        seconds = started.wait_for(harness.WATCHING, 120)
        found = Started((seconds, started.cpu_seconds(), started.memory_mb("VmHWM")))
        if started.stop() != 0:
            raise harness.BenchmarkError("the daemon did not end in order")
    return found


def start_peer(root: Path, log: Path) -> Started:
    """Start inotifywait, wait until it watches, and end it."""
    with harness.program(["inotifywait", "-mr", str(root)], log) as started:
        seconds = started.wait_for(b"Watches established", 120)
        return Started((seconds, started.cpu_seconds(), started.memory_mb("VmHWM")))


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", directories=50_000, runs=5).parse_args()
    harness.need("inotifywait")
    found: dict[str, list[Started]] = {PEER: [], FIRST: [], AGAIN: []}
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(harness.places(options))
        queue = stack.enter_context(redis_queue(places.disk))
        report = Report(f"Start on {options.directories:,} directories", options, places, COLUMNS)
        root, _ = places.fresh("start")
        harness.make_tree(root, options.directories)
        for number in range(options.runs):
            _, state = places.fresh("state")
            config = harness.daemon_config(state, root, queue.url)
            found[PEER].append(start_peer(root, state / "inotifywait.log"))
            found[FIRST].append(start_ours(config))
            found[AGAIN].append(start_ours(config))
            said = ", ".join(f"{name} {trials[-1][0]:.2f} s" for name, trials in found.items())
            say(f"run {number + 1}: {said}")
        report.must(queue.count() == 0, f"{queue.count()} tasks were sent for no file")
    base = statistics.median(trial[0] for trial in found[PEER])
    for name, trials in found.items():
        seconds, cpu, peak = (statistics.median(column) for column in zip(*trials, strict=True))
        row = [name, round(seconds, 3), round(seconds / base, 2), round(cpu, 3), round(peak, 1)]
        report.rows.append(row)
        report.details[name] = trials
        if name != PEER:
            what = f"{name} on {options.directories:,} directories, against {PEER}"
            report.target(what, seconds / base, unit="×", at_most=1.2)
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
