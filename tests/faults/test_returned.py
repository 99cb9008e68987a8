"""A source that could not be removed after its copy is back, and its task is not sent yet."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, in_redis
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.journal.journal_reader import open_reader
from watchman.model import State

CONFIG = """\
BROKERS = {{'redis': {url!r}}}
WATCHES = [{{'path': {inbox!r}, 'rec': True, 'auto_add': True, 'kind': {kind!r}}}]
PATTERNS = [('*/unit*', {{'broker': 'redis', 'task': 'task'}})]
MOVES = {{{directory!r}: {store!r}}}
"""


def ready(state: Path) -> int:
    with open_reader(str(state)) as journal:
        found = journal.counts().items()
        return sum(number for (_, state), (number, _) in found if state is State.READY)


@pytest.mark.parametrize(
    ("kind", "name", "renames"),
    # The first attempt shows that it has to be copied; a copied tree is renamed to its final path.
    [("files", "unit.csv", 2), ("directories", "unit/part.csv", 3)],
    ids=["file", "directory"],
)
def test_what_comes_back_is_moved_and_announced_by_itself(
    kind: str,
    name: str,
    renames: int,
    tmp_path: Path,
    other_device: Path,
    own_redis: RedisServer,
    daemon: Callable[..., Daemon],
) -> None:
    inbox, store, config = other_device / "inbox", tmp_path / "store", tmp_path / "config.py"
    directory, away, made = inbox / "d", other_device / "away", other_device / "made" / name
    for path in (directory, store, made.parent):
        path.mkdir(parents=True)
    paths = {"inbox": str(inbox), "directory": str(directory), "store": str(store)}
    config.write_text(CONFIG.format(url=own_redis.url, kind=kind, **paths))
    daemon(config).wait_watching().stop()
    own_redis.stop(signal.SIGKILL)

    # Killed when the copy is in its place and the source is to be removed.
    made.write_text("content")
    first = daemon(config, ("kill", "rename before", renames)).wait_watching()
    unit = Path(name).parts[0]
    (other_device / "made" / unit).rename(directory / unit)
    assert first.wait_end() == -signal.SIGKILL
    assert store.joinpath(name).read_text() == "content"

    # It is not there to be removed, and then it is; its task is not sent before that.
    directory.rename(away)
    second = daemon(config).wait_watching()
    wait_until(lambda: ready(tmp_path / "var") == 1, what="what was copied waits for its broker")
    away.rename(directory)
    wait_until(lambda: ready(tmp_path / "var") == 2, what="what came back is another arrival")
    assert not list(directory.iterdir())
    own_redis.start()
    wait_until(lambda: not ready(tmp_path / "var"), 30, "both are sent")
    second.stop()
    sent = in_redis(own_redis.port)
    assert len({message.task_id for message in sent}) == 2
    assert {message.source for message in sent} == {str(directory / unit)}
    finals = {str(path) for path in store.iterdir()}
    assert {message.path for message in sent} == finals
    assert [path.read_text() for path in store.rglob("*.csv")] == ["content", "content"]
