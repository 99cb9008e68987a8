"""A daemon and a worker in a scratch directory, and sample files for them.

The daemon and the worker are the real ones, in processes of their own; only the broker is the
embedded one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any, TextIO

import click

from watchman.errors import WatchmanError
from watchman.text import printable

CONFIG = """\
BROKERS = {{'embedded': 'filesystem://'}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [
    ({pattern!r} + '/*/events/*.csv', {{'broker': 'embedded', 'task': 'import_events'}}),
    ({pattern!r} + '/*.csv', {{'broker': 'embedded', 'task': 'import_table'}}),
    ({pattern!r} + '/*.nc', {{'broker': 'embedded', 'task': 'import_grid'}}),
]
MOVES = {{{upload!r}: {storage!r}}}
"""

SAMPLES = {
    "stations.csv": "station,level\nA,1.25\nB,0.75\n",
    "anna/events/storm.csv": "time,event\n12:00,storm\n",
    "anna/forecast.nc": "not really a grid\n",
    "ben/new/directory/levels.csv": "station,level\nC,2.5\n",
}

START_SECONDS = 60.0
TASK_SECONDS = 60.0

Line = tuple[str, str | None]
"""(who says it, the line; None at the end)."""


class Demo:
    """One demonstration."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()

    def run(self, *, once: bool) -> None:
        """Show the samples; then, unless ``once``, whatever is dropped until Ctrl-C.

        Raises WatchmanError if a sample's task does not arrive. SIGTERM and SIGHUP (a terminal
        that is closed) end it as Ctrl-C does.
        """
        # Without this the daemon and the worker would live on, each in a session of its own. SIGINT
        # is ignored where a script has started us in the background.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        with tempfile.TemporaryDirectory(prefix="watchman-demo-") as name:
            scratch = Path(name)
            upload, storage = scratch / "upload", scratch / "storage"
            upload.mkdir()
            storage.mkdir()
            config = scratch / "config.py"
            names = {"upload": str(upload), "storage": str(storage)}
            config.write_text(CONFIG.format(**names, pattern=escape(str(upload))))
            with self._processes(scratch, config):
                try:
                    self._show_samples(upload, storage)
                    if not once:
                        click.echo(f"Drop .csv or .nc files into {upload}; Ctrl-C ends the demo.")
                        while True:
                            self._show(*self._next(None))
                except KeyboardInterrupt:
                    if once:
                        raise WatchmanError("the demo was ended before all tasks came") from None

    @contextlib.contextmanager
    def _processes(self, scratch: Path, config: Path) -> Iterator[None]:
        state = scratch / "var"
        state.mkdir(mode=0o700)
        environment = {**os.environ, "WATCHMAN_DEMO_STATE": str(state)}
        for variable in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
            environment.pop(variable, None)
        # Names are UTF-8 here whatever the locale (see __main__), so they are for the worker.
        python = [sys.executable, "-X", "utf8"]
        daemon = [*python, "-m", "watchman", "run", "--config", str(config)]
        worker = [*python, "-W", "ignore", "-m", "celery", "--quiet"]
        worker += ["-A", "watchman.demo.worker"]
        worker += ["worker", "--pool", "solo", "--loglevel", "ERROR", "--without-gossip"]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._process("worker", worker, environment, scratch))
            stack.enter_context(self._process("notify", daemon, environment, scratch))
            yield

    @contextlib.contextmanager
    def _process(
        self, who: str, command: list[str], environment: Mapping[str, str], directory: Path
    ) -> Iterator[None]:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            # Ctrl-C is for the demo, which then ends the others in order.
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(who, process.stdout), daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(5)
            process.stdout.close()

    def _read(self, who: str, stream: TextIO) -> None:
        for line in stream:
            self._lines.put((who, line.rstrip("\n")))
        self._lines.put((who, None))

    def _next(self, deadline: float | None) -> tuple[str, str]:
        """Return the next line of either process. Raises WatchmanError at the deadline."""
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            who, line = self._lines.get(timeout=left)
        except queue.Empty:
            raise WatchmanError("the demo's tasks did not arrive in time") from None
        if line is None:
            raise WatchmanError(f"the demo's {who} ended; its last lines are above")
        return who, line

    def _show(self, who: str, line: str) -> Mapping[str, Any]:
        """Print a line; return what the worker said of a task, or nothing."""
        if who == "worker" and line.startswith("{"):
            said: Mapping[str, Any] = json.loads(line)
            if "task" in said:
                path = printable(said["path"])
                click.echo(f"worker: {said['task']}({path!r}), {said['bytes']} bytes")
            return said
        click.echo(f"{who}: {line}")
        return {}

    def _show_samples(self, upload: Path, storage: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        waiting_for = {"notify", "worker"}
        while waiting_for:
            who, line = self._next(deadline)
            said = self._show(who, line)
            if said.get("ready") or (who == "notify" and "Watching" in line):
                waiting_for.discard(who)
        for name, content in SAMPLES.items():
            path = upload / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        deadline = time.monotonic() + TASK_SECONDS
        missing = {str(storage / name) for name in SAMPLES}
        while missing:
            missing.discard(str(self._show(*self._next(deadline)).get("path")))
        click.echo(f"All {len(SAMPLES)} uploads became tasks, and the worker received them.")
