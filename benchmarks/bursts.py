"""A burst: files written as fast as one process can, until the last task is in the queue."""

from __future__ import annotations

import collections
import contextlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import harness
import writer
from queues import Queue

DIRECTORIES = 100


class Subject(NamedTuple):
    """Somebody who turns files into tasks."""

    name: str
    running: Callable[[Path, Path, str], AbstractContextManager[harness.Program]]
    """(upload root, directory for state and logs, broker URL) → the process, while it watches."""
    patience: float
    """Seconds without a new task after which no further one is expected."""
    settings: Callable[[Path], Mapping[str, Any]] = lambda _root: {}
    """(upload root) → further settings of our own configuration."""
    moved_to: str = ""
    """The name beside the upload root of the directory that files are moved to."""


class Trial(NamedTuple):
    """What one burst gave."""

    written: int
    delivered: int
    """Files with at least one task."""
    missing: int
    doubled: int
    """Tasks beyond the first for a file."""
    seconds: float
    """From the first file's creation until the last task was in the queue."""
    rate: float
    """Delivered files a second."""
    writer_rate: float
    end_mb: float
    """The subject's resident memory when the last task was in the queue, and its peak."""
    peak_mb: float
    cpu_us: float
    """The subject's CPU time for each delivered file, in µs."""

    @property
    def whole(self) -> bool:
        """Whether every file gave exactly one task."""
        return not self.missing and not self.doubled


def ours(
    name: str = "watchman",
    settings: Callable[[Path], Mapping[str, Any]] = lambda _root: {},
    moved_to: str = "",
    checkout: Path = harness.ROOT,
) -> Subject:
    """A checkout's daemon; ``settings(upload root)`` gives further settings for it."""

    @contextlib.contextmanager
    def running(root: Path, state: Path, url: str) -> Iterator[harness.Program]:
        config = harness.daemon_config(state, root, url, **settings(root))
        with harness.daemon(config, checkout=checkout) as started:
            yield started

    return Subject(name, running, 60.0, settings, moved_to)


def peers(path: Path | None, *modes: str) -> list[Subject]:
    """The usual recipe, in these modes of keeping a producer; none where its program is missing."""
    if path is None or not path.exists():
        sys.stdout.write("no peer: name its program with --peer or $WATCHMAN_PEER\n")
        return []
    names = {"kept": "peer, one kept producer", "call": "peer, a channel per call"}
    return [Subject(names[mode], _peer(path, mode), patience=5.0) for mode in modes]


def _peer(path: Path, mode: str) -> Callable[[Path, Path, str], Any]:
    @contextlib.contextmanager
    def running(root: Path, state: Path, url: str) -> Iterator[harness.Program]:
        argv = [sys.executable, str(path), str(root), url, "--producer", mode]
        argv += ["--log", str(state / "peer.log")]
        with harness.program(argv, state / "output") as started:
            started.wait_for(b"ready", 60)
            yield started

    return running


def burst(
    subject: Subject, queue: Queue, places: harness.Places, files: int, kind: str = ""
) -> Trial:
    """Let ``subject`` watch new directories, write ``files`` files, and count the tasks.

    ``kind``: what is in them, as the writer has it.
    """
    places.require(files)
    base, state = places.fresh("burst")
    root = base / "up"
    writer.make_directories(str(root), DIRECTORIES)
    final = base / subject.moved_to if subject.moved_to else root
    final.mkdir(exist_ok=True)
    queue.clear()
    with subject.running(root, state, queue.url) as process:
        before = process.cpu_seconds()
        argv = [sys.executable, writer.__file__, str(root), str(files), str(DIRECTORIES), "0", kind]
        with harness.program(argv, state / "writer.log") as writing:
            last = _until_quiet(queue, writing, files, subject.patience)
            writing.wait_for(b"}\n", 600)
        cpu = process.cpu_seconds() - before
        end, peak = process.memory_mb("VmRSS"), process.memory_mb("VmHWM")
    told = json.loads((state / "writer.log").read_text(encoding="utf-8"))
    tasks = collections.Counter(queue.paths())
    expected = {writer.path_of(str(final), number, DIRECTORIES) for number in range(files)}
    delivered = len(expected & tasks.keys())
    seconds = max(last - told["begin"], 1e-9)
    harness.remove(base)
    shutil.rmtree(state)
    return Trial(
        files,
        delivered,
        files - delivered,
        sum(tasks.values()) - delivered,
        seconds,
        delivered / seconds,
        files / (told["end"] - told["begin"]),
        end,
        peak,
        cpu / max(delivered, 1) * 1e6,
    )


def _until_quiet(queue: Queue, writing: harness.Program, files: int, patience: float) -> float:
    """Return when the last task came into the queue, on the monotonic clock."""
    seen, last = 0, time.monotonic()
    quiet_since = last
    while seen < files:
        count, now = queue.count(), time.monotonic()
        if count != seen:
            last = now
        if count != seen or writing.running:
            quiet_since = now
        elif now - quiet_since > patience:
            break
        seen = count
        harness.pause(queue.poll)
    return last


def interleaved(
    subjects: Sequence[Subject], runs: int, trial: Callable[[Subject], Trial]
) -> dict[str, list[Trial]]:
    """Run A B A B …, so that what else the machine does meets all alike."""
    found: dict[str, list[Trial]] = {subject.name: [] for subject in subjects}
    for number in range(runs):
        for subject in subjects:
            got = trial(subject)
            found[subject.name].append(got)
            sys.stdout.write(
                f"run {number + 1}: {subject.name}: {got.rate:,.0f} files/s, "
                f"{got.missing:,} of {got.written:,} missing, {got.doubled} doubled\n"
            )
            sys.stdout.flush()
    return found


COLUMNS = [
    "who", "files/s", "ratio", "delivered", "missing", "doubled", "written/s", "CPU µs/file",
    "peak MB",
]  # fmt: skip


def median(trials: Sequence[Trial], field: str) -> float:
    """Return the median of one field."""
    return float(statistics.median(getattr(trial, field) for trial in trials))


def table(found: Mapping[str, Sequence[Trial]], base: str) -> list[list[Any]]:
    """Return a row for each subject; the ratio is to the median rate of ``base``."""
    against = median(found[base], "rate") if base in found else 0.0
    return [
        [
            name,
            round(median(trials, "rate")),
            round(median(trials, "rate") / against, 2) if against else None,
            round(median(trials, "delivered")),
            max(trial.missing for trial in trials),
            max(trial.doubled for trial in trials),
            round(median(trials, "writer_rate")),
            round(median(trials, "cpu_us"), 1),
            round(max(trial.peak_mb for trial in trials), 1),
        ]
        for name, trials in found.items()
    ]
