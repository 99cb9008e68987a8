"""A state machine over uploads, renames, deletes, crashes and outages, against a model.

The model is small: it knows every version that was ever complete at a path, and what is there now.
Nothing that was never there may be announced, everything that is there must be, and each version
has one task id. WATCHMAN_LONG=1 runs many more examples.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults.driver import Daemon, Launcher, in_redis
from tests.faults.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.pipeline import task_id

LONG = os.environ.get("WATCHMAN_LONG") == "1"
EXAMPLES, STEPS = (500, 40) if LONG else (8, 20)

NAMES = st.sampled_from(["a", "b", "c d", "é", "n\nl"])
FOLDERS = st.sampled_from(["", "x", "y", "x/z"])
_numbers = itertools.count(1)

CONFIG = """\
BROKERS = {{'b': {url!r}}}
WATCHES = [{{'path': {root!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [('*', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}}}})]
"""


class Uploads(RuleBasedStateMachine):
    """The rules; servers are put in by the test."""

    launcher: Launcher
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.proxy = Proxy(self.server.port)
        self.directory = Path(tempfile.mkdtemp(prefix="watchman-model-"))
        self.root = self.directory / "up"
        self.queue = f"model{next(_numbers)}"
        self.ever: set[str] = set()
        self.faults = 0
        self.daemon: Daemon | None = None

    @initialize()
    def begin(self) -> None:
        self.root.mkdir()
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        (self.directory / "config.py").write_text(
            CONFIG.format(url=url, root=str(self.root), queue=self.queue)
        )
        self._start()
        assert self.daemon is not None
        self.daemon.wait_watching()

    def _start(self) -> None:
        self.daemon = Daemon(self.launcher, self.directory / "config.py")

    # What uploaders do

    def _path(self, folder: str, name: str) -> Path:
        return self.root / folder / name

    def _look(self) -> None:
        """Remember what is there now: it may be announced from here on."""
        self.ever |= self._there().keys()

    def _there(self) -> dict[str, Path]:
        return {
            task_id(str(path), version_of(path.lstat())): path
            for path in self.root.rglob("*")
            if path.is_file() and not path.name.startswith(".in.")
        }

    @rule(folder=FOLDERS, name=NAMES, hidden=st.booleans(), pieces=st.integers(0, 3))
    def upload(self, folder: str, name: str, hidden: bool, pieces: int) -> None:
        path = self._path(folder, name)
        if path.is_dir() or not _make(path.parent):
            return
        written = path.with_name(f".in.{name}.") if hidden else path
        with written.open("wb", buffering=0) as file:
            for _ in range(pieces):
                file.write(b"%d" % next(_numbers))
            self.ever.add(task_id(str(path), version_of(os.fstat(file.fileno()))))
        if hidden:
            written.rename(path)
        self._look()

    @rule(folder=FOLDERS, name=NAMES)
    def append(self, folder: str, name: str) -> None:
        path = self._path(folder, name)
        if path.is_file():
            with path.open("ab", buffering=0) as file:
                file.write(b"more %d" % next(_numbers))
                self.ever.add(task_id(str(path), version_of(os.fstat(file.fileno()))))
            self._look()

    @rule(folder=FOLDERS, name=NAMES, to_folder=FOLDERS, to_name=NAMES)
    def rename(self, folder: str, name: str, to_folder: str, to_name: str) -> None:
        path, to = self._path(folder, name), self._path(to_folder, to_name)
        if path.is_file() and not to.is_dir() and _make(to.parent):
            path.rename(to)
            self._look()

    @rule(folder=FOLDERS, name=NAMES)
    def delete(self, folder: str, name: str) -> None:
        path = self._path(folder, name)
        if path.is_file():
            path.unlink()

    @rule(folder=FOLDERS.filter(bool), to=st.sampled_from(["x", "y", "w", "y/z", ".dst1"]))
    def rename_directory(self, folder: str, to: str) -> None:
        path, target = self.root / folder, self.root / to
        inside = str(target).startswith(f"{path}/") or target == path
        if path.is_dir() and not target.exists() and not inside and target.parent.is_dir():
            path.rename(target)
            self._look()

    @rule(folder=st.sampled_from(["x", "y", "w", ".dst1"]))
    def delete_directory(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    @precondition(lambda self: (self.root / ".dst1").is_dir())
    @rule()
    def finish_directory(self) -> None:
        if not (self.root / "w").exists():
            (self.root / ".dst1").rename(self.root / "w")
            self._look()

    # What goes wrong

    @precondition(lambda self: self.daemon is not None)
    @rule()
    def crash(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon = None
        self.faults += 1

    @precondition(lambda self: self.daemon is None)
    @rule(wait=st.booleans())
    def restart(self, wait: bool) -> None:
        self._start()
        assert self.daemon is not None
        if wait:
            self.daemon.wait_watching()

    @rule()
    def outage(self) -> None:
        self.proxy.down = True
        self.proxy.cut()
        self.faults += 1

    @rule()
    def outage_over(self) -> None:
        self.proxy.down = False

    # What must hold

    @rule()
    def settle(self) -> None:
        """Give it the time to send what is there, without a restart, if nothing is broken."""
        if self.daemon is not None and not self.proxy.down:
            self._wait_for_all()

    def _wait_for_all(self) -> None:
        def missing() -> list[Path]:
            sent = {message.task_id for message in in_redis(self.server.port, self.queue)}
            return [
                path
                for identity, path in self._there().items()
                if identity not in sent and "/.dst1/" not in str(path)
            ]

        try:
            wait_until(lambda: not missing(), 20, "a task for all that is there")
        except AssertionError as error:
            log = self.daemon.output if self.daemon is not None else ""
            raise AssertionError(f"never sent: {missing()}\n{log}") from error

    @invariant()
    def nothing_else_was_sent(self) -> None:
        if self.daemon is None:
            return
        assert self.daemon.status is None, self.daemon.output

    def teardown(self) -> None:
        try:
            if self.root.exists():
                self._end()
        finally:
            if self.daemon is not None:
                self.daemon.kill()
            self.proxy.close()
            shutil.rmtree(self.directory)

    def _end(self) -> None:
        self.proxy.down = False
        if self.daemon is not None:
            self.daemon.kill()  # its back-off may be long by now
        self._start()
        assert self.daemon is not None
        self.daemon.wait_watching()
        self._wait_for_all()
        sent = in_redis(self.server.port, self.queue)
        strange = [message for message in sent if message.task_id not in self.ever]
        assert not strange, f"never there: {strange}\n{self.daemon.output}"


def _make(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False  # a file is in the way
    return True


@pytest.mark.timeout(3600 if LONG else 180)
def test_against_the_model(launcher: Launcher, redis_server: RedisServer) -> None:
    machine = type("Machine", (Uploads,), {"launcher": launcher, "server": redis_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not LONG,
            database=None,
            phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
