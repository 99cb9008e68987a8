"""``notify demo``: the first command of the README."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.started import command, environment, notify
from tests.servers import Process, tail
from tests.waiting import wait_until

BROKEN = """\
import sys
if sys.argv[0] == "-m":
    raise SystemExit("no worker today")
raise ImportError("nor a sender")
"""
TASK = re.compile(r"^worker: (\w+)\('(.*)'\), (\d+) bytes$", re.MULTILINE)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where temporary files go, so that what is left behind shows; it looks like a pattern."""
    made = tmp_path / "tmp[1]"
    made.mkdir()
    return made


def test_once_shows_each_task_as_the_worker_receives_it(tmp_path: Path, scratch: Path) -> None:
    done = notify("demo", "--once", cwd=tmp_path, TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    shown = {Path(path).name: (task, int(size)) for task, path, size in TASK.findall(done.stdout)}
    assert len(TASK.findall(done.stdout)) == 4
    assert {name: task for name, (task, _) in shown.items()} == {
        "stations.csv": "import_table",
        "storm.csv": "import_events",
        "forecast.nc": "import_grid",
        "levels.csv": "import_table",
    }
    assert all(size > 0 for _, size in shown.values())
    last = "All 4 uploads became tasks, and the worker received them."
    assert done.stdout.splitlines()[-1] == last
    assert done.stderr == ""
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("reason", ["celery is broken", "celery ends at once"])
def test_without_a_worker_it_fails_in_one_line(reason: str, tmp_path: Path, scratch: Path) -> None:
    package = tmp_path / "broken" / "celery"
    package.mkdir(parents=True)
    broken = "broken" in reason
    (package / "__init__.py").write_text(BROKEN if broken else "")
    (package / "__main__.py").write_text("")
    path = os.pathsep.join([str(package.parent), environment()["PYTHONPATH"]])
    done = notify("demo", "--once", cwd=tmp_path, TMPDIR=str(scratch), PYTHONPATH=path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == "notify: the demo's worker ended; its last lines are above\n"
    assert ("worker: no worker today" in done.stdout) == broken
    assert "Traceback" not in done.stdout
    assert list(scratch.iterdir()) == []


@pytest.fixture
def start(tmp_path: Path, scratch: Path) -> Iterator[Callable[..., Process]]:
    """Start a demo; return it when its daemon and its worker have been started."""
    started: list[tuple[Process, list[psutil.Process]]] = []

    def run(*arguments: str) -> Process:
        changed = environment(TMPDIR=str(scratch))
        process = Process(command("demo", *arguments), tmp_path / "output", changed)
        started.append((process, []))
        wait_until(lambda: len(family(process)) == 2, what="a daemon and a worker")
        started[-1][1].extend(family(process))
        return process

    yield run
    for process, members in started:
        process.stop()
        for member in members:  # each has a session of its own
            if member.is_running():
                member.kill()


def family(demo: Process) -> list[psutil.Process]:
    assert demo.running, tail(demo.log)
    return list(psutil.Process(demo.popen.pid).children())


def wait_for(demo: Process, words: str) -> None:
    def said() -> bool:
        assert demo.running, tail(demo.log)
        return words in demo.log.read_text()

    wait_until(said, 60, f"{words!r} is shown")


def nothing_left(members: list[psutil.Process], scratch: Path) -> None:
    assert len(members) == 2
    assert not [member for member in members if member.is_running()]
    assert list(scratch.iterdir()) == []


def test_ctrl_c_ends_all_and_leaves_nothing(start: Callable[..., Process], scratch: Path) -> None:
    demo = start()
    members = family(demo)
    wait_for(demo, "Ctrl-C ends the demo.")
    [made] = scratch.glob("watchman-demo-*")
    wait_for(demo, f"Drop .csv or .nc files into {made}/upload; Ctrl-C ends the demo.")
    (made / "upload" / "mine.nc").write_text("mine")
    wait_for(demo, f"worker: import_grid('{made}/storage/mine.nc'), 4 bytes")
    # The terminal sends it to the whole foreground group.
    demo.send(signal.SIGINT)
    assert demo.popen.wait(30) == 0, tail(demo.log)
    nothing_left(members, scratch)
    assert "Traceback" not in demo.log.read_text()
    assert "Aborted" not in demo.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_it_leaves_nothing_and_is_no_success(
    number: int, start: Callable[..., Process], scratch: Path
) -> None:
    demo = start("--once")
    members = family(demo)
    [worker] = [member for member in members if "celery" in member.cmdline()]
    worker.suspend()  # or all tasks might come first
    wait_for(demo, "Watching ")
    os.kill(demo.popen.pid, number)
    worker.resume()
    assert demo.popen.wait(30) == 1, tail(demo.log)
    nothing_left(members, scratch)
    assert demo.log.read_text().endswith("notify: the demo was ended before all tasks came\n")
    assert "Traceback" not in demo.log.read_text()
