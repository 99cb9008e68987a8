"""The queue before a handler, and logging as a whole with queues."""

from __future__ import annotations

import logging
import logging.handlers
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.waiting import wait_until
from watchman import log_queue
from watchman.log_queue import HandlerQueue


class Gate(logging.Handler):
    """Writes down what it gets, once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert self.open.wait(20)
        self.texts.append(self.format(record))


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("mine", logging.INFO, "", 0, text, arguments, None)


@pytest.fixture
def gate() -> Iterator[Gate]:
    handler = Gate()
    yield handler
    handler.open.set()


def ended(queue: HandlerQueue) -> None:
    queue.finish()
    assert queue.finished(20)


def test_what_is_left_out_is_counted_where_it_would_be(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_queue, "MOST_LINES", 10)
    queue = HandlerQueue(gate)
    queue.start()
    for number in range(25):
        gate.handle(record("line %d", number))
    [trouble] = queue.troubles()
    assert trouble.subject == "log handler Gate"
    assert trouble.message.startswith("takes no lines: 10 wait, 15 were left out; ")
    gate.open.set()
    wait_until(lambda: len(gate.texts) == 11, 20, "the queue is empty")
    assert queue.troubles() == []
    gate.handle(record("after"))
    ended(queue)
    assert gate.texts[:10] == [f"line {number}" for number in range(10)]
    assert gate.texts[10].endswith(" s, and 15 lines are left out here")
    assert gate.texts[11:] == ["after"]
    said = [text for text in caplog.messages if "log handler Gate" in text]
    assert [text.partition(": ")[0] for text in said] == [
        "The log handler Gate takes no lines; they are left out there until it does",
        "The log handler Gate",
    ]


def test_a_count_that_is_open_at_the_end(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_queue, "MOST_LINES", 2)
    queue = HandlerQueue(gate)
    for number in range(5):
        gate.handle(record("line %d", number))
    queue.finish()
    gate.open.set()
    queue.start()
    assert queue.finished(20)
    assert gate.texts[:2] == ["line 0", "line 1"]
    assert gate.texts[2].endswith(" s, and 3 lines are left out here")
    assert len(gate.texts) == 3


def test_many_threads_lose_no_count(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_queue, "MOST_LINES", 100)
    queue = HandlerQueue(gate)

    def burst() -> None:
        for number in range(1000):
            gate.handle(record("line %d", number))

    threads = [threading.Thread(target=burst) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.open.set()
    queue.start()
    ended(queue)
    assert len(gate.texts) == 101
    assert " and 7900 lines are left out here" in gate.texts[-1]


def test_long_lines_count_by_their_size(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_queue, "MOST_BYTES", 12_000)
    queue = HandlerQueue(gate)
    for _ in range(100):
        gate.handle(record("%s", "x" * 4000))
    assert "2 wait, 98 were left out" in queue.troubles()[0].message
    gate.open.set()
    queue.start()
    ended(queue)


def test_what_changes_later_is_formatted_when_it_is_logged(gate: Gate) -> None:
    queue = HandlerQueue(gate)
    numbers = [1]
    gate.handle(record("%s", numbers))
    numbers.append(2)
    gate.open.set()
    queue.start()
    ended(queue)
    assert gate.texts == ["[1]"]


def test_handlers_format_one_record_each_in_its_own_way(gate: Gate) -> None:
    other = Gate()
    gate.setFormatter(logging.Formatter("%(asctime)s %(message)s", "first"))
    other.setFormatter(logging.Formatter("%(asctime)s %(message)s", "second"))
    queues = [HandlerQueue(gate), HandlerQueue(other)]
    for queue in queues:
        queue.start()
    for number in range(2000):
        one = record("%d", number)
        gate.handle(one)
        other.handle(one)
    for each in (gate, other):
        each.open.set()
    for queue in queues:
        ended(queue)
    assert gate.texts == [f"first {number}" for number in range(2000)]
    assert other.texts == [f"second {number}" for number in range(2000)]


def test_filters_see_the_thread_that_logs(gate: Gate) -> None:
    local = threading.local()
    local.who = "me"

    def know(one: logging.LogRecord) -> bool:
        one.msg = f"{getattr(local, 'who', '?')}: {one.msg}"
        return "no" not in one.msg

    gate.addFilter(know)
    queue = HandlerQueue(gate)
    gate.open.set()
    queue.start()
    gate.handle(record("yes"))
    gate.handle(record("no"))
    ended(queue)
    assert gate.texts == ["me: yes"]


def test_a_handler_that_fails_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Moody(Gate):
        def emit(self, one: logging.LogRecord) -> None:
            if "bad" in one.getMessage():
                raise ValueError("bad\nmood")
            super().emit(one)

    moody = Moody()
    moody.open.set()
    queue = HandlerQueue(moody)
    queue.start()
    for text in ("good", "bad", "good", "bad", "good"):
        moody.handle(record(text))
    wait_until(lambda: len(moody.texts) == 3, 20, "the good ones")
    [trouble] = queue.troubles()
    assert trouble.message == (
        "fails: ValueError: bad\\x0amood; 2 lines are missing there; see to its file or server, or "
        "reload with another LOGGING"
    )
    monkeypatch.setattr(log_queue, "QUIET", 0.0)
    assert queue.troubles() == []
    ended(queue)
    assert len([text for text in caplog.messages if "Moody fails" in text]) == 1
    [again] = [text for text in caplog.messages if "Moody works again" in text]
    assert again.endswith("; 2 lines are missing")


def test_a_handler_that_logs(gate: Gate) -> None:
    class Talking(Gate):
        def emit(self, one: logging.LogRecord) -> None:
            super().emit(one)
            if one.msg == "first":
                self.handle(record("second"))

    talking = Talking()
    talking.open.set()
    queue = HandlerQueue(talking)
    queue.start()
    talking.handle(record("first"))
    wait_until(lambda: talking.texts == ["first", "second"], 20, "both")
    ended(queue)


WHOLE = """\
import logging, logging.config, logging.handlers, os, sys, threading, warnings
from watchman import queued_logging
from watchman.log_batch import info_all
queued_logging.install()
log = logging.getLogger("watchman.notify")
def configure(**handlers):
    with queued_logging.reconfigured():
        logging.config.dictConfig({
            "version": 1, "disable_existing_loggers": False,
            "formatters": {"f": {"format": "%(name)s: %(message)s"}},
            "handlers": {n: {"formatter": "f", **h} for n, h in handlers.items()},
            "root": {"level": "INFO", "handlers": [n for n in handlers if n != "target"]},
        })
FILE = {"class": "logging.FileHandler", "filename": "out.log"}
"""


def run(directory: Path, code: str) -> tuple[str, str]:
    """Run a process that logs; return its log and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", WHOLE + textwrap.dedent(code)],
        cwd=directory,
        env={"PYTHONPATH": f"{ROOT}:{directory}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (directory / "out.log").read_text(), done.stderr


def test_bursts_and_records_keep_their_order(tmp_path: Path) -> None:
    text, errors = run(
        tmp_path,
        """
        configure(file=FILE)
        for number in range(200):
            log.info("single %d", number)
            info_all(log, f"{number} %s", [str(n) for n in range(50)])
            if number == 100:
                queued_logging.start()
        queued_logging.close()
        """,
    )
    expected = []
    for number in range(200):
        expected.append(f"watchman.notify: single {number}")
        expected += [f"watchman.notify: {number} {n}" for n in range(50)]
    assert text.splitlines() == expected
    assert errors == ""


def test_what_was_queued_comes_out_without_a_start(tmp_path: Path) -> None:
    text, _ = run(
        tmp_path,
        """
        configure(file=FILE)
        log.warning("early")
        assert threading.active_count() == 1
        queued_logging.close()
        assert not queued_logging.hanging()
        """,
    )
    assert text == "watchman.notify: early\n"


def test_a_handler_from_before_the_configuration(tmp_path: Path) -> None:
    text, errors = run(
        tmp_path,
        """
        logging.basicConfig(filename="out.log", level="INFO", format="%(message)s")
        log.info("before")
        configure(file={**FILE, "filename": "other.log"})
        log.info("after")
        queued_logging.close()
        """,
    )
    assert text == "before\n"
    assert (tmp_path / "other.log").read_text() == "watchman.notify: after\n"
    assert errors == ""


def test_what_python_would_print_is_logged(tmp_path: Path) -> None:
    text, errors = run(
        tmp_path,
        """
        configure(file=FILE)
        queued_logging.start()
        warnings.warn("old")
        thread = threading.Thread(target=lambda: 1 / 0, name="short")
        thread.start()
        thread.join()
        class Sore:
            def __del__(self):
                raise ValueError("sore")
        Sore()
        logging.getLogger("watchman.mover").addFilter(lambda record: 1 / 0)
        logging.getLogger("watchman.mover").warning("passes")
        def leave(record):
            raise SystemExit(3)
        logging.getLogger("watchman.sender").addFilter(leave)
        logging.getLogger("watchman.sender").warning("passes, too")
        queued_logging.close()
        """,
    )
    assert "py.warnings: <string>:" in text
    assert "UserWarning: old" in text
    assert "watchman.service: The thread short died\nTraceback" in text
    assert "ZeroDivisionError" in text
    assert "ValueError: sore" in text
    assert "A filter of the logger watchman.mover fails: ZeroDivisionError(" in text
    assert "watchman.mover: passes\n" in text
    assert "A filter of the logger watchman.sender fails: SystemExit(3)" in text
    assert "watchman.sender: passes, too\n" in text
    assert errors == ""


def test_handlers_that_are_added_later_and_those_behind_others(tmp_path: Path) -> None:
    text, errors = run(
        tmp_path,
        """
        class Late(logging.FileHandler):
            def emit(self, record):
                record.msg = threading.current_thread().name
                super().emit(record)
        configure(target=FILE, memory={
            "class": "logging.handlers.MemoryHandler", "capacity": 100, "target": "target",
        })
        queued_logging.start()
        logging.getLogger("kombu").addHandler(Late("out.log"))
        logging.getLogger("kombu").propagate = False
        logging.getLogger("kombu").error("x")
        queued_logging.drain(10)
        log.info("in memory until the end")
        queued_logging.close()
        """,
    )
    assert text == "log handler Late\nwatchman.notify: in memory until the end\n"
    assert errors == ""


def test_no_handler_at_all(tmp_path: Path) -> None:
    (tmp_path / "out.log").touch()
    _, errors = run(
        tmp_path,
        """
        configure()
        log.info("not shown")
        log.warning("shown")
        queued_logging.close()
        """,
    )
    assert errors == "shown\n"


def test_a_reload_closes_what_it_removes_and_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import logging, threading\nclass Stuck(logging.Handler):\n"
        "    def emit(self, record):\n        threading.Event().wait()\n"
    )
    text, errors = run(
        tmp_path,
        """
        other = {**FILE, "filename": "old.log"}
        # As a target it is behind nobody's queue.
        configure(target={"class": "stuck.Stuck"}, old=other, memory={
            "class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "target",
        })
        queued_logging.start()
        [old] = [h for h in logging.root.handlers if h.name == "old"]
        for number in range(10):
            log.info("before %d", number)
        configure(file=FILE)
        for _ in range(200):
            if old.stream is None:
                break
            threading.Event().wait(0.05)
        assert old.stream is None, "it is still open"
        # One that cannot be used leaves what there is.
        try:
            configure(file={**FILE, "filename": "no/such/directory"})
        except ValueError:
            log.info("after")
        queued_logging.close()
        assert queued_logging.hanging()
        os._exit(0)
        """,
    )
    assert text == "watchman.notify: after\n"
    assert (tmp_path / "old.log").read_text().count("before") == 10
    assert errors == ""
