"""SIGKILL while sets wait, are recorded, moved and sent: one task for each, about all its files."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, Sent, in_directory, killed_at_random
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import State

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'b': 'filesystem://'}}
WATCHES = [{{'path': p, 'rec': True, 'auto_add': True}} for p in {watches!r}]
PATTERNS = [
    ('*.shp', {{'broker': 'b', 'task': 't', 'set_after': {after!r},
                'with': ['{{stem}}.shx', '{{stem}}.dbf', '{{stem}}.prj?']}}),
    ('*', {{'broker': 'b', 'task': 'alone'}}),
]
MOVES = {moves!r}
"""
ENDS = ("shp", "shx", "dbf", "prj")
KILLS = int(os.environ.get("WATCHMAN_KILLS", "8"))
POINTS = [
    ("note partial after", 1),
    ("drop partial before", 1),
    ("forget after", 1),
    ("record before", 3),
    ("inside record after", 1),
    ("record after", 1),
    ("rename after", 3),
    ("copy after", 3),
    ("note ready before", 1),
    ("note ready after", 2),
    ("publish after", 1),
    ("note sent before", 1),
]
if os.environ.get("WATCHMAN_LONG"):
    POINTS += [
        ("forget before", 1),
        ("record before", 1),
        ("record after", 3),
        ("rename before", 1),
        ("rename after", 1),
        ("copy after", 1),
        ("unlink before", 1),
        ("unlink after", 3),
        ("note ready after", 1),
        ("publish before", 1),
        ("publish after", 2),
        ("note sent after", 1),
    ]


class Sets:
    """Three watches: one stays, one is renamed into its store, one is copied; and their sets."""

    def __init__(self, near: Path, far: Path, after: float = 0.5) -> None:
        self.state, self.config = near / "state", near / "config.py"
        self.plain = near / "plain"
        self.moves = {near / "renamed": near / "store", far / "copied": near / "copies"}
        self.watches = [self.plain, *self.moves]
        for path in (*self.watches, *self.moves.values()):
            path.mkdir()
        text = CONFIG.format(
            state=str(self.state),
            watches=list(map(str, self.watches)),
            moves={str(source): str(root) for source, root in self.moves.items()},
            after=after,
        )
        self.config.write_text(text)
        self.versions: dict[Path, int] = {}
        """By main file: how often its set was uploaded, in whole or in part."""
        self.content: dict[Path, str] = {}
        """By path before a move: what was uploaded last."""

    def write(self, main: Path, ends: list[str]) -> None:
        """Upload files of a set, one after the other."""
        self.versions[main] = self.versions.get(main, 0) + 1
        self.write_again(main, ends)

    def write_again(self, main: Path, ends: list[str]) -> None:
        """Upload files that are missing, or once more what the same task will be about."""
        for end in ends:
            path = main.with_suffix(f".{end}")
            self.content[path] = f"{path} {self.versions[main]}\n" * 50
            path.write_text(self.content[path])

    def sent(self) -> list[Sent]:
        return in_directory(self.state)

    def is_settled(self) -> bool:
        """Whether each set has been sent as it is, and nothing is on its way."""
        latest = {one.source: one for one in self.sent()}
        if latest.keys() < set(map(str, self.versions)):
            return False
        with open_reader(str(self.state)) as journal:
            query = "SELECT count(*) FROM deliveries WHERE state IN (1, 2)"
            (under_way,) = journal.connection.execute(query).fetchone()
            rows = journal.connection.execute(
                "SELECT source, mtime_ns FROM deliveries WHERE state = 3"
            ).fetchall()
        sent = {(os.fsdecode(source), mtime_ns) for source, mtime_ns in rows}
        there = [path for main in self.versions for path in map(Path, self.files(main))]
        return not under_way and all(
            (str(path), path.stat().st_mtime_ns) in sent for path in there if path.exists()
        )

    def files(self, main: Path) -> list[str]:
        return [str(main.with_suffix(f".{end}")) for end in ENDS]

    def check(self) -> None:
        """Each upload of a set has one id, and each of its tasks all files at their places."""
        ids: dict[str, set[str]] = {}
        for one in self.sent():
            ids.setdefault(one.source, set()).add(one.task_id)
            assert one.files[:1] == (one.path,)
            assert len(one.files) == len(ENDS), one
            for source, final in zip(self.files(Path(one.source)), one.files, strict=True):
                root = self.moves.get(Path(source).parent)
                assert Path(final).parent == (root or self.plain)
                assert Path(final).suffix == Path(source).suffix
        assert ids.keys() == set(map(str, self.versions)), "a file alone, or no task"
        assert {main: len(ids[str(main)]) for main in self.versions} == self.versions
        for one in {one.source: one for one in self.sent()}.values():
            for source, final in zip(self.files(Path(one.source)), one.files, strict=True):
                assert Path(final).read_text() == self.content[Path(source)]
        with open_reader(str(self.state)) as journal:
            query = "SELECT source, reason FROM deliveries WHERE state = ?"
            assert journal.connection.execute(query, (int(State.FAILED),)).fetchall() == []


@pytest.mark.parametrize(("point", "count"), POINTS, ids=lambda value: str(value).replace(" ", "-"))
def test_killed_and_restarted(
    point: str, count: int, tmp_path: Path, other_device: Path, daemon: Callable[..., Daemon]
) -> None:
    site = Sets(tmp_path, other_device)
    first = daemon(site.config, ("kill", point, count))
    wait_until(first.watches, 60, "it watches")
    chance = random.Random(f"{point} {count}")

    def settled() -> bool:
        return first.status is not None or site.is_settled()

    for number in range(3):
        for directory in site.watches:
            site.write(directory / f"{number}.shp", chance.sample(ENDS, len(ENDS)))
        waiting = site.watches[1] / f"waiting-{number}.shp"
        site.write(waiting, ["shp", "dbf"])
        said = f"{waiting} waits: waiting-{number}.shx is missing"
        wait_until(
            lambda said=said: first.status is not None or said in first.log.read_text(),  # type: ignore[misc]  # — binds
            60,
            f"{point} or what waits",
        )
        site.write_again(waiting, ["prj", "shx"])
        wait_until(settled, 60, f"{point} or the tasks of upload {number}")
        if first.status is None:
            site.write(site.plain / f"{number}.shp", [chance.choice(ENDS)])
            wait_until(settled, 60, f"{point} or the task of the part that came again")
        if first.status is not None:
            break
    assert first.wait_end() == -signal.SIGKILL
    second = daemon(site.config).wait_watching()
    site.write(site.plain / "later.shp", list(ENDS))
    wait_until(site.is_settled, 60, "all tasks")
    site.check()
    second.stop()
    assert "Traceback" not in second.log.read_text("utf-8", "replace")


def test_random_kills(tmp_path: Path, other_device: Path, daemon: Callable[..., Daemon]) -> None:
    """Kills at any moment, while the files of many sets come in any order."""
    chance = random.Random(16)
    site = Sets(tmp_path, other_device, after=30.0)
    running = daemon(site.config).wait_watching()
    left: list[tuple[Path, str]] = []

    def upload(main: Path, end: str) -> None:
        site.write_again(main, [end])
        left.remove((main, end))

    for number in range(KILLS * 6):
        main = chance.choice(site.watches) / f"{number}.shp"
        site.versions[main] = 1
        left += [(main, end) for end in ENDS]
        chance.shuffle(left)
        for main, end in left[: chance.randrange(len(left) + 1)]:
            upload(main, end)
        if number % 6 == 5:
            running = killed_at_random(running, chance, lambda: daemon(site.config))
    running.wait_watching()
    for main, end in list(left):
        upload(main, end)
    wait_until(site.is_settled, 90, "all tasks")
    site.check()
    running.stop()
    assert "Traceback" not in running.log.read_text("utf-8", "replace")
