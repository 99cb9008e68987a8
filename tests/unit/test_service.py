"""What the service does with a configuration that it does not take."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman import config as configuration
from watchman import guard, record_locks, service, signals
from watchman.config import belongings
from watchman.model import Config
from watchman.service import Service

CONFIG = """
from watchman import signals
BROKERS = {{'b': 'filesystem://'}}
WATCHES = [{{'path': {watched!r}}}]
PATTERNS = [({watched!r} + '/*', {{'broker': 'b', 'task': 't'}})]
STATE_DIR = {state!r}

@signals.arrived.connect
def arrived(sender, **_):
    pass
"""


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Config]:
    """A configuration in force, in place of which there is another one by now."""
    path = tmp_path / "config.py"
    watched = str(tmp_path / "up")
    path.write_text(CONFIG.format(watched=watched, state="state"))
    first = configuration.load(str(path))
    configuration.adopt(first)
    path.write_text(CONFIG.format(watched=watched, state="elsewhere"))
    yield first
    belongings.adopt(None)


def test_what_is_not_taken_when_the_lock_was_let_go_is_rejected(
    first: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_may_hang", lambda _config: True)
    monkeypatch.setattr(guard, "run", lambda *_: False)
    before = set(signals.arrived.receivers)
    assert len(before) == 1
    made = Service(lambda: configuration.load(first.path))
    assert made._with_lock(first) is first
    assert set(signals.arrived.receivers) == before


def test_a_full_disk_has_no_room_for_the_number_in_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", no_room)
    with service.locked(str(tmp_path)):
        assert Path(record_locks.lock_of(str(tmp_path))).read_bytes() == b""
