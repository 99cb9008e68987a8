"""What a long past costs: 10,000,000 finished deliveries, 100,000 failed, 1,000,000 that wait.

Everything that a daemon and its operators do, beside a journal that remembers nothing, same run;
and latency once more while a million deliveries are pruned.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import harness
import histories
import latency
from bursts import Subject, burst
from histories import AWAY, BROKER, Past
from queues import RedisQueue, redis_queue
from report import Report, say

EMPTY, FULL, PRUNED = "empty", "long past", "long past, pruned"
COLUMNS = ["what", "empty", "long past", "ratio or more", "asked"]


_MEASURING = """
import resource, subprocess, sys, time
began = time.monotonic()
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as process:
    process.stdout.read()
seconds = time.monotonic() - began
print(process.returncode, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Told(NamedTuple):
    """What a command cost."""

    seconds: float
    megabytes: float


class Site:
    """A template of a journal, and daemons on copies of it."""

    def __init__(self, template: Path | None, dead_url: str, **settings: Any) -> None:
        self.template = template
        self.dead_url = dead_url
        self.settings = settings

    def config(self, root: Path, state: Path, url: str) -> Path:
        """Put a copy of the journal into ``state``; return the configuration beside it."""
        if self.template is not None and not (state / "var").exists():
            shutil.copytree(self.template, state / "var")
        # Else the kernel writes what was made before while the daemon waits for its small writes.
        os.sync()
        brokers = {BROKER: url, AWAY: self.dead_url}
        return harness.daemon_config(state, root, url, BROKERS=brokers, **self.settings)

    def subject(self, name: str) -> Subject:
        """Return it as bursts and latency take it."""

        @contextlib.contextmanager
        def running(root: Path, state: Path, url: str) -> Iterator[harness.Program]:
            with harness.daemon(self.config(root, state, url), 300) as started:
                yield started

        return Subject(name, running, 60.0)


def command(config: Path, *arguments: str) -> Told:
    """Run ``notify``; return its time and its largest resident size."""
    argv = [sys.executable, "-m", "watchman", *arguments, "--config", str(config)]
    # By a process in between: the largest size of one that executes another program stays that
    # program's, and this process has made journals.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURING, *argv],
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # that an empty journal has nothing
        text=True,
        check=True,
    )
    status, seconds, kilobytes = done.stdout.split()
    # 1: status of a daemon that does not run.
    if status not in ("0", "1"):
        raise harness.BenchmarkError(f"notify {' '.join(arguments)} ended with {status}")
    return Told(float(seconds), int(kilobytes) / 1024)


def questions(finished: int) -> dict[str, list[str]]:
    """Return what operators ask."""
    path = histories.path_of(finished // 3)
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 10 * 86_400))
    return {
        "status": ["status"],
        "failed": ["failed"],
        "history of a path": ["history", path],
        "history of a name": ["history", path.rpartition("/")[2]],
        "history of a directory": ["history", path.rpartition("/")[0]],
        "history of a day": ["history", "--since", day, "--until", day],
        "history of a reason": ["history", "--reason", "no such reason"],
        "where a path is": ["where", path],
        "where a name is": ["where", path.rpartition("/")[2]],
        "failed, in sum": ["failed", "--summary"],
        "nothing to send again": ["resend", "--task", "none", "--yes"],
    }


def starts(config: Path) -> tuple[float, float, float]:
    """Return s until watching after a clean stop, after kill -9, and MB of the daemon."""
    with harness.daemon(config, 600):
        pass
    seconds = []
    for end in (signal.SIGKILL, signal.SIGTERM):
        log = config.parent / "notify.log"
        log.unlink()
        with harness.program(harness.daemon_argv(config), log) as started:
            seconds.append(started.wait_for(harness.WATCHING, 600))
            harness.pause(2.0)
            memory = started.memory_mb("VmRSS")
            os.kill(started.pid, end)
            while started.running:
                harness.pause(0.01)
    return seconds[0], seconds[1], memory


def idle(config: Path, seconds: float) -> float:
    """Return the CPU time of a daemon that has nothing to do, in % of a core."""
    with harness.daemon(config, 600) as process:
        harness.pause(5.0)
        began, before = time.monotonic(), process.cpu_seconds()
        harness.pause(seconds)
        return 100 * (process.cpu_seconds() - before) / (time.monotonic() - began)


class Measured:
    """A row for each thing that is measured."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def ratio(self, what: str, empty: float, full: float, *, at_most: float, unit: str) -> None:
        """A value that must not be larger than so many times the empty journal's."""
        ratio = full / empty
        row = [what, round(empty, 2), round(full, 2), round(ratio, 2), f"≤ {at_most:g}×"]
        self._report.rows.append(row)
        self._report.target(f"{what} ({unit})", ratio, unit="×", at_most=at_most)

    def most(self, what: str, empty: float | None, full: float, at_most: float, unit: str) -> None:
        """A value of the long past alone."""
        self._report.rows.append([what, empty, full, None, f"≤ {at_most:g} {unit}"])
        self._report.target(what, full, unit=unit, at_most=at_most)


def dead_broker() -> str:
    """Return the URL of a broker that nobody answers at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def median(trials: Sequence[float], digits: int = 2) -> float:
    """Return the median, as it is shown."""
    return round(statistics.median(trials), digits)


def measure(
    options: Any, places: harness.Places, queue: RedisQueue, sites: dict[str, Site]
) -> Callable[[Measured], None]:
    """Run everything interleaved; return what writes the rows."""
    delays: dict[str, list[latency.Trial]] = {name: [] for name in sites}
    rates: dict[str, list[float]] = {EMPTY: [], FULL: []}
    for number in range(options.runs):
        # A B C C B A: a disk that becomes slower meanwhile is so to all of them.
        for name, site in list(sites.items())[:: -1 if number % 2 else 1]:
            files = int(options.seconds * options.rate)
            got = latency.trial(site.subject(name), queue, places, files, options.rate)
            delays[name].append(got)
            say(f"run {number + 1}, {name}: p50 {got.percentile(50):.2f} ms, "
                f"p99 {got.percentile(99):.2f} ms, {got.missing} missing")  # fmt: skip
            if name in rates:
                trial = burst(site.subject(name), queue, places, options.files)
                rates[name].append(trial.rate)
                say(f"run {number + 1}, {name}: {trial.rate:,.0f} files/s")
                if not trial.whole:
                    raise harness.BenchmarkError(f"{trial.missing} missing, {trial.doubled} twice")
    configs = {}
    for name in (EMPTY, FULL):
        base, state = places.fresh("commands")
        configs[name] = sites[name].config(base, state, queue.url)
    begun = {name: starts(config) for name, config in configs.items()}
    idling = {name: idle(config, options.seconds) for name, config in configs.items()}
    asked = questions(options.finished)
    told = {
        name: {what: command(config, *argv) for what, argv in asked.items()}
        for name, config in configs.items()
    }

    def write(rows: Measured) -> None:
        for percent in (50, 99):
            values = {
                name: median([trial.percentile(percent) for trial in trials])
                for name, trials in delays.items()
            }
            for name in (FULL, PRUNED):
                what = f"close(2) to Redis, p{percent}" + ", pruning" * (name == PRUNED)
                rows.ratio(what, values[EMPTY], values[name], at_most=1.3, unit="ms")
        rows.ratio("burst", 1e6 / median(rates[EMPTY]), 1e6 / median(rates[FULL]),
                   at_most=1.05, unit="µs a file")  # fmt: skip
        idle, idle_full = (round(idling[name], 3) for name in (EMPTY, FULL))
        rows.most("CPU while idle", idle, idle_full, 0.2, "%")
        for what in asked:
            empty, full = (told[name][what] for name in (EMPTY, FULL))
            rows.most(what, round(empty.seconds, 2), round(full.seconds, 2), 0.5, "s")
            rows.most(f"{what}, memory", round(empty.megabytes), round(full.megabytes), 100, "MB")
        (clean, killed, memory), (clean_full, killed_full, memory_full) = (
            begun[name] for name in (EMPTY, FULL)
        )
        rows.most("start", round(clean, 2), round(clean_full, 2), 0.5, "s")
        more = round(killed_full - killed, 2)
        rows.most("start after kill -9, more than empty", None, more, 1.5, "s")
        rows.most("memory, more than empty", None, round(memory_full - memory, 1), 10, "MB")

    return write


def template(kept: Path, past: Past, url: str, dead_url: str) -> Path:
    """Return the STATE_DIR of a journal with that past below ``kept``; make it if need be."""
    made = kept / f"{past.finished}-{past.failed}-{past.unsent}-{past.known}"
    if not made.exists():
        began = time.monotonic()
        making = made.with_suffix(".making")
        harness.remove(making)  # of one that was killed
        uploads = making / "uploads"
        uploads.mkdir(parents=True)
        waiting = kept / "waiting.csv"
        waiting.write_text("1,2\n")
        histories.make(making / "var", past, waiting)
        say(f"{past.finished:,} finished: made in {time.monotonic() - began:.0f} s")
        histories.settle(making / "var", uploads, url, dead_url, making)
        making.rename(made)
    histories.check(made / "var", past)
    return made / "var"


def main() -> int:
    """Measure, print, write."""
    parser = harness.parser(
        __doc__ or "", finished=10_000_000, failed=100_000, unsent=1_000_000, known=1_000_000,
        seconds=60.0, rate=200.0, files=60_000, runs=3,
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, help="where journals stay, for the next time")
    options = parser.parse_args()
    dead = dead_broker()
    past = Past(options.finished, options.failed, options.unsent, options.known, 28.0)
    with harness.places(options) as places, redis_queue(places.disk) as queue:
        report = Report("What a long past costs", options, places, COLUMNS)
        report.machine["broker"] = queue.version
        kept = options.keep or places.fresh("journals")[1]
        without, full = (
            template(kept, one, queue.url, dead) for one in (past._replace(finished=0), past)
        )
        sites = {
            EMPTY: Site(None, dead),
            FULL: Site(full, dead),
            PRUNED: Site(full, dead, HISTORY_DAYS=25),
        }
        write = measure(options, places, queue, sites)
        rows = Measured(report)
        write(rows)
        size = histories.size_of_finished(full, past, without)
        rows.most("disk, a finished delivery", None, round(size), 150, "bytes")
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
