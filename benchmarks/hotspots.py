"""Where the time of a burst goes, by thread, module and function: to Redis, RabbitMQ, with MOVES.

With py-spy: samples of all threads while they run, from outside. Without it: cProfile, which sees
the main thread only and makes calls look dearer than they are. (Named after neither: a
``profile.py`` beside the programs would be taken for the standard library's.) A thread that waits
in a system call may be taken for a running one: the threads' CPU times tell.
"""

from __future__ import annotations

import collections
import os
import pstats
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import harness
from bursts import Subject, Trial, burst, ours
from moves import moving
from queues import Queue, rabbit_queue, redis_queue
from report import Report, say

COLUMNS = ["thread", "module", "function", "own %", "with callees %"]
SHOWN = 30
THREAD = re.compile(r"\((\w+)\):? ?(.*)")
FRAME = re.compile(r"^(?P<name>.+) \((?P<file>[^()]+?)(?::\d+)?\)$")
WAITING = ("threading.py", "selectors.py")
"""Modules whose own frames only wait: py-spy sometimes takes a waiting thread for a running one."""


def find_spy() -> str | None:
    """Return py-spy's path: beside this interpreter, or on PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def spied(spy: str, plain: Subject, raw: Path, threads: dict[int, float]) -> Subject:
    """A subject with py-spy attached; ``threads`` gets the CPU seconds of each thread id."""

    @contextmanager
    def running(root: Path, state: Path, url: str) -> Iterator[harness.Program]:
        with plain.running(root, state, url) as process:
            argv = [spy, "record", "--pid", str(process.pid), "--format", "raw", "--threads"]
            argv += ["--rate", "200", "--duration", "3600", "--output", str(raw)]
            watcher = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                harness.pause(0.5)
                before = process.threads()
                yield process
                for number, seconds in process.threads().items():
                    threads[number] = seconds - before.get(number, 0.0)
            finally:
                # py-spy writes what it has when it is interrupted.
                watcher.send_signal(signal.SIGINT)
                _, said = watcher.communicate(timeout=60)
            if not raw.exists():
                raise harness.BenchmarkError(f"py-spy: {said.decode(errors='replace')[-500:]}")

    return plain._replace(running=running)


def profiled(plain: Subject, raw: Path) -> Subject:
    """A subject under cProfile."""

    @contextmanager
    def running(root: Path, state: Path, url: str) -> Iterator[harness.Program]:
        argv = harness.daemon_argv(harness.daemon_config(state, root, url, **plain.settings(root)))
        argv = [argv[0], "-m", "cProfile", "-o", str(raw), *argv[1:]]
        with harness.program(argv, state / "notify.log") as process:
            process.wait_for(harness.WATCHING, 120)
            yield process

    return plain._replace(running=running)


def place(file: str) -> str:
    """Return a short name of a source file that says whose it is and not where it lies."""
    for mark in ("/site-packages/", "/dist-packages/", f"{harness.ROOT}/"):
        file = file.rpartition(mark)[2] if mark in file else file
    return file if not os.path.isabs(file) else os.path.basename(file)


def from_spy(raw: Path) -> tuple[list[list[Any]], dict[int, str]]:
    """Return rows of (thread, module, function, own %, with callees %), and threads' names."""
    own: collections.Counter[tuple[str, str, str]] = collections.Counter()
    whole: collections.Counter[tuple[str, str, str]] = collections.Counter()
    threads: dict[int, str] = {}
    for line in raw.read_text(encoding="utf-8", errors="replace").splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        found = THREAD.search(thread)
        name = found[2] or found[1] if found else thread
        if found:
            threads[int(found[1], 0)] = name
        matches = [match for match in map(FRAME.match, frames) if match]
        keys = [(name, place(match["file"]), match["name"]) for match in matches]
        if keys and keys[-1][1] not in WAITING:
            own[keys[-1]] += int(count)
            whole.update(dict.fromkeys(keys, int(count)))
    total = max(1, sum(own.values()))
    rows: list[list[Any]] = [
        [*key, round(100 * count / total, 1), round(100 * whole[key] / total, 1)]
        for key, count in own.most_common(SHOWN)
    ]
    return rows, threads


def from_cprofile(raw: Path) -> list[list[Any]]:
    """Return the same rows from cProfile's statistics, for the main thread."""
    stats = pstats.Stats(str(raw)).get_stats_profile()
    profiles = sorted(stats.func_profiles.items(), key=lambda item: -item[1].tottime)
    profiles = [item for item in profiles if "'acquire'" not in item[0]]
    total = max(sum(found.tottime for _, found in profiles), 1e-9)
    return [
        [
            "MainThread",
            place(found.file_name),
            name,
            round(100 * found.tottime / total, 1),
            round(100 * found.cumtime / total, 1),
        ]
        for name, found in profiles[:SHOWN]
    ]


class Profile(NamedTuple):
    """One burst that is to be profiled."""

    title: str
    subject: Subject
    places: harness.Places
    files: int

    def take(self, queue: Queue, report: Report) -> Trial:
        """Profile it and add its tables to the report."""
        spy = find_spy()
        raw = self.places.disk / f"profile-{self.title}"
        seconds: dict[int, float] = {}
        watched = spied(spy, self.subject, raw, seconds) if spy else profiled(self.subject, raw)
        trial = burst(watched, queue, self.places, self.files)
        rows, names = from_spy(raw) if spy else (from_cprofile(raw), {})
        report.must(bool(rows), f"the profile of {self.title} is empty")
        threads = [
            [names.get(number, "others"), round(cpu, 3), round(cpu / trial.delivered * 1e6, 1)]
            for number, cpu in sorted(seconds.items(), key=lambda item: -item[1])
            if cpu > trial.seconds / 1000
        ]
        if threads:
            self._add(report, "threads", ["thread", "CPU s", "µs/file"], threads)
        self._add(report, "functions", COLUMNS, rows)
        return trial

    def _add(self, report: Report, what: str, columns: list[str], rows: list[list[Any]]) -> None:
        title = f"{self.title}: {what}"
        report.more.append({"title": title, "columns": columns, "rows": rows})


def main() -> int:
    """Measure, print, write."""
    options = harness.parser(__doc__ or "", files=60_000).parse_args()
    ways: list[tuple[str, Callable[[Path], AbstractContextManager[Queue]], Subject]] = [
        ("Redis", redis_queue, ours()),
        ("RabbitMQ", rabbit_queue, ours()),
        ("MOVES", redis_queue, moving()),
    ]
    by = "py-spy" if find_spy() else "cProfile"
    columns = ["burst", "broker", "files/s while profiled", "CPU µs/file"]
    with harness.places(options) as places:
        report = Report(f"Where the time goes, by {by}", options, places, columns)
        for title, serve, subject in ways:
            with serve(places.disk) as queue:
                profile = Profile(title, subject, places, options.files)
                trial = profile.take(queue, report)
            report.whole(title, [trial])
            report.rows.append([title, queue.version, round(trial.rate), round(trial.cpu_us, 1)])
            report.details[title] = trial._asdict()
            say(f"{title}: done")
    return report.finish()


if __name__ == "__main__":
    harness.run(main)
