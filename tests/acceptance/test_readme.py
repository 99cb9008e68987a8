"""The README: every command in it is run, in order, and all of its Python is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import embedded, readme
from tests.checkout import ROOT, environment, run
from tests.json_lines import parsed
from tests.servers import Process, tail
from tests.supervised import ADDRESS, Supervisor, processes_of
from tests.waiting import wait_until

# The first to ask for the checkout waits for its .venv.
pytestmark = pytest.mark.timeout(600)

WATCHING = re.compile(r" watchman\.\w+: Watching \d+ director(y|ies)$", re.MULTILINE)


NOT_OURS = {"add_watch", "apply_async", "broker_transport_options"}
"""Names among the settings that are pyinotify's and Celery's."""


class Foreground:
    """``bin/notify`` in the foreground of a terminal, and what it prints there."""

    def __init__(self, command: str, cwd: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                shlex.split(command),
                cwd=cwd,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        """Return what it has printed since it watches."""
        lines = self._log.read_text().split("\n")[:-1]
        begin = [number for number, line in enumerate(lines) if WATCHING.search(line)]
        return lines[begin[0] + 1 :] if begin else []

    def wait_for(self, count: int) -> list[str]:
        """Wait until it has printed so many lines, and return all."""

        def enough() -> bool:
            assert self.popen.poll() is None, tail(self._log)
            return len(self.lines()) >= count

        wait_until(enough, what=f"{count} lines")
        return self.lines()

    def watches(self) -> bool:
        assert self.popen.poll() is None, tail(self._log)
        return WATCHING.search(self._log.read_text()) is not None

    def interrupt(self) -> int:
        """Press Ctrl-C, which reaches all that is in the foreground; return the exit status."""
        os.killpg(self.popen.pid, signal.SIGINT)
        return self.popen.wait(40)


@contextlib.contextmanager
def foreground(command: str, cwd: Path, log: Path) -> Iterator[Foreground]:
    """Run a command until it watches, and until Ctrl-C at the end of the block."""
    started = Foreground(command, cwd, log)
    try:
        wait_until(started.watches, 30.0, "it watches")
        yield started
        assert started.interrupt() == 0, tail(log)
    finally:
        started.popen.kill()
        started.popen.wait()


class Step(NamedTuple):
    """A command of the README, what its output has, and its exit status."""

    command: str
    text: str
    status: int = 0
    as_json: bool = False
    """Whether it is one of those that report."""


PAGE = "http://127.0.0.1:9002/"
STEPS = (
    Step("bin/notify demo --once", "All 4 uploads became tasks, and the worker received them."),
    Step(
        "bin/notify init ../site",
        "Now start the daemon, upload a file, and see a worker do its task:",
    ),
    Step("bin/test", "pytest "),
    Step("bin/notify check", "ok   broker lizard: reachable", as_json=True),
    Step(
        "bin/notify match /srv/ftp/anna/events/storm.csv",
        "moved to: /mnt/storage/anna/events/storm.csv",
        as_json=True,
    ),
    Step("bin/notify", "Sending task process_timeseries"),
    Step("bin/notify start", "Watching with process id "),
    Step("bin/notify status", "watchman is active: ", as_json=True),
    Step("bin/notify reload", "reloads "),
    Step("bin/notify stop", "Watching has been stopped."),
    Step("bin/supervisord", ""),
    Step("bin/supervisorctl status", " RUNNING "),
    Step("bin/notify status", "watchman is active: ", as_json=True),
    Step("bin/notify where storm.csv", "task process_events on broker lizard", as_json=True),
    Step("bin/notify history /srv/ftp/anna", "task process_events ", as_json=True),
    Step(
        "bin/notify history --since 2026-11-26 --state vanished",
        "nothing of the kind is recorded",
        as_json=True,
    ),
    Step("bin/notify failed", "nothing failed", as_json=True),
    Step("bin/notify retry --all", "nothing failed"),
    Step("bin/notify discard --all", "nothing failed"),
    Step(
        "bin/notify resend --since 2026-11-26 --task process_grid --yes",
        "nothing of the kind was sent",
    ),
    Step("bin/notify scan", "0 not known", as_json=True),
    Step("bin/notify hold task:process_grid", "task:process_grid: held"),
    Step("bin/notify release --all", "task:process_grid: released, 0 deliveries waited"),
    Step("bin/notify web", f" is shown on {PAGE} until Ctrl-C"),
    Step(
        "bin/notify backup /mnt/backup.tar",
        "/mnt/backup.tar: the journal and 0 parts of the history, ",
    ),
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with those that the README names."""
    for name in ("srv/ftp", "mnt/storage", "data"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory for a configuration, apart from the checkout."""
    made = tmp_path / "site"
    made.mkdir()
    return made


def test_every_command_has_a_step() -> None:
    assert [one.command for one in readme.shown()] == [step.command for step in STEPS]


class Walk:
    """A user who types what the README says, from a fresh checkout on."""

    def __init__(self, checkout: Path, base: Path) -> None:
        self.checkout = checkout
        self.base = base
        self.supervisor: Supervisor | None = None
        (checkout / "config.py").write_text(readme.local(readme.python("MOVES"), base))
        self.others: dict[str, Callable[[Step], str]] = {
            "bin/test": self.the_tests,
            "bin/notify": self.foreground,
            "bin/supervisord": self.supervisord,
            "bin/supervisorctl status": self.supervisorctl,
            "bin/notify web": self.web,
        }

    def take(self, step: Step, output: str) -> None:
        """Type one command; compare what it prints, also with what the README shows."""
        other = self.others.get(step.command)
        printed = self.type(step.command, step.status) if other is None else other(step)
        assert step.text in printed.replace(str(self.base), ""), step.command
        if output:
            assert readme.in_form(printed, self.base, self.checkout) == readme.in_form(output)
        if step.as_json:
            printed = self.type(f"{step.command} --json", step.status)
            is_lines = step.command.split()[1] in {"history", "failed", "where"}
            parsed(printed) if is_lines else json.loads(printed)

    def type(self, command: str, status: int = 0, **changes: str) -> str:
        typed = shlex.split(readme.local(command, self.base))
        done = run(*typed, cwd=self.checkout, **changes)
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def upload(self, name: str) -> None:
        path = self.base / "srv/ftp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        run("touch", str(path)).check_returncode()

    def the_tests(self, step: Step) -> str:
        """One of them, as they do not run themselves; it installs nothing for the whole system."""
        stub = self.base / "stub"
        stub.mkdir()
        (stub / "apt-get").write_text("#!/bin/sh\nexit 1\n")
        (stub / "apt-get").chmod(0o755)
        path = f"{stub}:{os.environ['PATH']}"
        # It runs notify check as a process, in which the lines of its report count.
        one = "tests/integration/commands/test_cli_reports.py::test_no_color"
        measured = self.type(f"{step.command} --coverage {one}", PATH=path)
        assert re.search(r"^=+ 1 passed", measured, re.MULTILINE)
        row = re.compile(r"^(watchman/\S+) +\d+ +\d+ +([\d.]+)%$", re.MULTILINE)
        covered = dict(row.findall(measured))
        assert float(covered["watchman/checks/report.py"]) > 40
        assert re.search(r"^TOTAL +\d+ +\d+ +[\d.]+%$", measured, re.MULTILINE)
        assert list(self.checkout.glob(".coverage.*")) == []
        return self.type(f"{step.command} --version", PATH=path)

    def foreground(self, step: Step) -> str:
        with foreground(step.command, self.checkout, self.base / "foreground.log") as notify:
            self.upload("data.csv")
            lines = notify.wait_for(3)
        says = readme.literal("Notified of")
        assert len(says) == 3
        assert readme.in_form("\n".join(lines), self.base) == readme.in_form("\n".join(says))
        assert (self.base / "mnt/storage/data.csv").exists()
        return "\n".join(lines)

    def web(self, step: Step) -> str:
        assert f" on {PAGE}, " in readme.TEXT
        log = self.base / "web.log"
        shown = Foreground(step.command, self.checkout, log)
        try:
            wait_until(lambda: step.text in log.read_text(), 30.0, "it listens")
            with urllib.request.urlopen(PAGE, timeout=30) as answer:
                assert "storm.csv" in answer.read().decode()
            assert shown.interrupt() == 0, tail(log)
        finally:
            shown.popen.kill()
            shown.popen.wait()
        return log.read_text()

    def supervisord(self, step: Step) -> str:
        assert f"http://{ADDRESS}::" in readme.TEXT
        self.supervisor = Supervisor(self.checkout)
        printed = self.type(step.command)
        command = Path(f"/proc/{self.supervisor.running_as()}/cmdline")
        # Not a shell between the two: supervisord's signals reach notify itself.
        wait_until(lambda: b"python" in command.read_bytes(), what="the shell is replaced")
        log = self.checkout / "var/log/notify.log"
        wait_until(lambda: WATCHING.search(log.read_text()), what="notify watches")
        return printed

    def supervisorctl(self, step: Step) -> str:
        printed = self.type(step.command)
        self.upload("anna/events/storm.csv")
        state = self.checkout / "var"
        wait_until(lambda: len(embedded.messages(state)) == 2, what="the second task")
        return printed


def test_every_command_does_what_it_says(used_checkout: Path, base: Path) -> None:
    walk = Walk(used_checkout, base)
    try:
        for step, one in zip(STEPS, readme.shown(), strict=True):
            walk.take(step, one.output)
    finally:
        if walk.supervisor is not None:
            walk.supervisor.end()
    assert processes_of(used_checkout) == []


def test_the_worker_s_task_is_found_and_reads_all_headers(
    checkout: Path, base: Path, site: Path
) -> None:
    (site / "config.py").write_text(readme.local(readme.python("MOVES"), base))
    bin_notify = shlex.quote(str(checkout / "bin/notify"))
    with foreground(bin_notify, site, base / "log") as notify:
        (base / "srv/ftp/data.csv").touch()
        notify.wait_for(3)

    promised = "``watchman.brokers.filesystem.embedded_options('var')``"
    assert f"``broker_transport_options`` from {promised}" in readme.TEXT
    (site / "worker.py").write_text(
        "import celery, watchman.brokers.filesystem\n"
        "app = celery.Celery('worker', broker='filesystem://')\n"
        f"app.conf.broker_transport_options = {promised.strip('`')}\n"
        f"{readme.python('app.task')}"
        "    print({name: headers[name] for name in headers if name[:9] == 'watchman_'})\n"
    )
    argv = [str(checkout / ".venv/bin/celery"), "--workdir", str(site), "-A", "worker", "worker"]
    argv += ["--pool", "solo", "--loglevel", "INFO", "--without-mingle", "--without-gossip"]
    log = site / "worker.log"
    worker = Process(argv, log, environment(C_FORCE_ROOT="1"))
    try:
        ended = re.compile(r"Task process_timeseries\[[^]]*\] (succeeded|raised)|Error|ERROR")
        found = wait_until(lambda: ended.search(log.read_text()), 60.0, "the task")
        assert found is not None
        assert found[1] == "succeeded", tail(log)
    finally:
        worker.stop()
    # Those that every task has; what some have is read with get().
    block = readme.python("app.task")
    named = set(re.findall(r"headers\['(watchman_\w+)'\]", block))
    assert len(named) == 5
    some = re.findall(r"headers.get\('(watchman_\w+)'\)", block)
    source = (ROOT / "watchman/sender/messages.py").read_text()
    assert [name for name in some if f'"{name}"' not in source] == []
    [printed] = [line for line in log.read_text().splitlines() if "{'watchman_" in line]
    assert set(re.findall(r"'(watchman_\w+)'", printed)) == named
    assert f"'watchman_source': '{base}/srv/ftp/data.csv'" in printed


def test_finished_directories(checkout: Path, base: Path, site: Path) -> None:
    [brokers] = re.findall(r"^BROKERS = .*?^}$", readme.python("MOVES"), re.DOTALL | re.MULTILINE)
    text = f"{brokers}\n{readme.python('directories')}"
    (site / "config.py").write_text(readme.local(text, base))
    says = readme.literal("NOTFINISHED")
    assert len(says) == 4
    bin_notify = shlex.quote(str(checkout / "bin/notify"))
    with foreground(bin_notify, site, base / "log") as notify:
        unfinished = base / "data/test_notfinished.tmp1234"
        unfinished.mkdir()
        notify.wait_for(2)
        unfinished.rename(base / "data/test_nowfinished")
        lines = notify.wait_for(4)
        # Outside of DRY_RUN a finished directory becomes its task.
        (base / "data/series").mkdir()
        assert notify.wait_for(7)[-1].endswith(": Sending task import_directory")
    logged = [line.split(": ", 1)[1].replace(str(base), "") for line in lines[:4]]
    assert logged == says


def test_handlers_of_one_s_own_beside_the_main_job(checkout: Path, base: Path, site: Path) -> None:
    text = f"{readme.python('MOVES')}\n{readme.python('ALL_EVENTS')}"
    (site / "config.py").write_text(readme.local(text, base))
    (site / "mysite").mkdir()
    (site / "mysite/events.py").write_text(
        "import pyinotify\n"
        "class Processor(pyinotify.ProcessEvent):\n"
        "    def process_default(self, event):\n"
        "        with open('seen', 'a') as file:\n"
        "            print(event.maskname, event.pathname, file=file)\n"
    )
    bin_notify = shlex.quote(str(checkout / "bin/notify"))
    with foreground(bin_notify, site, base / "log") as notify:
        (base / "data/file").touch()
        (base / "srv/ftp/data.csv").touch()
        seen = site / "seen"
        wait_until(lambda: seen.exists() and "IN_CLOSE_WRITE" in seen.read_text())
        assert notify.wait_for(3)[-1].endswith(": Sending task process_timeseries")
    events = seen.read_text().splitlines()
    kinds = ["IN_CREATE", "IN_OPEN", "IN_CLOSE_WRITE"]
    assert [event.split()[0] for event in events] == kinds
    assert {event.split()[1] for event in events} == {f"{base}/data/file"}


def test_every_setting_it_names_is_known(checkout: Path, base: Path, site: Path) -> None:
    reference = readme.TEXT.split("``BROKERS``\n")[1].split("Celery's own settings")[0]
    named = set(re.findall(r"``([A-Z][\w]+)``", f"``BROKERS``\n{reference}"))
    config = (
        "BROKERS = {'one': ['amqp://a', 'amqp://b'],\n"
        "    'two': {'url': 'redis://c', 'use_ssl': True}}\n"
        "WATCHES = [{'path': '/srv/ftp', 'rec': True, 'auto_add': True, 'existing': 'all'}]\n"
        "PATTERNS = {'*': {'broker': 'one', 'task': 't', 'args': [1], 'kwargs': {'a': 1},\n"
        "    'options': {'queue': 'q', 'priority': 1, 'expires': 60}, 'complete': 'auto',\n"
        "    'batch': {'size': 100, 'seconds': 5}}}\n"
        "MOVES = {'/srv/ftp': '/mnt/storage'}\n"
        "IGNORE = DRY_RUN = []\n"
        "TRANSFER_LOGS = [{'path': 'xferlog'}]\n"
        "ON_TROUBLE = ON_FAILED = ['true']\n"
    )
    assert set(re.findall(r"\b([A-Z][\w]+)(?= = )", config)) == named
    for option in re.findall(r"``'?([a-z_]{4,})'?``", reference):
        assert f"'{option}'" in config or option in NOT_OURS, option
    (site / "config.py").write_text(readme.placed(config, base))
    done = run(checkout / "bin/notify", "match", f"{base}/srv/ftp/file", cwd=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "queue:    q" in done.stdout


def test_what_the_readme_names_is_there() -> None:
    import pyinotify

    from watchman import processors, signals

    sentence = readme.TEXT[readme.TEXT.index("``watchman.processors.AllEventsSignaler``") :]
    named = re.findall(r"``([\w.]+)``", sentence.split("\n\n")[0])
    assert named[:2] == ["watchman.processors.AllEventsSignaler", "watchman.signals"]
    assert issubclass(processors.AllEventsSignaler, pyinotify.ProcessEvent)
    assert len(named) == 7
    for name in named[2:]:
        assert hasattr(getattr(signals, name), "connect")
    for name in re.findall(r"\b[\w/-]+\.(?:md|py)\b|``benchmarks/``", readme.TEXT):
        ours = name.strip("`")
        assert (ROOT / ours).exists() or Path(ours).name == "config.py", ours
