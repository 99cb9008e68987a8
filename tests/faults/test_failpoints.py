"""SIGKILL before and after each instant at which something becomes true, then a restart."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, check, in_directory, wait_for_tasks
from tests.waiting import wait_until

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'b': 'filesystem://'}}
WATCHES = [
    {{'path': p, 'rec': True, 'auto_add': True, 'existing': {existing!r}}} for p in {watches!r}
]
PATTERNS = [('*', {{'broker': 'b', 'task': 't'}})]
MOVES = {moves!r}
"""

POINTS = [
    ("create journal before", 1),
    ("create journal after", 1),
    ("note first run before", 1),
    ("note first run after", 1),
    ("record before", 1),
    ("inside record before", 1),
    ("inside record after", 1),
    ("inside record after", 2),
    ("record after", 1),
    ("record after", 2),
    ("redirect before", 1),
    ("redirect after", 1),
    ("rename before", 1),
    ("rename after", 1),
    ("rename after", 3),
    ("copy after", 1),
    ("unlink before", 1),
    ("unlink after", 2),
    ("fsync before", 2),
    ("fsync after", 4),
    ("note ready before", 1),
    ("note ready after", 1),
    ("publish before", 1),
    ("publish after", 1),
    ("publish after", 2),
    ("note sent before", 1),
    ("note sent before", 2),
    ("note sent after", 1),
]


class Site:
    """Three watches: one without a move, one moved by rename, one moved by copying."""

    def __init__(self, near: Path, far: Path, existing: str) -> None:
        self.state = near / "state"
        self.config = near / "config.py"
        plain, renamed, copied = near / "plain", near / "renamed", far / "copied"
        self.uploads = (plain, renamed, copied)
        self.moves = {}
        for source in (renamed, copied):
            self.moves[str(source)] = str(near / f"{source.name}-store")
        for path in (*self.uploads, *map(Path, self.moves.values())):
            path.mkdir()
        watches = [str(path) for path in self.uploads]
        self.config.write_text(
            CONFIG.format(
                state=str(self.state), watches=watches, moves=self.moves, existing=existing
            )
        )
        self.files: dict[str, bytes] = {}

    def upload(self, name: str) -> None:
        """Put a file of this name into each watch; half of them by renaming."""
        for number, directory in enumerate(self.uploads):
            path = directory / name
            content = f"{path}".encode()
            path.parent.mkdir(exist_ok=True)
            if number % 2:
                hidden = path.with_name(f".in.{path.name}.")
                hidden.write_bytes(content)
                hidden.rename(path)
            else:
                path.write_bytes(content)
            self.files[str(path)] = content

    def take_names(self, *names: str) -> None:
        """Have the names exist at the destinations: they must not be overwritten."""
        for root in self.moves.values():
            for name in names:
                (Path(root) / name).write_text("was there before")

    def check(self) -> None:
        sent = wait_for_tasks(self.files, lambda: in_directory(self.state))
        check(self.files, sent, self.moves)


@pytest.mark.parametrize(("point", "count"), POINTS, ids=lambda value: str(value).replace(" ", "-"))
def test_killed_and_restarted(
    point: str,
    count: int,
    tmp_path: Path,
    other_device: Path,
    daemon: Callable[..., Daemon],
) -> None:
    # As long as there is no journal, nobody can know that this is not the first run.
    site = Site(tmp_path, other_device, "all" if point.startswith("create") else "new")
    site.take_names("a.csv")
    first = daemon(site.config, ("kill", point, count))
    wait_until(first.watches, 30, "it watches, or has been killed")
    # One after the other, until it dies: later ones meet it between two commits.
    for number, name in enumerate(("a.csv", "b.csv", "sub/c.csv", "d.csv")):
        site.upload(name)
        wait_until(
            lambda: first.status is not None or len(in_directory(site.state)) >= len(site.files),
            20,
            f"{point} or the tasks of upload {number}",
        )
    assert first.wait_end() == -signal.SIGKILL
    site.upload("while-down.csv")
    second = daemon(site.config).wait_watching()
    site.upload("later.csv")
    site.check()
    second.stop()
    for root in site.moves.values():
        assert (Path(root) / "a.csv").read_text() == "was there before"
        assert not list(Path(root).rglob(".watchman*"))
