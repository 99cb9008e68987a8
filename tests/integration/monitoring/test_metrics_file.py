"""METRICS_FILE: whole at every moment, of now, and no reason for anything to wait."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.checkout import ROOT
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman import guard
from watchman.journal import Journal, counters
from watchman.monitoring import Monitoring, metrics_file


@pytest.fixture
def monitoring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitoring]:
    monkeypatch.setattr(metrics_file, "EVERY", 0.02)
    found = Monitoring()
    yield found
    found.close()


def values(path: Path) -> dict[str, float]:
    families = text_string_to_metric_families(path.read_text("utf-8"))
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in families
        for sample in family.samples
    }


def sent(path: Path) -> float | None:
    return values(path).get("watchman_sent_total['b']")


def test_it_follows_what_happens(tmp_path: Path, monitoring: Monitoring) -> None:
    up, out = tmp_path / "up", tmp_path / "out"
    up.mkdir()
    out.mkdir()
    path = out / "watchman.prom"
    config = config_for(up, tmp_path / "state", metrics_file=str(path))
    with running(config, monitoring=monitoring):
        wait_until(path.exists, what="it is written")
        for number in range(1, 4):
            (up / f"{number}").write_text("x")
            wait_until(lambda n=number: sent(path) == n, what="it counts")  # type: ignore[misc]  # — binds the number
        found = values(path)
        assert found["watchman_arrivals_total['b']"] == 3
        assert found["watchman_latency_seconds_count['b']"] == 3
        # Others may read it, and nothing else lies there for long.
        assert path.stat().st_mode & 0o777 == 0o644
        assert {name for name in os.listdir(out) if name.endswith(".prom")} == {path.name}


def test_a_directory_that_is_missing_is_said_until_it_is_there(
    tmp_path: Path, monitoring: Monitoring
) -> None:
    up, out = tmp_path / "up", tmp_path / "out"
    up.mkdir()
    path = out / "watchman.prom"
    config = config_for(up, tmp_path / "state", metrics_file=str(path))
    with running(config, monitoring=monitoring) as (pipeline, publisher):
        wait_until(monitoring.troubles, what="it is said")
        [trouble] = monitoring.troubles()
        assert trouble.subject == str(path)
        assert "cannot be written: No such file or directory" in trouble.message
        shown = [one["subject"] for one in pipeline.snapshots.take()["troubles"]]
        assert shown == [str(path)]
        (up / "1").write_text("x")
        wait_until(lambda: publisher.paths == [str(up / "1")], what="files go on")
        out.mkdir()
        wait_until(path.exists)
        wait_until(lambda: not monitoring.troubles(), what="it is over")


def test_what_killed_processes_left_is_removed(tmp_path: Path, monitoring: Monitoring) -> None:
    up, out, state = tmp_path / "up", tmp_path / "out", tmp_path / "state"
    for directory in (up, out, state):
        directory.mkdir()
    left = [
        out / ".watchman.prom.0123456789abcdef.new",
        state / ".status.json.0123456789abcdef.new",
    ]
    for file in left:
        file.write_text("")
        os.utime(file, (1, 1))
    path = out / "watchman.prom"
    with running(config_for(up, state, metrics_file=str(path)), monitoring=monitoring):
        wait_until(path.exists, what="it is written")
        assert not [file for file in left if file.exists()]


def is_locked(path: Path) -> bool:
    """Whether this process holds a lock on a file, as the kernel has it."""
    wanted = str(os.getpid()), str(path.stat().st_ino)
    locks = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    return any((lock[4], lock[5].rpartition(":")[2]) == wanted for lock in locks if len(lock) == 8)


@pytest.fixture
def in_the_midst(
    tmp_path: Path, monitoring: Monitoring, monkeypatch: pytest.MonkeyPatch
) -> Callable[[threading.Event], Journal]:
    """Return a journal that is just being read for the metrics, until an event, or a moment."""

    def begin(over: threading.Event) -> Journal:
        reading = threading.Event()
        read = counters.read

        def slowly(connection: sqlite3.Connection) -> Mapping[counters.Key, int]:
            reading.set()
            over.wait(1.0)
            return read(connection)

        monkeypatch.setattr(counters, "read", slowly)
        journal = Journal(str(tmp_path))
        config = config_for(tmp_path, tmp_path, metrics_file=str(tmp_path / "watchman.prom"))
        monitoring.begin(config, journal)
        assert reading.wait(10)
        return journal

    return begin


def test_a_journal_that_is_opened_again_meanwhile_is_locked(
    tmp_path: Path, in_the_midst: Callable[[threading.Event], Journal]
) -> None:
    over = threading.Event()
    in_the_midst(over).close()
    journal = Journal(str(tmp_path))
    over.set()
    assert is_locked(tmp_path / "journal.db")
    # A process that finds no lock takes itself for the last one, and removes the log.
    text = "import sys; from watchman.journal.hold_orders import hold; hold(sys.argv[1], [], 'me')"
    subprocess.run((sys.executable, "-c", text, tmp_path), cwd=ROOT, check=True)
    assert (tmp_path / "journal.db-wal").exists()
    journal.close()


def test_a_process_that_is_forked_meanwhile_can_lock_the_journal(
    tmp_path: Path, monitoring: Monitoring, in_the_midst: Callable[[threading.Event], Journal]
) -> None:
    def open_it(_: object) -> bool:
        journal = Journal(str(tmp_path))
        try:
            return is_locked(tmp_path / "journal.db")
        finally:
            journal.close()

    over = threading.Event()
    in_the_midst(over).close()
    monitoring.close()
    assert guard.run(open_it, lambda: None, over.set)
