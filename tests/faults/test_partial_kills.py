"""SIGKILL while files wait for their criteria: whole ones give one task, partial ones none."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, Sent, in_directory, killed_at_random
from tests.waiting import wait_until
from watchman.journal.failed_deliveries import failed
from watchman.journal.journal_reader import open_reader

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'b': 'filesystem://'}}
WATCHES = [{{'path': p, 'rec': True, 'auto_add': True}} for p in {watches!r}]
PATTERNS = [
    ('*.sum', {{'broker': 'b', 'task': 't', 'complete': {{'checksum': '{{name}}.sha256'}},
               'incomplete_after': {after!r}}}),
    ('*.gz', {{'broker': 'b', 'task': 't', 'complete': 'gzip', 'incomplete_after': {after!r}}}),
]
MOVES = {moves!r}
QUARANTINE = {quarantine!r}
"""
KILLS = int(os.environ.get("WATCHMAN_KILLS", "12"))
POINTS = [
    ("forget before", 1),
    ("forget after", 1),
    ("ask before", 1),
    ("ask after", 2),
    ("answers before", 1),
    ("answers after", 1),
    ("note partial before", 1),
    ("note partial after", 1),
    ("record before", 2),
    ("record after", 2),
    ("drop partial before", 1),
    ("drop partial after", 1),
]


class Uploading:
    """Two watches, one of which is moved, and what was uploaded whole into them."""

    def __init__(self, base: Path, after: float = 3600.0) -> None:
        self.state, self.config = base / "state", base / "config.py"
        self.watches = [base / "plain", base / "moved"]
        self.store, self.quarantine = base / "store", base / "quarantine"
        for path in (*self.watches, self.store, self.quarantine):
            path.mkdir()
        self.config.write_text(
            CONFIG.format(
                state=str(self.state),
                watches=list(map(str, self.watches)),
                moves={str(self.watches[1]): str(self.store)},
                quarantine=str(self.quarantine),
                after=after,
            )
        )
        self.whole: dict[str, bytes] = {}
        """What is at a path, or was before it was moved."""
        self.arrivals: Counter[str] = Counter()

    def write(self, path: Path, content: bytes, *, cut: int = 0) -> None:
        """Write a file, without its last ``cut`` bytes."""
        path.write_bytes(content[:-cut] if cut else content)
        if not cut:
            self.whole[str(path)] = content
            self.arrivals[str(path)] += 1

    def sent(self) -> list[Sent]:
        return in_directory(self.state)

    def all_sent(self) -> bool:
        return self.whole.keys() <= {one.source for one in self.sent()}

    def check(self) -> None:
        """Each whole file has a task for what is in it, with one id for each arrival; no other."""
        ids: dict[str, set[str]] = {}
        for one in self.sent():
            assert one.source in self.whole, f"{one.source} is partial"
            ids.setdefault(one.source, set()).add(one.task_id)
        assert ids.keys() == self.whole.keys()
        assert {s: len(found) for s, found in ids.items() if len(found) > self.arrivals[s]} == {}
        finals = {one.source: one.path for one in self.sent()}
        for source, content in self.whole.items():
            assert Path(finals[source]).read_bytes() == content, source


def a_gzip(text: str) -> bytes:
    return gzip.compress(text.encode() * 50)


@pytest.mark.parametrize(("point", "count"), POINTS, ids=lambda value: str(value).replace(" ", "-"))
def test_killed_and_restarted(
    point: str, count: int, tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    site = Uploading(tmp_path)
    first = daemon(site.config, ("kill", point, count))
    wait_until(first.watches, 60, "it watches")
    plain, moved = site.watches

    def settled() -> bool:
        return first.status is not None or site.all_sent()

    for number in range(3):
        again = plain / f"{number}.gz"
        site.write(again, a_gzip("first"))
        site.write(moved / f"{number}.gz", a_gzip("moved"))
        wait_until(settled, 60, f"{point} or the tasks of upload {number}")
        # Once more, partially: what was known is forgotten before it waits.
        again.write_bytes(a_gzip("second")[:-3])
        half = moved / f"half-{number}.gz"
        half.write_bytes(a_gzip("half")[:-3])
        wait_until(
            lambda n=number: (  # type: ignore[misc]  # — binds
                first.status is not None or first.log.read_text().count(" waits: ") >= 2 * n + 2
            ),
            60,
            f"{point} or what waits",
        )
        site.write(again, a_gzip("second"))
        site.write(half, a_gzip("half"))
        wait_until(settled, 60, f"{point} or the tasks of what waited")
        if first.status is not None:
            break
    assert first.wait_end() == -signal.SIGKILL
    second = daemon(site.config).wait_watching()
    site.write(plain / "later.gz", a_gzip("later"))
    last = {str(path): path.stat() for path in plain.glob("*.gz")}
    wait_until(lambda: site.all_sent() and is_quiet(site, last), 60, "all tasks")
    site.check()
    second.stop()


def is_quiet(site: Uploading, files: dict[str, os.stat_result]) -> bool:
    """Whether what is known at each path is what is there, and nothing waits."""
    with open_reader(str(site.state)) as journal:
        rows = journal.connection.execute(
            "SELECT source, mtime_ns FROM deliveries WHERE state = 3"
        ).fetchall()
        (waiting,) = journal.connection.execute("SELECT count(*) FROM partial").fetchone()
    sent = {(os.fsdecode(source), mtime_ns) for source, mtime_ns in rows}
    return not waiting and all((path, found.st_mtime_ns) in sent for path, found in files.items())


def test_random_kills(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    """A third is partial for ever, a third for a while; with checksums, moves and a quarantine."""
    chance = random.Random(7)
    site = Uploading(tmp_path, after=1.0)
    running = daemon(site.config).wait_watching()
    broken: list[Path] = []
    late: list[tuple[Path, bytes]] = []
    for number in range(KILLS * 15):
        directory = chance.choice(site.watches)
        suffix = chance.choice(["gz", "sum"])
        path = directory / f"{number}.{suffix}"
        content = a_gzip(f"{number}")
        if suffix == "sum":
            told = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
            path.with_name(path.name + ".sha256").write_text(told)
        fate = number % 3
        site.write(path, content, cut=0 if fate == 0 else 4)
        if fate == 1:
            broken.append(path)
        elif fate == 2:
            late.append((path, content))
        if chance.random() < 0.5 and late:
            resumed, content = late.pop(0)
            if resumed.exists():
                site.write(resumed, content)
        if number % 15 == 14:
            running = killed_at_random(running, chance, lambda: daemon(site.config))
    running.wait_watching()
    broken += [path for path, _ in late]
    late.clear()
    quarantined = {path.name for path in broken if str(path) not in site.whole}
    wait_until(
        lambda: site.all_sent() and quarantined <= names_in(site.quarantine), 90, "all is settled"
    )
    running.stop()
    for path in [path for path in map(Path, site.whole) if path.parent == site.watches[0]]:
        # It may have been given up before the rest came: then that is another arrival.
        site.arrivals[str(path)] += 1
    site.check()
    with open_reader(str(site.state)) as journal:
        reasons = Counter(Path(row.source).name for row in failed(journal))
    assert quarantined <= reasons.keys()
    assert "Traceback" not in running.log.read_text("utf-8", "replace")


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*")}
