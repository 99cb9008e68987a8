"""Several at once, and death at any moment: never two daemons, never a wrong answer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site, end
from tests.checkout import ROOT
from tests.waiting import wait_until
from watchman import record_locks
from watchman.daemon import pidfile
from watchman.errors import AlreadyRunning

HOLD = """
import sys
from watchman.daemon import pidfile
held = pidfile.claim(sys.argv[1])
print('held', flush=True)
sys.stdin.read()
held.remove()
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a pid file; it lets go when its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.communicate(timeout=20)


@pytest.mark.parametrize("number", [2, 5])
def test_several_starts_at_once(site: Site, number: int) -> None:
    starts = [site.popen("start") for _ in range(number)]
    done = [(*start.communicate(timeout=100), start.returncode) for start in starts]
    pid = site.pid
    assert site.holders() == {pid}
    won = [output for output, _, status in done if status == 0]
    lost = [errors for _, errors, status in done if status == 1]
    assert len(won) == 1
    assert f"process id {pid}" in won[0]
    assert lost == [f"notify: already running with process id {pid}\n"] * (number - 1)
    assert site.out.read_text().count("Watching 1 director") == 1
    site.stop()


def test_start_and_stop_again_and_again(site: Site) -> None:
    """With kill -9 in between at random: each answer is right each time."""
    chance = random.Random(4)
    running = 0
    for _ in range(15):
        action = chance.choice(("start", "start", "stop", "kill", "status"))
        if action == "start":
            done = site.notify("start")
            assert done.returncode == (1 if running else 0), done.stderr
            assert not running or f"process id {running}\n" in done.stderr
            running = site.pid
        elif action == "stop":
            done = site.notify("stop")
            assert done.returncode == (0 if running else 1), done.stderr
            running = 0
            assert not site.pid_file.exists()
        elif action == "kill" and running:
            end(running)
            running = 0
        found = site.status()
        assert found["state"] == ("active" if running else "inactive")
        assert found["pid"] == (running or None)
        assert site.holders() == ({running} if running else set())


def test_stop_while_it_starts(site: Site) -> None:
    """The earliest moment at which it can be found: no handler of its own may be there yet."""
    with site.popen("start") as start:
        wait_until(
            lambda: record_locks.holder_of(str(site.pid_file)),
            30,
            "a held pid file",
            interval=0.0005,
        )
        stopped = site.notify("stop")
        output, errors = start.communicate(timeout=60)
    assert stopped.returncode == 0, stopped.stderr
    assert start.returncode in (0, 1)
    assert bool(output) == (start.returncode == 0)
    assert bool(errors) == (start.returncode == 1)
    assert not site.holders()
    assert not site.pid_file.exists()


def test_stops_at_once(site: Site) -> None:
    site.start()
    stops = [site.popen("stop") for _ in range(3)]
    done = [(*stop.communicate(timeout=100), stop.returncode) for stop in stops]
    for output, errors, status in done:
        # The later ones may find nothing any more.
        assert (status == 0) == (output == "Watching has been stopped.\n"), (output, errors)
    assert 0 in [status for _, _, status in done]
    assert not site.pid_file.exists()


def test_a_left_over_is_not_removed_from_under_its_new_holder(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with holding(path) as process:
        assert record_locks.holder_of(str(path)) is not None
        assert not pidfile.clear(str(path))
        with pytest.raises(AlreadyRunning, match=f"process id {process.pid}$"):
            pidfile.claim(str(path))
    assert not path.exists()


def test_a_file_that_is_removed_while_it_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock on a file without a name would be held by nobody who can be found."""
    path = tmp_path / "pid"
    wait_for = record_locks.wait_for
    removed: list[bool] = []

    def remove_first(descriptor: int, byte: int = record_locks.GUARD) -> None:
        if not removed:
            removed.append(True)
            path.unlink()
        wait_for(descriptor, byte)

    monkeypatch.setattr(record_locks, "wait_for", remove_first)
    held = pidfile.claim(str(path))
    assert removed
    assert path.read_text() == f"{os.getpid()}\n"
    held.remove()
    assert not path.exists()


def test_asking_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.touch()
    assert record_locks.holder_of(str(path)) is None
    assert record_locks.holder_of(str(tmp_path / "none")) is None
    with holding(path) as process:
        found = record_locks.holder_of(str(path))
        assert found is not None
        assert found[0] == process.pid
        os.kill(process.pid, signal.SIGSTOP)
        assert record_locks.holder_of(str(path)) == found
        os.kill(process.pid, signal.SIGCONT)
