"""What ``match`` and ``scan`` say, held against what a pipeline does.

Random trees, watches and histories. Whatever is sent, ``match`` must have promised; whatever it
promises without a condition must be sent; and what ``scan`` finds before a start is what the start
sends. WATCHMAN_LONG=1 runs many more examples.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pyinotify
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.running import Remembering, config_for, running
from tests.waiting import wait_until
from watchman import checks, mounts
from watchman.checks import scanning
from watchman.config.globs import expand
from watchman.config.overlap import meet
from watchman.ignored_names import DEFAULT_IGNORE
from watchman.journal import Journal
from watchman.journal.journal_reader import open_reader
from watchman.model import Config, Existing, Route, Watch, WatchKind
from watchman.pipeline import Pipeline
from watchman.pipeline.files import Files
from watchman.pipeline.first_runs import CLOCK_GRAIN_NS
from watchman.sources.tree import Node

LONG = os.environ.get("WATCHMAN_LONG") == "1"
EXAMPLES = 3000 if LONG else 25

CREATE: int = pyinotify.IN_CREATE
CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
MOVED_TO: int = pyinotify.IN_MOVED_TO
DELETE: int = pyinotify.IN_DELETE

FOLDERS = [*("a", "b") * 4, "x.tmp", "skip", "out", "d.part"]
FILES = ["f", "f", "g.csv", "p.part", "done", "done"]
IGNORE = (*DEFAULT_IGNORE, "skip", "*/b/a", "*/a/g.csv")
ROUTE = Route("b", "task")
PATTERNS = [["*"], ["*"], ["*"], ["*/f", "*/a"], ["*.csv", "*/b"], ["*/a/*"]]
PAUSES = ["settle", "rescan", "restart", "glob"]
DRY_RUNS: list[tuple[str, ...]] = [*[()] * 6, ("*/a/f",), ("*/b",), ("*/a",)]


class Step(NamedTuple):
    """Something that happens."""

    what: str
    path: str = ""
    """Below the watched directory, or in one that is there already."""
    to: str = ""
    which: int = 0
    """Which of the directories that are there."""


@dataclass(frozen=True)
class Plan:
    """What is configured, what is there before the first start, and what happens then."""

    watches: list[Watch]
    patterns: list[str]
    dry_run: tuple[str, ...]
    before: list[Step]
    history: list[Step]


def _is_out(path: str) -> bool:
    return path.endswith("/out")


def plan(chance: random.Random) -> Plan:
    """Make one up. With a strategy for each part most are small, and nothing meets in them."""
    pick = chance.choice

    def folder() -> str:
        return "/".join(pick(FOLDERS) for _ in range(chance.randint(1, 3)))

    def making() -> Step:
        if chance.random() < 0.4:
            return Step("mkdir", folder())
        return Step(pick(["write", "place"]), pick(FILES), which=chance.randrange(20))

    def step() -> Step:
        what = pick(["make"] * 4 + ["rename"] * 2 + ["bring", "remove"] + PAUSES)
        if what == "make":
            return making()
        if what == "rename":
            return Step(what, pick(FOLDERS), pick(FOLDERS), chance.randrange(20))
        if what == "bring":
            return Step(what, folder(), pick([*FILES, "a/f", "b/g.csv"]))
        return Step(what, which=1 + chance.randrange(20))

    def watch() -> Watch:
        return Watch(
            pick(["", "", "", "", "a", "a/b"]),
            rec=chance.random() < 0.8,
            auto_add=chance.random() < 0.7,
            mask=pick([*[None] * 16, MOVED_TO, CLOSE_WRITE | MOVED_TO, CREATE, DELETE]),
            exclude=pick([None, _is_out]),
            existing=pick([Existing.ALL, Existing.ALL, Existing.ALL, Existing.NEW, Existing.NONE]),
            rescan=0.0,
            kind=pick(list(WatchKind)),
            unfinished=pick([None, None, ("b*",)]),
            marker=pick([None, None, "done"]),
            pattern=pick(["", "", "", "", "*", "a/*"]),
        )

    return Plan(
        [watch() for _ in range(pick([1, 2]))],
        pick(PATTERNS),
        pick(DRY_RUNS),
        [making() for _ in range(chance.randint(3, 10))],
        [step() for _ in range(chance.randint(5, 14))],
    )


class Site:
    """The directories of one example, and what a pipeline has sent of them."""

    def __init__(self, plan: Plan) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="watchman-coverage-"))
        self.root, self.marks, self.units = (self.top / n for n in ("up", "marks", "units"))
        for directory in (self.root, self.marks, self.units, self.top / "state"):
            directory.mkdir()
        self.plan = plan
        self.publisher = Remembering()
        self.count = 0
        self.markers: set[str] = set()
        """What tells that all that happened before has been dealt with."""

    def config(self) -> Config:
        """Return the configuration as it would be read now."""
        ours = [
            Watch(str(self.marks), existing=Existing.ALL, rescan=0.0),
            Watch(str(self.units), kind=WatchKind.DIRECTORIES, existing=Existing.ALL, rescan=0.0),
        ]
        given, globs = [*ours], []
        for one in self.plan.watches:
            path = str(self.root / (one.pattern or one.path)).rstrip("/")
            watch = replace(one, path=path, pattern=path if one.pattern else "")
            if not one.pattern and not self._is_in_the_way(watch, given):
                given.append(watch)
            elif one.pattern:
                globs.append(watch)
        found: list[Watch] = []
        for watch in expand(given, globs).watches:
            if not self._is_in_the_way(watch, found):
                found.append(watch)
        patterns = [str(self.marks / "*"), str(self.units / "*"), *self.plan.patterns]
        return config_for(
            self.root,
            self.top / "state",
            watches=tuple(found),
            globs=tuple(globs),
            patterns=tuple((pattern, ROUTE) for pattern in patterns),
            ignore=IGNORE,
            dry_run=self.plan.dry_run,
        )

    @staticmethod
    def _is_in_the_way(watch: Watch, given: list[Watch]) -> bool:
        return any(meet(watch, other, mounts.real_path) for other in given)

    def do(self, step: Step) -> None:
        """Let something happen; what is not possible just now does not."""
        self.count += 1
        path = self.root / step.path
        if step.what in ("write", "place"):
            path = self.pick(step.which) / step.path
        with contextlib.suppress(OSError):
            if step.what == "mkdir":
                path.mkdir(parents=True)
            elif step.what == "write":
                path.write_text(str(self.count))
            elif step.what == "place":
                (self.top / "file").write_text(str(self.count))
                (self.top / "file").rename(path)
            elif step.what == "bring":
                away = self.top / f"away{self.count}"
                (away / step.to).parent.mkdir(parents=True, exist_ok=True)
                (away / step.to).write_text(str(self.count))
                away.rename(path)
            elif step.what == "rename":
                self.pick(step.which).rename(self.pick(step.which // 4) / step.to)
            elif step.what == "remove":
                shutil.rmtree(self.pick(step.which))
                self.root.mkdir(exist_ok=True)

    def pick(self, which: int) -> Path:
        """Return one of the directories that are there."""
        found = sorted(above for above, _, _ in os.walk(self.root))
        return Path(found[which % len(found)])

    def settle(self, pipeline: Pipeline) -> None:
        """Wait until all that happened so far has been dealt with."""
        watchers = (pipeline.parts.local, pipeline.parts.loops[0].watcher)

        def is_scanned() -> bool:
            busy = any(one.scanner.pending or one._schedule._asked for one in watchers)
            return not busy and all(one.watching for one in watchers)

        for _ in range(2):
            wait_until(is_scanned, what="the scans are over", interval=0.002)
            self.count += 1
            expected = {str(self.marks / str(self.count)), str(self.units / str(self.count))}
            self.markers |= expected
            (self.marks / str(self.count)).write_text("x")
            (self.units / str(self.count)).mkdir()
            wait_until(partial(self.are_sent, expected), what="markers are sent", interval=0.002)
            files = pipeline.parts.local.files
            wait_until(partial(self.are_judged, files), what="files are judged", interval=0.002)
        for root in itertools.chain.from_iterable(one.source.roots for one in watchers):
            pending: list[Node] = [root]
            for node in pending:
                pending.extend((node.children or {}).values())
            assert root.directories == len(pending), "the directories are counted"

    @staticmethod
    def are_judged(files: Files) -> bool:
        """Say whether no file waits to be complete."""
        return not len(files.incomplete)

    @staticmethod
    def are_watched(pipeline: Pipeline, paths: set[str]) -> bool:
        """Say whether just these are watched, or will be by the next pipeline."""
        units = pipeline.parts.loops[0].watcher.source.roots
        roots = {root.watch.path for root in pipeline.parts.local.source.roots}
        return pipeline._stopping or paths == roots | {root.watch.path for root in units}

    def are_sent(self, paths: set[str]) -> bool:
        """Say whether all of them were sent."""
        return paths.issubset(self.publisher.paths)

    @property
    def sent(self) -> list[str]:
        """What was sent so far, but for the markers."""
        return [path for path in self.publisher.paths if path not in self.markers]

    def there(self) -> set[tuple[str, bool]]:
        """Return what is there now, each with whether it is a directory."""
        found = set()
        for above, directories, files in os.walk(self.root):
            found |= {(os.path.join(above, name), True) for name in directories}
            found |= {(os.path.join(above, name), False) for name in files}
        return found

    # What must hold

    def run(self) -> None:
        """Play it all; at the end there is another start."""
        for step in self.plan.before:
            self.do(step)
        history = list(self.plan.history)
        while history:
            self.run_once(history)
        self.run_once(history)

    def run_once(self, history: list[Step]) -> None:
        """Start, let happen what comes before the next restart, and compare."""
        config = self.config()
        # What changed as lately as the kernel's clock is coarse may be an arrival (`existing`).
        old = time.time_ns() + 2 * CLOCK_GRAIN_NS
        wait_until(lambda: time.time_ns() > old, what="all is older than the start", interval=0.002)
        Journal(config.state_dir).close()
        with open_reader(config.state_dir) as journal:
            found = list(scanning.unknown(config, journal))
        expected = {u.path for u in found if u.task and not u.note and u.state == "complete"}
        before, at_start = len(self.sent), self.there()
        with running(config, self.publisher) as (pipeline, _):
            self.settle(pipeline)
            assert set(self.sent[before:]) == expected, "what scan finds, the start sends"
            assert len(self.sent[before:]) == len(expected)
            self.hold_to_match(config, self.sent[before:], self.sent, at_start, at_start=True)
            if self.live(pipeline, history):
                pipeline.rescan()
                self.settle(pipeline)
                new = self.there() - at_start
                sent = self.sent[before:]
                self.hold_to_match(pipeline.config, sent, sent, new, at_start=False)

    def live(self, pipeline: Pipeline, history: list[Step]) -> bool:
        """Let things happen until the next restart; False where the pipeline ended by itself."""
        while history:
            step = history.pop(0)
            if step.what == "restart":
                break
            if step.what == "settle":
                self.settle(pipeline)
            elif step.what == "rescan":
                pipeline.rescan()
            elif step.what == "glob" and pipeline.parts.globs is not None:
                self.settle(pipeline)
                pipeline.parts.globs._look()
                wanted = {watch.path for watch in pipeline.parts.globs._config.watches}
                wait_until(
                    partial(self.are_watched, pipeline, wanted),
                    what="the new are watched, and no others",
                )
            else:
                self.do(step)
            if pipeline._stopping:
                return False
        return True

    def hold_to_match(
        self,
        config: Config,
        sent: Sequence[str],
        ever: Sequence[str],
        there: Iterable[tuple[str, bool]],
        *,
        at_start: bool,
    ) -> None:
        """Hold what was ``sent`` against ``match``, and what is ``there`` against ``ever``.

        ``ever``: all that was sent so far. ``at_start``: when the pipeline started.
        """
        for path in sent:
            found = checks.match(config, path)
            assert found.task or "unless it was there" in found.reason, f"{path} is sent: {found}"
        for path, is_directory in there:
            found = checks.match(config, path)
            watch = next((w for w in config.watches if w.path == found.watch), None)
            if (
                watch is None
                or found.reason
                or (watch.kind is WatchKind.DIRECTORIES) != is_directory
            ):
                continue
            if found.condition and not (at_start and "when watchman starts" in found.condition):
                continue
            if watch.mask is not None or watch.existing is not Existing.ALL:
                continue
            if sum(path.startswith(other.prefix) for other in config.watches) > 1:
                continue  # the other one may have noted it
            if is_directory and watch.marker and not os.path.exists(f"{path}/{watch.marker}"):
                continue
            assert path in ever, f"{path} is there: {found}"


@pytest.mark.timeout(7200 if LONG else 300)  # many pipelines, one after the other
# The same plans in each run: one that shows another disagreement is for the long form to find.
@settings(max_examples=EXAMPLES, derandomize=not LONG, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32))
def test_match_and_scan_say_what_a_pipeline_does(seed: int) -> None:
    made = plan(random.Random(seed))
    note(str(made))
    site = Site(made)
    try:
        with mock.patch("watchman.pipeline.glob_watcher.CHECK", 3600.0):  # when a step says so
            site.run()
    finally:
        shutil.rmtree(site.top)
