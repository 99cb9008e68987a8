"""supervisord as checked in: it keeps notify running, shows it, ends it, and gives up in time."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import embedded
from tests.checkout import environment, run
from tests.servers import Process, require, tail
from tests.supervised import Supervisor, processes_of
from tests.waiting import wait_until

# The first to ask for the checkout waits for its .venv.
pytestmark = pytest.mark.timeout(600)

PAUSE = 0.004
"""Seconds between two uploads: they go on all the time while notify is killed and restarted."""
LATE = "exit status 78; expected"
"""What supervisord logs of a bad configuration that was found after startsecs."""


def configuration(uploads: Path) -> str:
    return (
        "BROKERS = {'embedded': 'filesystem://'}\n"
        f"WATCHES = [{{'path': {str(uploads)!r}, 'rec': True, 'auto_add': True}}]\n"
        f"PATTERNS = [({str(uploads / '*')!r}, {{'broker': 'embedded', 'task': 'note'}})]\n"
    )


def start(checkout: Path, directory: Path, **changes: str) -> Supervisor:
    """Start the checkout's supervisord for a directory of the same form."""
    supervisor = Supervisor(directory)
    settings = str(directory / "supervisord.conf")
    done = run(checkout / "bin/supervisord", "-c", settings, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    return supervisor


def startsecs(checkout: Path) -> int:
    [seconds] = re.findall(r"^startsecs=(\d+)$", (checkout / "supervisord.conf").read_text(), re.M)
    return int(seconds)


def directory_for(checkout: Path, directory: Path, config: str) -> Path:
    """Make a directory with a supervisord.conf and a configuration of its own."""
    (directory / "var/log").mkdir(parents=True)
    (directory / "bin").symlink_to(checkout / "bin")
    shutil.copy(checkout / "supervisord.conf", directory)
    (directory / "config.py").write_text(config)
    return directory


@pytest.fixture(scope="module", autouse=True)
def misconfigured(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Supervisor]]:
    """Two that cannot work. Begun first: it may take 15 s before supervisord gives up."""
    configs = {
        "at once": "WATCHES = ['/no/such']\n",
        "late": (
            "import threading\n"
            f"threading.Event().wait({startsecs(checkout) + 0.5})\n"
            "WATCHES = ['/no/such']\n"
        ),
    }
    started: dict[str, Supervisor] = {}
    try:
        for name, config in configs.items():
            directory = tmp_path_factory.mktemp("misconfigured")
            started[name] = start(checkout, directory_for(checkout, directory, config))
        yield started
    finally:
        for supervisor in started.values():
            supervisor.end()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def supervisor(
    checkout: Path, uploads: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Supervisor]:
    directory = tmp_path_factory.mktemp("supervised")
    directory_for(checkout, directory, configuration(uploads))
    supervisor = start(checkout, directory)
    yield supervisor
    supervisor.end()
    assert processes_of(directory) == []


@pytest.fixture
def running(supervisor: Supervisor) -> Supervisor:
    """The supervisor, whose program runs, whatever a test before has done to it."""
    if supervisor.state() == "STOPPED":
        supervisor.ask("startProcess")
    supervisor.running_as()
    return supervisor


class Uploader:
    """Uploads files one after another, in a thread, until it is told that it is enough."""

    def __init__(self, uploads: Path) -> None:
        self.paths: list[str] = []
        self._uploads = uploads
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._upload, name="uploader")

    def _upload(self) -> None:
        while not self._enough.wait(PAUSE):
            number = len(self.paths)
            path = self._uploads / f"dir{number // 100}" / f"{number % 7}" / f"{number:05}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n")
            self.paths.append(str(path))

    def __enter__(self) -> Uploader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def test_killed_three_times_it_runs_again_and_nothing_is_missed(
    running: Supervisor, uploads: Path
) -> None:
    state = running.directory / "var"

    def sent() -> int:
        return len(embedded.messages(state))

    def work() -> None:
        before = sent()
        wait_until(lambda: sent() >= before + 50, 20.0, "it sends tasks")

    pids = [running.running_as()]
    # RUNNING is said of a process that has lived for a second, perhaps before its first run begins.
    notify_log = running.directory / "var/log/notify.log"
    wait_until(lambda: "Watching " in notify_log.read_text(), 60.0, "it watches")
    with Uploader(uploads) as uploader:
        for _ in range(3):
            work()
            os.kill(pids[-1], signal.SIGKILL)
            uploaded = len(uploader.paths)
            pids.append(running.running_as(other_than=pids[-1]))
            assert len(uploader.paths) > uploaded
    assert len(set(pids)) == 4

    ids: dict[str, set[str]] = {path: set() for path in uploader.paths}
    read: set[Path] = set()

    def missing() -> list[str]:
        for message in set(embedded.messages(state)) - read:
            headers = json.loads(message.read_text())["headers"]
            ids[headers["watchman_source"]].add(headers["id"])
            read.add(message)
        return [path for path, found in ids.items() if not found]

    wait_until(lambda: not missing(), 30.0, "a task for each upload", interval=0.2)
    assert len(uploader.paths) > 300
    # What was sent again after a kill has the same task id.
    assert {len(found) for found in ids.values()} == {1}
    assert len(set().union(*ids.values())) == len(uploader.paths)
    ends = re.findall(r"exited: notify \(([^)]*)\)", running.own_log.read_text())
    assert ends == ["terminated by SIGKILL; not expected"] * 3


def page(supervisor: Supervisor) -> str:
    with urllib.request.urlopen(supervisor.url, timeout=10) as answer:  # noqa: S310 — loopback
        found: str = answer.read().decode()
    return found


def test_the_web_page_says_running(running: Supervisor) -> None:
    assert running.ask("getProcessInfo")["statename"] == "RUNNING"
    shown = page(running)
    assert re.findall(r'class="status(\w+)">(\w+)<', shown) == [("running", "running")]
    assert f"pid {running.running_as()}, uptime " in shown


def test_the_web_page_in_a_browser(running: Supervisor, tmp_path: Path) -> None:
    browser = require("chromium")
    pictures = {}
    for state in ("running", "stopped"):
        if state == "stopped":
            running.ask("stopProcess")
        picture = tmp_path / f"{state}.png"
        argv = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        argv += ["--no-first-run", "--disable-background-networking", "--disable-quic"]
        argv += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
        argv += [f"--user-data-dir={tmp_path / 'profile'}"]
        argv += ["--window-size=800,300", f"--screenshot={picture}", running.url]
        process = Process(argv, tmp_path / "browser.log", environment(HOME=str(tmp_path)))
        try:
            assert process.popen.wait(60) == 0, tail(process.log)
        finally:
            process.stop()
        pictures[state] = colours(picture.read_bytes())
    # The field with the state is 60 by 16: green for running, yellow for stopped.
    assert green(pictures["running"]) > 500
    assert green(pictures["stopped"]) < 50


def green(counted: Counter[bytes]) -> int:
    """Return how many pixels are more green than anything else."""
    return sum(n for (r, g, b), n in counted.items() if g > r + 50 and g > b + 50)


def colours(png: bytes) -> Counter[bytes]:
    """Count a picture's colours: 8 bits a channel, red, green and blue first (PNG, section 9)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    assert png[24] == 8
    size = {2: 3, 6: 4}[png[25]]
    at, packed = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += length + 12
    data = zlib.decompress(packed)
    counted: Counter[bytes] = Counter()
    above = bytearray(width * size)
    for row in range(height):
        begin = row * (width * size + 1)
        line = bytearray(data[begin + 1 : begin + 1 + width * size])
        _unfilter(data[begin], line, above, size)
        counted.update(bytes(line[x : x + 3]) for x in range(0, len(line), size))
        above = line
    return counted


def _unfilter(kind: int, line: bytearray, above: bytearray, size: int) -> None:
    for x in range(len(line) if kind else 0):
        a = line[x - size] if x >= size else 0
        b = above[x]
        c = above[x - size] if x >= size else 0
        if kind == 4:
            nearest = min((a, b, c), key=lambda value: abs(a + b - c - value))
        line[x] = (line[x] + (0, a, b, (a + b) // 2, nearest if kind == 4 else 0)[kind]) & 255


def test_notify_stop_names_supervisorctl(running: Supervisor, checkout: Path) -> None:
    config = str(running.directory / "config.py")
    done = run(checkout / "bin/notify", "stop", "--config", config)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f" watches under supervisord: stop it with '{checkout}/bin/supervisorctl stop notify'.\n"
    )
    assert running.state() == "RUNNING"


def test_beside_a_daemon_it_waits_for_its_turn_and_says_so(checkout: Path, tmp_path: Path) -> None:
    """The page never says BACKOFF or FATAL while all is well; `notify stop` hands over."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    directory = directory_for(checkout, tmp_path / "site", configuration(uploads))
    state = directory / "var"
    notify = checkout / "bin/notify"
    config = ("--config", str(directory / "config.py"))
    done = run(notify, "start", *config)
    assert done.returncode == 0, done.stderr
    daemon = int(re.findall(r"process id (\d+);", done.stdout)[0])
    supervisor = start(checkout, directory)
    try:
        pid = supervisor.running_as()
        assert pid != daemon
        (line,) = wait_until(lambda: supervisor.log.read_text().splitlines(), 20, "it says why")
        assert line == (
            f"Not watching: process id {daemon} watches with this configuration ('notify start' "
            "has started it). This one waits, and takes its place when it ends: 'notify stop' "
            "hands over"
        )
        (uploads / "1.csv").touch()
        wait_until(lambda: len(embedded.messages(state)) == 1, 20, "the daemon sends its task")
        assert json.loads(run(notify, "status", "--json", *config).stdout)["pid"] == daemon

        done = run(notify, "stop", *config)
        assert done.stdout == (
            f"Process {daemon} has ended. Watching goes on: process id {pid} has waited for that "
            f"under supervisord; stop it with '{checkout}/bin/supervisorctl stop notify'.\n"
        )
        (uploads / "2.csv").touch()
        wait_until(lambda: len(embedded.messages(state)) == 2, 20, "the successor sends its task")
        assert embedded.sources(state) == [str(uploads / f"{n}.csv") for n in (1, 2)]
        assert supervisor.running_as() == pid
        assert json.loads(run(notify, "status", "--json", *config).stdout)["pid"] == pid
        assert "exited" not in supervisor.own_log.read_text()
    finally:
        supervisor.end()
        run(notify, "stop", *config)


def test_who_waits_for_its_turn_can_be_stopped_and_a_restart_hands_over(
    checkout: Path, tmp_path: Path
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    directory = directory_for(checkout, tmp_path / "site", configuration(uploads))
    notify = checkout / "bin/notify"
    config = ("--config", str(directory / "config.py"))
    assert run(notify, "start", *config).returncode == 0
    supervisor = start(checkout, directory)
    try:
        supervisor.running_as()
        wait_until(lambda: "Not watching" in supervisor.log.read_text(), 20, "it waits")
        assert supervisor.ask("stopProcess")
        assert supervisor.state() == "STOPPED"
        assert "SIGKILL" not in supervisor.own_log.read_text()
        supervisor.ask("startProcess")
        pid = supervisor.running_as()
        wait_until(lambda: supervisor.log.read_text().count("Not watching") == 2, 20, "it waits")
        done = run(notify, "restart", *config)
        assert done.returncode == 0, done.stderr
        assert f"Watching goes on: process id {pid} has waited" in done.stdout
        assert supervisor.running_as() == pid
    finally:
        supervisor.end()
        run(notify, "stop", *config)


def test_stop_ends_it_cleanly(running: Supervisor) -> None:
    pid = running.running_as()
    assert [process.pid for process in processes_of(running.directory)] != []
    done = run(
        "bin/supervisorctl", "-c", "supervisord.conf", "stop", "notify", cwd=running.directory
    )
    assert done.stdout == "notify: stopped\n"
    assert running.state() == "STOPPED"
    assert running.ask("getProcessInfo")["exitstatus"] == 0
    assert not Path(f"/proc/{pid}").exists()
    assert [process.pid for process in processes_of(running.directory)] == [running.pid]
    assert '"statusnominal">stopped<' in page(running)
    assert running.log.read_text().splitlines()[-1].endswith(": Watching has been stopped")
    ends = re.findall(r"stopped: notify \((.*)\)", running.own_log.read_text())
    assert ends[-1] == "exit status 0"


def test_paths_are_utf8_without_such_a_locale(checkout: Path, tmp_path: Path) -> None:
    """The directory's name goes through supervisord, the file's through notify."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    directory = directory_for(checkout, tmp_path / "größe", configuration(uploads))
    supervisor = start(
        checkout, directory, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", LANG="C"
    )
    try:
        supervisor.running_as()
        path = uploads / "straße.csv"
        wait_until(lambda: b"Watching 1 dir" in supervisor.log.read_bytes(), 30, "it watches")
        path.write_text("1")
        sent = wait_until(lambda: embedded.messages(directory / "var"), 20, "a task")
        assert json.loads(sent[0].read_text())["headers"]["watchman_source"] == str(path)
        assert f"Notified of {path}\n".encode() in supervisor.log.read_bytes()
    finally:
        supervisor.end()


def test_a_bad_configuration_is_not_tried_for_ever(misconfigured: dict[str, Supervisor]) -> None:
    supervisor = misconfigured["at once"]
    state = wait_until(
        lambda: {"FATAL", "EXITED"} & {supervisor.state()}, 60.0, "the end of it", interval=0.2
    )
    tries = re.findall(r"exited: notify \((.*)\)", supervisor.own_log.read_text())
    if state == {"FATAL"}:
        assert tries == ["exit status 78; not expected"] * 6  # once, and startretries
    else:  # supervisord may see an end a second late: after startsecs, by its reckoning
        assert tries == [*["exit status 78; not expected"] * (len(tries) - 1), LATE]
        assert len(tries) <= 6
    assert supervisor.log.read_text().count("/no/such") == len(tries)
    assert re.search(">(fatal|exited)<", page(supervisor))


def test_a_bad_configuration_found_late_is_not_tried_again(
    misconfigured: dict[str, Supervisor],
) -> None:
    supervisor = misconfigured["late"]
    wait_until(lambda: supervisor.state() == "EXITED", 60.0, "notify ends", interval=0.2)
    ends = re.findall(r"exited: notify \((.*)\)", supervisor.own_log.read_text())
    assert ends == [LATE]
    assert supervisor.log.read_text().count("/no/such") == 1


def test_a_late_mount_is_no_end(checkout: Path, tmp_path: Path) -> None:
    uploads = tmp_path / "mnt/uploads"
    directory = directory_for(checkout, tmp_path / "site", configuration(uploads))
    supervisor = start(checkout, directory)
    try:
        pid = supervisor.running_as()
        wait_until(
            lambda: f"Not watching {uploads}" in supervisor.log.read_text(), 20, "it says so"
        )
        uploads.mkdir(parents=True)
        wait_until(lambda: f"Watching {uploads} again" in supervisor.log.read_text(), 20)
        (uploads / "late.csv").touch()
        wait_until(lambda: len(embedded.messages(directory / "var")) == 1, 20, "its task")
        assert supervisor.running_as() == pid
    finally:
        supervisor.end()
