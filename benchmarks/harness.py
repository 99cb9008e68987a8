"""What the benchmarks share: places for trees and journals, and processes looked at from outside.

Uploads go to tmpfs, so that the writer is fast; the journal goes to a disk, so that its fsyncs
are real. Everything is measured from outside the daemon: its log, /proc, and the broker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 — only directories made by mkdtemp, below it
MEGABYTE = 1024 * 1024
WATCHING = rb"\bWatching \d+ director"
"""What the daemon logs when every directory is watched and it has caught up."""

sys.path.insert(0, str(ROOT))  # for tests.servers and this checkout's watchman


class BenchmarkError(Exception):
    """A benchmark that cannot go on, or whose result is no result."""


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with an option for each default, and those that all programs take."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, value in defaults.items():
        found.add_argument(f"--{name}", type=type(value), default=value, help=" ")
    found.add_argument("--output", type=Path, default=HERE / "results", help="where JSON goes")
    found.add_argument("--disk", type=Path, default=None, help="where journals go: not on tmpfs")
    found.add_argument("--peer", type=Path, default=find_peer(), help="handler_watcher.py")
    return found


def find_peer() -> Path | None:
    """Return the peer's program: ``$WATCHMAN_PEER``, or one that lies beside the checkout."""
    named = os.environ.get("WATCHMAN_PEER")
    if named:
        return Path(named)
    return next(iter(sorted(ROOT.parent.glob("*/peers/handler_watcher.py"))), None)


def need(*binaries: str) -> None:
    """Fail where a program is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    missing = [name for name in binaries if shutil.which(name, path=path) is None]
    if missing:
        raise BenchmarkError(f"not installed: {', '.join(missing)}")


def file_system(path: Path) -> str:
    """Return the type of the file system that ``path`` is on, as /proc/self/mounts says it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mounted, found, *_ = line.split(" ")
        inside = mounted.rstrip("/") + "/"
        if f"{path.resolve()}/".startswith(inside) and len(inside) >= len(best):
            best, kind = inside, found
    return kind


class Places:
    """Scratch directories: ``uploads`` on tmpfs, ``disk`` for journals, logs and brokers."""

    def __init__(self, uploads: Path, disk: Path) -> None:
        self.uploads = uploads
        self.disk = disk
        self._made = 0

    def fresh(self, what: str) -> tuple[Path, Path]:
        """Return a new directory on tmpfs and one on the disk."""
        self._made += 1
        pair = (self.uploads / f"{what}{self._made}", self.disk / f"{what}{self._made}")
        for path in pair:
            path.mkdir()
        return pair

    def require(self, files: int) -> None:
        """Fail if tmpfs cannot hold so many files of one page each."""
        room = os.statvfs(self.uploads)
        if min(room.f_favail, room.f_bavail * room.f_frsize // 5000) < files:
            raise BenchmarkError(
                f"too little shared memory for {files} files; try a smaller --files"
            )


@contextlib.contextmanager
def places(options: argparse.Namespace) -> Iterator[Places]:
    """Make scratch directories, and remove them with all that is in them."""
    disks = [options.disk] if options.disk else [Path(tempfile.gettempdir()), ROOT]
    disk = next((path for path in disks if file_system(path) not in {"tmpfs", "ramfs"}), None)
    if disk is None:
        raise BenchmarkError("the journal belongs on a real disk: name a directory with --disk")
    memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else disk
    made = [Path(tempfile.mkdtemp(prefix="watchman-bench-", dir=path)) for path in (memory, disk)]
    try:
        yield Places(*made)
    finally:
        for path in made:
            remove(path)


def remove(path: Path) -> None:
    """Remove a tree; a million files take rm a few seconds, Python's own rmtree half a minute."""
    subprocess.run(["rm", "-rf", "--", str(path)], check=True)


def make_tree(root: Path, directories: int) -> None:
    """Make ``directories`` directories below ``root``: a hundredth of them hold 99 others each."""
    made = 0
    while made < directories:
        below = root / f"t{made:06d}"
        below.mkdir()
        inside = min(99, directories - made - 1)
        for number in range(inside):
            os.mkdir(f"{below}/s{number:02d}")
        made += 1 + inside


def environment() -> dict[str, str]:
    """Return the environment of what we start."""
    found = dict(os.environ, PYTHONPATH=str(ROOT))
    found.pop("CELERY_BROKER_URL", None)
    # A deployed watchman has its bytecode, and does not compile itself at each start.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


class Program:
    """A process that we started: its output is in ``log``, and it is ended by its pid."""

    def __init__(self, argv: list[str], log: Path) -> None:
        from tests.servers import Process

        self.log = log
        self._position = 0
        self._rest = b""
        self.began = time.monotonic()
        self._process = Process(argv, log, environment())
        self.pid = self._process.popen.pid

    @property
    def running(self) -> bool:
        """True as long as it has not ended."""
        return self._process.running

    def read(self) -> bytes:
        """Return what it has put out since the last call."""
        with self.log.open("rb") as stream:
            stream.seek(self._position)
            fresh = stream.read()
        self._position += len(fresh)
        return fresh

    def wait_for(self, text: bytes, seconds: float) -> float:
        """Return how long after its start, in seconds, it put out what matches ``text``."""
        deadline = time.monotonic() + seconds
        while True:
            ended = not self.running
            fresh = self.read()
            if re.search(text, self._rest + fresh):
                return time.monotonic() - self.began
            self._rest = (self._rest + fresh)[-100:]
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"went on for {seconds:.0f} s"
                said = self.log.read_text(errors="replace")[-2000:]
                raise BenchmarkError(f"a process {what} without saying {text!r}:\n{said}")
            pause(0.002)

    def memory_mb(self, field: str) -> float:
        """Return ``VmRSS`` (now) or ``VmHWM`` (the peak) in MB, and what its own processes add.

        They are forks of it: what they have in common with it (Pss tells) counts once.
        """
        kilobytes = _field(self.pid, "status", field)
        for child in self._children():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                kilobytes += _field(child, "smaps_rollup", "Pss")
        return kilobytes * 1024 / MEGABYTE

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]

    def threads(self) -> dict[int, float]:
        """Return how many seconds each thread, by its id, has run: the scheduler's ns clock."""
        return _threads(self.pid)

    def cpu_seconds(self) -> float:
        """Return how many seconds its threads, and those of its own processes, have run."""
        running = sum(sum(_threads(pid).values()) for pid in (self.pid, *self._children()))
        # Behind the name, which may hold blanks: cutime and cstime, of those that have ended.
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        ended = sum(map(int, stat.split()[13:15]))
        return running + ended / os.sysconf("SC_CLK_TCK")

    def stop(self, seconds: float = 60.0) -> int:
        """Ask it to end and return its exit status; negative if it had to be killed."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.popen.wait(seconds)
        self._process.stop()
        return int(self._process.popen.returncode)


def _field(pid: int, name: str, field: str) -> int:
    """Return a number out of a file of "Field: number kB" lines, proc(5)."""
    lines = Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def _threads(pid: int) -> dict[int, float]:
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            running, *_ = path.read_text(encoding="ascii").split()
            found[int(path.parent.name)] = int(running) / 1e9
    return found


def pause(seconds: float) -> None:
    """Let time pass."""
    threading.Event().wait(seconds)


@contextlib.contextmanager
def program(argv: list[str], log: Path) -> Iterator[Program]:
    """Run a process until the block ends."""
    started = Program(argv, log)
    try:
        yield started
    finally:
        started.stop()


def daemon_config(state: Path, root: Path, url: str, **settings: Any) -> Path:
    """Write a configuration: one watch, one broker, every .csv one task; return its path."""
    values: Mapping[str, Any] = {
        "BROKERS": {"b": url},
        "WATCHES": [{"path": str(root), "rec": True, "auto_add": True}],
        "PATTERNS": [(f"{root}/*.csv", {"broker": "b", "task": "import_csv"})],
        "STATE_DIR": str(state / "var"),
        **settings,
    }
    path = state / "config.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    return path


def daemon_argv(config: Path, checkout: Path = ROOT) -> list[str]:
    """Return the command that runs a checkout's daemon in the foreground."""
    # Python looks for modules in the working directory first.
    return [
        "env",
        f"--chdir={checkout}",
        sys.executable,
        *f"-m watchman run --config {config}".split(),
    ]


@contextlib.contextmanager
def daemon(config: Path, seconds: float = 120.0, checkout: Path = ROOT) -> Iterator[Program]:
    """Run a checkout's daemon; it watches when the block begins and must end in order behind it."""
    started = Program(daemon_argv(config, checkout), config.parent / "notify.log")
    try:
        started.wait_for(WATCHING, seconds)
        yield started
        status = started.stop()
        if status != 0:
            raise BenchmarkError(f"the daemon ended with status {status}:\n{_tail(started.log)}")
    finally:
        started.stop()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]


def run(main: Callable[[], int]) -> None:
    """Run a program's ``main`` and exit with its status; a BenchmarkError is a message and 1."""
    # So that processes are ended and directories removed.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BenchmarkError as failure:
        sys.exit(f"{Path(sys.argv[0]).name}: {failure}")
