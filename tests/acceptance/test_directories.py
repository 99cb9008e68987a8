"""Finished directories through kills: one task each, sent after the rename, the tree complete."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.started import Daemon
from tests.acceptance.workers import queued
from tests.waiting import wait_until

COUNT = 200
KILLED_AFTER = (40, 110)
"""So many tasks sent before each ``kill -9``."""
FILES = ("a.dcm", "deep/b.dcm", "deep/er/c.dcm")

CONFIG = """\
BROKERS = {{'pacs': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'kind': 'directories'}}]
PATTERNS = [('{upload}/*', {{'broker': 'pacs', 'task': 'import_dicomdir'}})]
MOVES = {{{upload!r}: {storage!r}}}
"""


def fill(directory: Path, number: int, pace: threading.Event) -> None:
    """Fill a directory file by file, slowly enough for the daemon to see it unfinished."""
    for name in FILES:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number} {name}")
        pace.wait(0.005)


def make(upload: Path, outside: Path, killed: threading.Event) -> None:
    """Make each directory under an unfinished name, or outside, then give it its final name.

    The last of them only when the daemon has been killed for the last time.
    """
    pace = threading.Event()
    for number in range(COUNT):
        if number == 150:
            killed.wait()
        final = upload / f"series{number}"
        made = outside / final.name if number % 4 == 0 else upload / f"{final.name}.tmp{number}"
        fill(made, number, pace)
        made.rename(final)


def await_tasks(url: str, count: int) -> None:
    """Wait until at least so many tasks were sent."""
    wait_until(lambda: len(queued(url)) >= count, 30, f"{count} tasks")


def test_200_directories_and_two_kills(
    tmp_path: Path, storage: Path, daemon: Callable[..., Daemon], redis_url: str
) -> None:
    upload, outside = tmp_path / "upload", tmp_path / "outside"
    upload.mkdir()
    outside.mkdir()
    notify = daemon(CONFIG.format(url=redis_url, upload=str(upload), storage=str(storage)))
    expected = {str(storage / f"series{number}") for number in range(COUNT)}
    with notify:
        killed = threading.Event()
        writer = threading.Thread(target=make, args=(upload, outside, killed))
        writer.start()
        try:
            for count in KILLED_AFTER:
                await_tasks(redis_url, count)
                notify.kill()
                if count == KILLED_AFTER[-1]:
                    killed.set()
                notify.start()
        finally:
            killed.set()
            writer.join()
        wait_until(lambda: {task.path for task in queued(redis_url)} >= expected, 30, "all tasks")
        notify.stop()
    ids: dict[str, set[str]] = collections.defaultdict(set)
    for task in queued(redis_url):
        ids[task.path].add(task.task_id)
    assert set(ids) == expected
    assert all(len(several) == 1 for several in ids.values()), "doubled without a mark"
    for number in range(COUNT):
        tree = storage / f"series{number}"
        found = {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.is_file()}
        assert found == {name: f"{number} {name}" for name in FILES}
    assert list(upload.iterdir()) == []
