"""One daemon for a state directory; a thread that dies ends the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, in_directory, wait_for_tasks
from tests.waiting import wait_until


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("upload", "moved", "store"):
        (tmp_path / name).mkdir()
    path = tmp_path / "config.py"
    path.write_text(
        f"STATE_DIR = {str(tmp_path / 'state')!r}\n"
        "BROKERS = {'b': 'filesystem://'}\n"
        f"WATCHES = [{{'path': {str(tmp_path / 'upload')!r}}},\n"
        f"           {{'path': {str(tmp_path / 'moved')!r}}}]\n"
        "PATTERNS = [('*', {'broker': 'b', 'task': 't'})]\n"
        f"MOVES = {{{str(tmp_path / 'moved')!r}: {str(tmp_path / 'store')!r}}}\n"
    )
    return path


def test_one_daemon_for_a_state_directory(config: Path, daemon: Callable[..., Daemon]) -> None:
    first = daemon(config).wait_watching()
    second = daemon(config)
    assert second.wait_end() == 1
    assert f"already running with process id {first.pid}" in second.output
    assert str(config.with_name("state")) in second.output
    assert "Traceback" not in second.output
    first.kill()
    daemon(config).wait_watching().stop()


@pytest.mark.parametrize("part", ["sender", "mover", "pipeline", "reader"])
def test_a_thread_that_dies_ends_the_process(
    config: Path, daemon: Callable[..., Daemon], part: str
) -> None:
    """With a status that makes a supervisor restart it; and the restart loses nothing."""
    running = daemon(config, ("raise", f"{part} before", 3))
    wait_until(running.watches, 20)
    files = []
    for number in range(6):
        for name in ("upload", "moved"):
            path = config.with_name(name) / f"{number}"
            path.write_text("x")
            files.append(str(path))
    status = running.wait_end(20)
    assert status > 0
    assert "the test's fault" in running.output
    last = daemon(config).wait_watching()
    wait_for_tasks(files, lambda: in_directory(config.with_name("state")))
    last.stop()
