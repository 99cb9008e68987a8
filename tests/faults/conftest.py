"""A launcher for all tests of a session, the daemons that it starts, and a sender's bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.bench import Bench
from tests.faults.driver import Daemon, Launcher
from watchman.sender import sender


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.end()


@pytest.fixture
def daemon(launcher: Launcher) -> Iterator[Callable[..., Daemon]]:
    """Start daemons; all end with the test."""
    started: list[Daemon] = []

    def start(config: Path, fault: tuple[str, str, int] | None = None) -> Daemon:
        started.append(Daemon(launcher, config, fault))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(sender, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(sender, "LONGEST_RETRY", 0.05)
    monkeypatch.setattr(sender, "CHANGED_AGAIN", 0.02)
    monkeypatch.setattr(sender, "OBSTRUCTED_AGAIN", 0.02)
    bench = Bench(tmp_path)
    yield bench
    bench.sender.stop()
    assert bench.sender.join(10)
    bench.journal.close()
    assert bench.sender.error is None
