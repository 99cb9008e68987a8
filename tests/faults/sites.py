"""A daemon, its file systems, its broker and its faults: where a program of uploads is run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.faults.driver import Daemon, Launcher, Sent, in_redis
from tests.faults.expected import digest_of
from tests.faults.programs import Step
from tests.faults.proxy import Proxy
from tests.faults.uploads import Uploads
from tests.mounted import fill
from tests.servers.fuse import FuseServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman import mounts
from watchman.journal.journal_reader import JournalReader, open_reader
from watchman.model import State, Version

CONFIG = """\
from watchman.journal import write_retry
from watchman.mover import deferred, obstacles
from watchman.pipeline import pipeline, schedule, watcher
from watchman.sender import sender

# What went wrong is over soon.
sender.FIRST_RETRY, sender.LONGEST_RETRY = 0.05, 0.2
sender.CHANGED_AGAIN = sender.OBSTRUCTED_AGAIN = 0.1
deferred.LONGEST_DELAY = write_retry.LONGEST_DELAY = obstacles.LONGEST_DELAY = 0.3
pipeline.CHECK = schedule.CHECK = watcher.CHECK = 0.3

STATE_DIR = {state!r}
BROKERS = {{'b': {url!r}}}
WATCHES = [{{'path': {up!r}, 'rec': True, 'auto_add': True, 'method': {method!r},
             'settle': {settle!r}, 'interval': 0.2}}]
PATTERNS = [('*', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}}}})]
MOVES = {moves!r}
"""
FUSE = ("fuse", "polled")
KINDS = ("disk", "tmpfs", *FUSE)
MOVES = ("", "same", "other")
PATIENCE = 30.0
SHARED_MEMORY = "/dev/shm"


class Site:
    """A context manager; runs programs and checks what came of them.

    ``kind``: what the uploads are on; ``moves``: no MOVES, to the same or another file system.
    """

    def __init__(
        self, kind: str, moves: str, launcher: Launcher, server: RedisServer, queue: str
    ) -> None:
        self._kind, self._launcher, self._server, self._queue = kind, launcher, server, queue
        self._undo = contextlib.ExitStack()
        self._moves = moves
        self._marks = 0
        self._seen: Counter[str] = Counter()
        """How many task ids a source had when all was settled."""
        self._doubled: set[str] = set()
        """Task ids that were sent twice for a reason."""
        self._crashed = False
        self._digests: dict[str, bytes] = {}
        self.done: list[Step] = []

    def __enter__(self) -> Site:
        with contextlib.ExitStack() as undo:
            self._base = Path(tempfile.mkdtemp(prefix="watchman-identities-"))
            undo.callback(shutil.rmtree, self._base, ignore_errors=True)
            other = Path(tempfile.mkdtemp(prefix="watchman-identities-", dir=SHARED_MEMORY))
            undo.callback(shutil.rmtree, other)
            self._state = self._mounted("state", undo)
            self._mount(undo)
            self.up, stage = self._point / "up", self._point / "stage"
            self._store = {"same": self._point / "store", "other": other}.get(self._moves)
            for path in (self.up, stage, self._store):
                if path is not None:
                    path.mkdir(exist_ok=True)
            stability = mounts.stability_of(mounts.filesystem_type(str(self.up)))
            self.uploads = Uploads(
                self.up,
                stage,
                moves=bool(self._moves),
                polled=self._kind == "polled",
                ctime_tells=stability.ctime_tells,
                inodes_last=stability.inodes_last,
            )
            self._proxy = Proxy(self._server.port)
            undo.callback(self._proxy.close)
            self._configure()
            undo.callback(self._end)
            self._daemon: Daemon | None = None
            self.up_again()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _mounted(self, name: str, undo: contextlib.ExitStack) -> Path:
        path = self._base / name
        path.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "watchman-test", str(path)], check=True
        )
        undo.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
        return path

    def _mount(self, undo: contextlib.ExitStack) -> None:
        """Have something at ``_point`` that can be unmounted and mounted again."""
        self._point = self._base / "point"
        self._fuse: FuseServer | None = None
        if self._kind in FUSE:
            self._fuse = undo.enter_context(FuseServer(self._point))
            return
        self._real = self._base / "real"
        if self._kind == "tmpfs":
            self._mounted("real", undo)
        else:
            self._real.mkdir()
        self._point.mkdir()
        self._bind()
        undo.callback(self._unbind)

    def _bind(self) -> None:
        subprocess.run(["mount", "--bind", str(self._real), str(self._point)], check=True)

    def _unbind(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._point)], check=True)

    def _configure(self) -> None:
        (self._base / "config.py").write_text(
            CONFIG.format(
                state=str(self._state),
                url=f"redis://127.0.0.1:{self._proxy.port}/0",
                up=str(self.up),
                method="poll" if self._kind == "polled" else "inotify",
                settle=0.2 if self._kind in FUSE else None,
                queue=self._queue,
                moves={str(self.up): str(self._store)} if self._store else {},
            )
        )

    def _end(self) -> None:
        self.uploads.close()
        if self._daemon is not None:
            self._daemon.kill()

    # Running

    def run(self, steps: Sequence[Step]) -> None:
        """Run a program; AssertionError where the daemon did not do as the model has it."""
        for step in steps:
            self.done.append(step)
            act: Callable[..., None] = getattr(self, f"do_{step.do}", None) or getattr(
                self.uploads, step.do
            )
            act(*step.args)
            if self._daemon is not None:
                assert self._daemon.status is None, self._daemon.output[-3000:]

    def do_lull(self, milliseconds: int) -> None:
        """Let the daemon get as far as it gets: chance, and not a state that is waited for."""
        threading.Event().wait(milliseconds / 1000)

    def do_seen(self) -> None:
        """Have all that happened so far recorded, if that is possible."""
        if self._daemon is None or self._is_full:
            return
        source = str(self._mark())
        self._await(lambda: source in self._recorded(), "the mark is recorded")

    # Faults

    def do_kill(self) -> None:
        self.do_down()
        self.up_again()

    def do_down(self) -> None:
        self.do_free()
        self.uploads.lose_events()
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon = None
            self._crashed = True

    def do_up(self) -> None:
        if self._daemon is None:
            self.up_again()

    def up_again(self) -> None:
        """Start the daemon and wait until it watches."""
        self._daemon = Daemon(self._launcher, self._base / "config.py")
        self._daemon.wait_watching()

    def do_reload(self) -> None:
        self.uploads.lose_events()
        if self._daemon is not None:
            os.kill(self._daemon.pid, signal.SIGHUP)

    def do_outage(self) -> None:
        self._proxy.down = True
        self._proxy.cut()
        self._crashed = True  # what had been sent just then may be sent again

    def do_over(self) -> None:
        self._proxy.down = False

    @property
    def _filler(self) -> Path:
        return self._state / "filler"

    @property
    def _is_full(self) -> bool:
        return self._filler.exists()

    def do_full(self) -> None:
        """Leave not a byte free where the journal is."""
        fill(self._filler)

    def do_free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def do_remount(self) -> None:
        self.uploads.finish()
        self.uploads.lose_events()
        if self._fuse is not None:
            self.uploads.renumbered = True
            self._fuse.remount()
        else:
            self._unbind()
            self._bind()

    # Checking

    def do_settle(self) -> None:
        """Wait until all is announced and moved, and compare."""
        self.do_free()
        self.do_over()
        self.do_up()
        for _ in range(2):  # a scan that had begun before the first is over with the second
            source = str(self._mark())
            self._await(lambda source=source: source in self._recorded(), "the mark is recorded")  # type: ignore[misc]  # — binds source
        self._await(self._is_settled, "all is settled")
        try:
            self._check()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._story()}") from error
        self._crashed = False
        self.uploads.settle()

    def _await(self, observe: Callable[[], bool], what: str) -> None:
        try:
            wait_until(observe, PATIENCE, what, interval=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._story()}") from error

    def _story(self) -> str:
        """Everything one may want to know of a failure."""
        with open_reader(str(self._state)) as found:
            rows = _rows(found.connection)
            known = {path: _known(found, path) for path in self.uploads.due()}
        ids = {path: len(many) - self._seen[path] for path, many in self._ids().items()}
        return "\n".join(
            (
                f"due, and known: {known}",
                f"new ids: { {path: n for path, n in ids.items() if n} }",
                f"there: {self.uploads.there()}",
                f"unsettled: {[row for row in rows if row[2] in (State.MOVING, State.READY)]}",
                f"since settled: {self._since_settled()}",
                "" if self._daemon is None else self._daemon.output[-4000:],
            )
        )

    def _since_settled(self) -> list[Step]:
        settled = [n for n, step in enumerate(self.done[:-1]) if step.do == "settle"]
        return self.done[settled[-1] + 1 if settled else 0 :]

    def _mark(self) -> Path:
        self._marks += 1
        path = self.up / f"mark{self._marks}"
        path.write_text("x")
        return path

    def _recorded(self) -> set[str]:
        with open_reader(str(self._state)) as found:
            return {source for source, _, _ in _rows(found.connection)}

    def _is_settled(self) -> bool:
        with open_reader(str(self._state)) as found:
            rows = _rows(found.connection)
            known = {path: _known(found, path) for path in self.uploads.due()}
        if any(state in (State.MOVING, State.READY) for _, _, state in rows):
            return False
        if not all(self.uploads.is_as_known(path, version) for path, version in known.items()):
            return False
        if self._store is not None and self.uploads.there():
            return False
        ids = self._ids()
        return all(len(ids.get(path, ())) > self._seen[path] for path in known)

    def _sent(self) -> list[Sent]:
        return [
            message
            for message in in_redis(self._server.port, self._queue)
            if not os.path.basename(message.source).startswith("mark")
        ]

    def _ids(self) -> dict[str, set[str]]:
        ids: dict[str, set[str]] = {}
        for message in self._sent():
            ids.setdefault(message.source, set()).add(message.task_id)
        return ids

    def _check(self) -> None:
        """Compare what came of the uploads since all was settled with what had to."""
        sent, ids = self._sent(), self._ids()
        for path, many in ids.items():
            new, limit = len(many) - self._seen[path], self.uploads.limit(path)
            assert new <= limit, f"{path}: {new} new task ids, not {limit}"
        doubled = {task for task, n in Counter(m.task_id for m in sent).items() if n > 1}
        if self._crashed:
            self._doubled |= doubled
        assert doubled <= self._doubled, f"sent twice: {doubled - self._doubled}"
        self._seen = Counter({path: len(many) for path, many in ids.items()})
        with open_reader(str(self._state)) as found:
            failed = [row for row in _rows(found.connection) if row[2] is State.FAILED]
        assert not failed, f"failed: {failed}"
        if self._store is not None:
            self._check_store(self._store, sent)
        for top in (self.up, self._store):
            if top is not None:
                left = [str(path) for path in top.rglob(".watchman-*")]
                assert not left, f"left behind: {left}"

    def _check_store(self, store: Path, sent: Sequence[Sent]) -> None:
        """The store holds the uploads, each with a task of its own, and nothing else."""
        stored = {
            str(path)
            for path in store.rglob("*")
            if path.is_file() and not path.name.startswith("mark")
        }
        finals = {message.task_id: message.path for message in sent}
        assert len(set(finals.values())) == len(finals), f"one file, two tasks: {finals}"
        announced = set(finals.values())
        assert not stored - announced, f"no task for {stored - announced}"
        assert not announced - stored, f"not there: {announced - stored}"
        sources = {message.path: message.source for message in sent}
        found = Counter((sources[path], self._digest(path)) for path in stored)
        for upload, number in found.items():
            most = self.uploads.possible[upload]
            assert number <= most, f"{upload[0]} is there {number} times, not {most}: {upload[1]!r}"
        lost = self.uploads.certain - found
        assert not lost, f"lost: {lost}"
        missing = self.uploads.somewhere - {digest for _, digest in found}
        assert not missing, f"lost on the way: {missing}"

    def _digest(self, path: str) -> bytes:
        if path not in self._digests:
            self._digests[path] = digest_of(path)
        return self._digests[path]


def _known(found: JournalReader, path: str) -> Version | None:
    directory, _, name = path.rpartition("/")
    return found.known(directory).get(name)


def _rows(connection: sqlite3.Connection) -> list[tuple[str, str, State]]:
    """Return source, task id and state of all deliveries."""
    return [
        (os.fsdecode(source), task, State(state))
        for source, task, state in connection.execute(
            "SELECT source, task_id, state FROM deliveries"
        )
    ]
