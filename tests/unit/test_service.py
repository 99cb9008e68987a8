"""What the service does with a configuration that it does not take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from watchman import config as configuration
from watchman import guard, service, signals
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
    path.write_text(CONFIG.format(watched=str(tmp_path), state="state"))
    first = configuration.load(str(path))
    configuration.adopt(first)
    path.write_text(CONFIG.format(watched=str(tmp_path), state="elsewhere"))
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
