"""A part of the daemon runs only where there is work for it: threads, inotify instances."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

from tests.journals import failures
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.checks.report import needed_instances
from watchman.journal import Journal, NewDelivery
from watchman.model import Broker, Config, Route, Version, Watch, WatchKind

NEEDED = {
    "pipeline": "the main thread: parses, looks, records",
    "inotify-reader": "empties the kernel's queue",
    "sender-b": "publishes to the one broker",
    "socket": "answers who asks how it stands",
}
"""The threads of a daemon with one watch for files, one broker and no MOVES: what each is for."""


def instances(pid: int | str = "self") -> int:
    """Return how many inotify instances a process has."""
    found = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{descriptor}") == "anon_inode:inotify"
        except FileNotFoundError:
            continue  # that of the listing
    return found


def parts(config: Config) -> tuple[set[str], int]:
    """Return the threads and the inotify instances that a pipeline has besides."""
    before, had = set(threading.enumerate()), instances()
    with running(config):
        names = {thread.name for thread in set(threading.enumerate()) - before}
        return {name for name in names if not name.startswith("log-")}, instances() - had


def test_files_alone(root: Path, state: Path) -> None:
    names, count = parts(config_for(root, state))
    assert names == set(NEEDED)
    assert count == 1


def test_each_part_where_there_is_work_for_it(root: Path, state: Path, tmp_path: Path) -> None:
    config = config_for(root, state)
    units = Watch(str(tmp_path / "units"), kind=WatchKind.DIRECTORIES)
    glob = Watch(str(tmp_path / "g/*"), pattern=str(tmp_path / "g/*"))
    exact = Watch(str(tmp_path), processor=print, processor_name="print")
    processor = {"processor-print", "processor-print-events"}
    for changed, more, count in (
        (dataclasses.replace(config, watches=(*config.watches, units)), {"watch-units"}, 2),
        (dataclasses.replace(config, watches=(*config.watches, exact)), processor, 2),
        (dataclasses.replace(config, moves=((str(root), str(tmp_path)),)), {"mover"}, 1),
        (dataclasses.replace(config, globs=(glob,)), {"globs"}, 1),
    ):
        assert parts(changed) == (NEEDED.keys() | more, count)
        assert needed_instances(changed) == count


def test_a_broker_that_no_pattern_names(root: Path, state: Path) -> None:
    config = config_for(root, state)
    other = Broker("other", ("memory://",))
    names, _ = parts(dataclasses.replace(config, brokers={**config.brokers, "other": other}))
    assert "sender-b" in names
    assert "sender-other" not in names


def test_what_is_left_for_a_broker_that_no_pattern_names_is_sent(root: Path, state: Path) -> None:
    config = config_for(root, state)
    left(root, state, Route("other", "task"), moving=False)
    brokers = {**config.brokers, "other": Broker("other", ("memory://",))}
    with running(dataclasses.replace(config, brokers=brokers)) as (_, sent):
        wait_until(lambda: sent.paths == [str(root / "left.csv")])


def test_what_is_left_to_be_moved_without_moves_fails(root: Path, state: Path) -> None:
    left(root, state, Route("b", "task"), moving=True)
    with running(config_for(root, state)) as (pipeline, _):
        wait_until(lambda: failures(pipeline.journal), what="it is refused")
        [record] = failures(pipeline.journal)
    assert "no MOVES entry leads to its destination" in record.reason


def left(root: Path, state: Path, route: Route, *, moving: bool) -> None:
    """Leave a delivery in the journal, as an earlier configuration would have."""
    path = root / "left.csv"
    path.touch()
    status = path.stat()
    version = Version(status.st_dev, status.st_ino, 0, status.st_mtime_ns, status.st_ctime_ns)
    state.mkdir()
    journal = Journal(str(state))
    final = "/nowhere/left.csv" if moving else None
    journal.record([NewDelivery("id", str(path), final, version, 1, route)])
    journal.close()
