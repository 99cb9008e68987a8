"""The walk-through of finished directories, typed as a user would."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import embedded
from tests.acceptance.started import environment
from tests.checkout import typed
from tests.waiting import wait_until

CONFIG = """\
BROKERS = {{'lizard': 'filesystem://'}}
WATCHES = [
    {watch},
]
PATTERNS = [
    ('{data}/*', {{'broker': 'lizard', 'task': 'import_dicomdir'}}),
]
MOVES = {{'{data}': '{storage}'}}
DRY_RUN = ['{data}/test*']
"""

AS_DICT = "{{'path': '{data}', 'kind': 'directories'}}"
AS_TUPLE = (
    "('{data}', __import__('pyinotify').ALL_EVENTS, 'watchman.processors.FinishedDirectories')"
)

FIRST = """\
1|CREATE EVENT: /data/test_finished
2|FINISHED: /data/test_finished
"""
SECOND = """\
1|CREATE EVENT: /data/test_notfinished.tmp1234
2|NOTFINISHED: /data/test_notfinished.tmp1234
"""
THIRD = """\
1|MOVEDTO EVENT: /data/test_nowfinished
2|FINISHED: /data/test_nowfinished
"""

PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] watchman\.notify: ")


class Terminal:
    """A shell in the directory with the configuration; ``/data`` is a directory of the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = root / "code"
        self.out = self.site / "var/log/watchman.out"
        (root / "bin").mkdir()
        notify = root / "bin/notify"
        notify.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m watchman "$@"\n')
        notify.chmod(0o755)
        self.environment = environment()
        self.environment["PATH"] = f"{notify.parent}:{self.environment['PATH']}"

    def type(self, line: str) -> tuple[int, str]:
        """Return the exit status and the output, both as they would be for ``/data``."""
        done = typed(self.local(line), self.site, self.environment)
        return done.returncode, self.shown(done.stdout)

    def local(self, text: str) -> str:
        return re.sub(r"(?<![\w/])/(?=(data|code)\b)", f"{self.root}/", text)

    def shown(self, text: str) -> str:
        return text.replace(str(self.root), "")

    def logged(self) -> str:
        """Return what the output file has since the start, without the date and the level."""
        text = self.shown(self.out.read_text())
        lines = text.splitlines()
        since = next(n for n, line in enumerate(lines) if ": Watching 1 directory" in line) + 1
        return "".join(PREFIX.sub("", line) + "\n" for line in lines[since:])

    def wait_for(self, text: str) -> None:
        """Look at the output file until it has this, exactly."""
        try:
            wait_until(lambda: self.logged() == text)
        except AssertionError:
            assert self.logged() == text
            raise


@pytest.fixture(params=[AS_DICT, AS_TUPLE], ids=["dict", "tuple"])
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    for name in ("code", "data", "storage"):
        (tmp_path / name).mkdir()
    data = str(tmp_path / "data")
    watch = request.param.format(data=data)
    config = CONFIG.format(watch=watch, data=data, storage=tmp_path / "storage")
    (tmp_path / "code/config.py").write_text(config)
    made = Terminal(tmp_path)
    yield made
    made.type("notify stop --timeout 5 --kill")


def test_the_walk_through(terminal: Terminal) -> None:
    status, printed = terminal.type("notify start")
    assert status == 0, printed
    adding, watching = printed.splitlines()
    handler = "watchman.processors.FinishedDirectories"
    assert adding == f"DEBUG Adding watch on /data, processed by {handler}"
    [pid] = re.findall(
        r"^Watching with process id (\d+); output in /code/var/log/watchman\.out$", watching
    )
    assert terminal.type("cat /code/var/watchman.pid") == (0, f"{pid}\n")
    assert terminal.type("ls /code/var/log") == (0, "watchman.err\nwatchman.out\n")
    status, printed = terminal.type("notify status")
    assert status == 0
    assert printed.startswith(f"watchman is active: process {pid}, since ")
    assert handler in printed

    assert terminal.type("mkdir /data/test_finished") == (0, "")
    terminal.wait_for(FIRST)
    assert terminal.type("mkdir /data/test_notfinished.tmp1234") == (0, "")
    terminal.wait_for(FIRST + SECOND)
    assert terminal.type("mv /data/test_notfinished.tmp1234 /data/test_nowfinished") == (0, "")
    terminal.wait_for(FIRST + SECOND + THIRD)
    # "A directory that is FINISHED and changed … will not be processed again."
    assert terminal.type("touch /data/test_finished/more /data/test_nowfinished/more") == (0, "")

    assert terminal.type("notify stop") == (0, "Watching has been stopped.\n")
    lines = terminal.logged().splitlines(keepends=True)
    assert "".join(lines[:-1]) == FIRST + SECOND + THIRD
    assert lines[-1].endswith("Watching has been stopped\n")
    assert terminal.type("cat /code/var/log/watchman.err") == (0, "")
    gone = "notify: No pid file exists at /code/var/watchman.pid.\n"
    assert terminal.type("notify stop") == (1, gone)
    assert terminal.type("cat /code/var/watchman.pid")[0] == 1
    status, printed = terminal.type("notify status")
    assert status == 1
    assert printed.startswith("watchman is inactive; last seen ")

    # DRY_RUN: neither moved nor sent.
    names = sorted(path.name for path in (terminal.root / "data").iterdir())
    assert names == ["test_finished", "test_nowfinished"]
    assert list((terminal.root / "storage").iterdir()) == []
    assert embedded.messages(terminal.site / "var") == []


def test_as_fast_as_a_script_types_it(terminal: Terminal) -> None:
    assert terminal.type("notify start")[0] == 0
    script = (
        "mkdir /data/test_finished && mkdir /data/test_notfinished.tmp1234 && "
        "mv /data/test_notfinished.tmp1234 /data/test_nowfinished"
    )
    assert terminal.type(script) == (0, "")
    terminal.wait_for(FIRST + SECOND + THIRD)


def test_without_the_test_mode_it_is_moved_and_sent_once(terminal: Terminal) -> None:
    assert terminal.type("notify start")[0] == 0
    assert terminal.type("mkdir /data/real.tmp1 && touch /data/real.tmp1/slice") == (0, "")
    assert terminal.type("mv /data/real.tmp1 /data/real") == (0, "")
    wait_until(lambda: embedded.messages(terminal.site / "var"), what="the task")
    assert terminal.type("notify stop")[0] == 0
    assert [path.name for path in (terminal.root / "storage/real").iterdir()] == ["slice"]
    assert len(embedded.messages(terminal.site / "var")) == 1
    logged = terminal.logged()
    assert logged.count("\n2|FINISHED: /data/real\n") == 1
    assert "\nMoving /data/real to /storage/real\nSending task import_dicomdir\n" in logged
