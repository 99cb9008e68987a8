"""Logging never holds up a file, whatever becomes of the output; and it says what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import Any

from tests.acceptance.started import NOTIFIED, SENDING, Daemon, command, environment, notify
from tests.acceptance.workers import queued
from tests.servers import tail
from tests.waiting import wait_until

CONFIG = """\
BROKERS = {{'lizard': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [('{upload}/*.csv', {{'broker': 'lizard', 'task': 'lizard_task'}})]
"""
HANDLERS = """
import logging, threading
FORMAT = '%(asctime)s [%(levelname)s] %(name)s: %(message)s'
def log_to(**handlers):
    for number, handler in enumerate(handlers.values()):
        handler.setdefault('formatter', 'f')
    return {'version': 1, 'formatters': {'f': {'format': FORMAT}}, 'handlers': handlers,
            'root': {'level': 'INFO', 'handlers': list(handlers)}}
FILE = {'class': 'logging.FileHandler', 'filename': 'watchman.log'}
class Stuck(logging.Handler):
    def emit(self, record):
        threading.Event().wait()
class Raising(logging.Handler):
    def emit(self, record):
        raise SystemExit('no more')
"""
USING = "from my_handlers import *\n"
UPLOADS = 3000
STOP = 8.0
"""Seconds: 2 for lines that cannot be written, the rest for a busy machine."""


class Silent:
    """``notify run`` whose standard output and error are a pipe that nobody reads."""

    def __init__(self, directory: Path, text: str) -> None:
        self.config = directory / "config.py"
        self.config.write_text(text, encoding="utf-8")
        (directory / "my_handlers.py").write_text(HANDLERS, encoding="utf-8")
        self.log = directory / "watchman.log"
        self.reading, writing = os.pipe()
        fcntl(self.reading, F_SETPIPE_SZ, 4096)
        self.process = subprocess.Popen(
            command("run", "--config", self.config),
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)

    def ask(self) -> subprocess.CompletedProcess[str]:
        return notify("status", "--json", "--config", self.config, cwd=self.config.parent)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask().stdout)
        return found

    def watches(self) -> None:
        # With troubles (2) as well: that of a handler is one.
        wait_until(lambda: self.ask().returncode in (0, 2), 30, "it is active", interval=0.2)

    def trouble(self, word: str, timeout: float = 40.0) -> str:
        """Wait until a trouble with this word is in the status; return its message."""

        def found() -> list[str]:
            troubles = self.status()["troubles"]
            return [t["message"] for t in troubles if word in f"{t['subject']}: {t['message']}"]

        return wait_until(found, timeout, f"the trouble {word!r}", interval=0.5)[0]

    def has_logged(self, words: str, count: int = 1, timeout: float = 30.0) -> None:
        def there() -> bool:
            return self.log.exists() and self.log.read_text().count(words) >= count

        wait_until(there, timeout, f"{count} × {words!r}: {tail(self.log)}", interval=0.1)

    def read(self) -> Iterator[str]:
        """Read what it has written and goes on to write, to the end."""
        with os.fdopen(os.dup(self.reading), encoding="utf-8") as lines:
            yield from lines

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP) == 0


@contextmanager
def silent(directory: Path, text: str) -> Iterator[Silent]:
    found = Silent(directory, text)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        os.close(found.reading)


def upload_all(upload: Path, count: int = UPLOADS) -> list[str]:
    paths = [upload / f"{number:05}.csv" for number in range(count)]
    for path in paths:
        path.write_text("x")
    return [str(path) for path in paths]


def all_sent(url: str, paths: list[str]) -> None:
    wait_until(lambda: len(queued(url)) >= len(paths), 60, f"{len(paths)} tasks", interval=0.2)
    assert sorted(task.path for task in queued(url)) == paths


def test_output_that_nobody_reads(tmp_path: Path, upload: Path, redis_url: str) -> None:
    with silent(tmp_path, CONFIG.format(url=redis_url, upload=str(upload))) as daemon:
        daemon.watches()
        all_sent(redis_url, upload_all(upload))
        message = daemon.trouble("log handler stderr")
        assert re.match(r"takes no lines: \d{4} wait, 0 were left out; ", message)
        daemon.stop()


def test_a_handler_that_hangs_beside_one_that_works(
    tmp_path: Path, upload: Path, redis_url: str
) -> None:
    text = USING + CONFIG.format(url=redis_url, upload=str(upload))
    stuck = "LOGGING = log_to(stuck={'class': 'my_handlers.Stuck'}, file=FILE)\n"
    with silent(tmp_path, text + stuck) as daemon:
        daemon.watches()
        paths = upload_all(upload)
        all_sent(redis_url, paths)
        daemon.has_logged(SENDING, UPLOADS)
        assert sorted(re.findall("Notified of (.*)", daemon.log.read_text())) == paths
        daemon.trouble("log handler stuck")
        daemon.has_logged("The log handler stuck takes no lines")
        # A reload leaves the one that hangs behind.
        daemon.config.write_text(text + "LOGGING = log_to(file=FILE)\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.has_logged("watchman.service: Reloaded")
        daemon.has_logged(": Watching ", 2)
        assert daemon.status()["troubles"] == []
        (upload / "after.csv").touch()
        daemon.has_logged(SENDING, UPLOADS + 1)
        daemon.stop()
        assert daemon.log.read_text().endswith("Watching has been stopped\n")


def test_what_was_left_out_is_counted(tmp_path: Path, upload: Path, redis_url: str) -> None:
    few = "from watchman import log_queue\nlog_queue.MOST_LINES = 500\n"
    text = CONFIG.format(url=redis_url, upload=str(upload))
    logging_ = "LOGGING = log_to(pipe={'class': 'logging.StreamHandler'}, file=FILE)\n"
    with silent(tmp_path, USING + few + text + logging_) as daemon:
        daemon.watches()
        all_sent(redis_url, upload_all(upload))
        assert " were left out; " in daemon.trouble("log handler pipe: takes no lines")
        daemon.has_logged("takes no lines; they are left out there until it does")
        lines = daemon.read()
        written = []
        for line in lines:
            written.append(line)
            if "lines are left out here" in line:
                break
        assert daemon.status()["state"] == "active"
        daemon.process.send_signal(signal.SIGTERM)
        written += lines
        assert daemon.process.wait(STOP) == 0
    [note] = [line for line in written if "left out here" in line]
    [(seconds, count)] = re.findall(r"took no lines for (\d+\.\d) s, and (\d+) lines are", note)
    assert float(seconds) > 0
    in_file = daemon.log.read_text()
    assert f"{count} lines are left out\n" in in_file
    # Each line is written here or counted: two for an upload, some of the service, and two for
    # each gap in the file, whose queue is as short, where the disk is slower than the uploads.
    service = in_file.count("watchman.service: Watching ")
    gaps = in_file.count("lines are left out here")
    assert len(written) - 1 + int(count) == 2 * UPLOADS + service + 2 * gaps
    assert written[-1].endswith("Watching has been stopped\n")
    assert sum(NOTIFIED in line for line in written) < UPLOADS


def test_a_syslog_that_is_not_there(tmp_path: Path, upload: Path, redis_url: str) -> None:
    address = str(tmp_path / "syslog")
    quick = "from watchman import log_queue\nlog_queue.QUIET = 0.0\n"
    text = USING + quick + CONFIG.format(url=redis_url, upload=str(upload))
    syslog = f"{{'class': 'logging.handlers.SysLogHandler', 'address': {address!r}}}"
    with silent(tmp_path, text + f"LOGGING = log_to(syslog={syslog}, file=FILE)\n") as daemon:
        daemon.watches()
        upload_all(upload, 3)
        daemon.has_logged(SENDING, 3)
        daemon.has_logged("[ERROR] watchman.service: The log handler syslog fails: ")
        assert "lines are missing there; " in daemon.trouble("log handler syslog: fails")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(address)
            server.settimeout(20)
            (upload / "b.csv").touch()
            assert b"Notified of" in server.recv(1000)
            daemon.has_logged("The log handler syslog works again")
            daemon.stop()
        assert "".join(daemon.read()) == ""
    assert daemon.log.read_text().count("log handler syslog fails") == 1


def test_a_fifo_without_a_reader(tmp_path: Path, upload: Path, redis_url: str) -> None:
    fifo = tmp_path / "shipper"
    os.mkfifo(fifo)
    text = USING + CONFIG.format(url=redis_url, upload=str(upload))
    shipped = f"shipped={{'class': 'logging.FileHandler', 'filename': {str(fifo)!r}}}"
    with silent(tmp_path, f"{text}LOGGING = log_to({shipped}, file=FILE)\n") as daemon:
        daemon.watches()
        all_sent(redis_url, upload_all(upload, 50))
        daemon.trouble("log handler shipped: takes no lines")
        with fifo.open() as shipper:
            found = [next(shipper) for _ in range(101)]
            assert sum(SENDING in line for line in found) >= 49
            daemon.stop()


def test_handlers_that_fail(tmp_path: Path, upload: Path, redis_url: str) -> None:
    text = USING + CONFIG.format(url=redis_url, upload=str(upload))
    full = "full={'class': 'logging.FileHandler', 'filename': '/dev/full'}"
    failing = "raising={'class': 'my_handlers.Raising'}"
    with silent(tmp_path, f"{text}LOGGING = log_to({failing}, {full}, file=FILE)\n") as daemon:
        daemon.watches()
        all_sent(redis_url, upload_all(upload, 200))
        daemon.has_logged("The log handler raising fails: SystemExit: no more; its lines are ")
        daemon.has_logged("The log handler full fails: OSError: [Errno 28] No space left")
        daemon.has_logged(SENDING, 200)
        daemon.trouble("log handler raising")
        daemon.trouble("log handler full")
        daemon.stop()
        assert "".join(daemon.read()) == ""
    assert daemon.log.read_text().count(" fails: ") == 2


def test_a_start_that_fails_with_output_that_nobody_reads(
    tmp_path: Path, upload: Path, redis_url: str
) -> None:
    text = CONFIG.format(url=redis_url, upload=str(upload))
    # It logs more than the pipe takes, and then cannot be made.
    noise = "import logging, pyinotify\nclass Broken(pyinotify.ProcessEvent):\n"
    noise += "    def my_init(self):\n        for n in range(2000):\n"
    noise += "            logging.getLogger('mine').warning('noise %d', n)\n        1 / 0\n"
    (tmp_path / "broken.py").write_text(noise)
    (tmp_path / "events").mkdir()
    watch = f"WATCHES.append(({str(tmp_path / 'events')!r}, pyinotify.IN_CREATE, 'broken.Broken'))"
    with silent(tmp_path, f"{text}import pyinotify\n{watch}\n") as daemon:
        assert daemon.process.wait(20) == 78


def test_a_start_that_has_to_wait_says_so(
    upload: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    notify_ = daemon(CONFIG.format(url=redis_url, upload=str(upload)))
    with notify_:
        notify_.stop()
    # A new watch is noted before anything else happens.
    (upload.parent / "new").mkdir()
    with notify_.config.open("a") as config:
        config.write(f"WATCHES.append({{'path': {str(upload.parent / 'new')!r}}})\n")
    [journal] = notify_.config.with_name("var").glob("*.db")
    with contextlib.closing(sqlite3.connect(journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with notify_.log.open("ab") as log:
            process = subprocess.Popen(
                command("run", "--config", notify_.config),
                env=notify_.environment,
                stdout=log,
                stderr=log,
            )
        try:
            # Before there were threads that write.
            notify_.wait_for("cannot be written: database is locked")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP) == 0
        finally:
            process.kill()
            process.wait()


def test_the_end_of_the_reader_is_no_failure_of_ours(
    tmp_path: Path, upload: Path, redis_url: str
) -> None:
    text = USING + CONFIG.format(url=redis_url, upload=str(upload))
    out = "out={'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}"
    with silent(tmp_path, f"{text}LOGGING = log_to({out}, file=FILE)\n") as daemon:
        daemon.watches()
        # The pipe loses its reader.
        os.dup2(os.open(os.devnull, os.O_RDONLY), daemon.reading)
        all_sent(redis_url, upload_all(upload, 50))
        daemon.has_logged("The log handler out fails: BrokenPipeError")
        daemon.stop()
