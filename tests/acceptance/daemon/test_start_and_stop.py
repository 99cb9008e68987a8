"""The daemon's life as the second system's documentation walks through it, and its files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site, end
from tests.checkout import ROOT
from tests.waiting import wait_until
from watchman import record_locks


def test_the_walk_through(site: Site) -> None:
    started = site.notify("start")
    assert started.returncode == 0
    assert started.stderr == ""
    assert started.stdout.splitlines() == [
        f"DEBUG Adding watch on {site.data}, processed by watchman.processors.CompletedFiles",
        f"Watching with process id {site.pid}; output in {site.out}",
    ]
    assert sorted(path.name for path in site.out.parent.iterdir()) == [
        "watchman.err",
        "watchman.out",
    ]
    assert site.notify("status").stdout.startswith(f"watchman is active: process {site.pid}, since")

    (site.data / "a.csv").write_text("1")
    wait_until(lambda: "Sending task tasks.load" in site.out.read_text(), what="the task's line")
    lines = site.out.read_text().splitlines()
    assert f"[INFO] watchman.notify: Notified of {site.data}/a.csv" in lines[1]

    again = site.notify("start")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"notify: already running with process id {site.pid}\n"

    site.stop()
    assert not site.pid_file.exists()
    assert site.out.exists()
    assert site.err.read_text() == ""
    assert site.notify("status").stdout.startswith("watchman is inactive")

    stopped = site.notify("stop")
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr == f"notify: No pid file exists at {site.pid_file}.\n"


def test_names_of_handlers_exist() -> None:
    from watchman import processors, status
    from watchman.model import Watch, WatchKind

    for kind in WatchKind:
        module, _, name = status.handler(Watch("/up", kind=kind)).rpartition(".")
        assert module == "watchman.processors"
        assert hasattr(processors, name)
    assert status.handler(Watch("/up", processor_name="x.Y")) == "x.Y"


def test_it_leaves_the_terminal(site: Site) -> None:
    pid = site.start()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    parent, group, session, terminal = (int(field) for field in fields[1:5])
    assert terminal == 0
    assert session not in (pid, os.getsid(0))
    assert group == session
    assert parent != os.getpid()
    assert int(status["SigBlk"], 16) == 0
    names: dict[int, str] = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # A directory that it only looks at may be closed again.
        with contextlib.suppress(FileNotFoundError):
            names[int(descriptor.name)] = os.readlink(descriptor)
    assert names[0] == "/dev/null"
    assert names[1] == str(site.out)
    assert names[2] == str(site.err)
    assert os.readlink(f"/proc/{pid}/cwd") == str(site.top)
    # Nothing of whoever started it: no pipe that would keep a reader waiting.
    inherited = [name for fd, name in names.items() if fd > 2 and name.startswith("pipe:")]
    assert len(inherited) == len([name for name in inherited if inherited.count(name) == 2])


def test_state_dir_is_private(site: Site) -> None:
    site.start()
    assert (site.top / "var").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "{own}\n", "999999999\n", "-1\n", "1\n"])
def test_a_pid_file_that_means_nothing(site: Site, content: str) -> None:
    site.pid_file.parent.mkdir(mode=0o700)
    site.pid_file.write_text(content.format(own=os.getpid()))
    assert site.notify("status").stdout.startswith("watchman is inactive")
    stopped = site.notify("stop")
    assert stopped.returncode == 1
    assert f"the pid file {site.pid_file}, left over from a crash, has been removed" in (
        stopped.stderr
    )
    assert not site.pid_file.exists()

    site.pid_file.write_text(content.format(own=os.getpid()))
    pid = site.start()
    assert site.pid_file.read_text() == f"{pid}\n"
    site.stop()
    assert not site.pid_file.exists()


def test_another_file_where_the_pid_file_should_be(site: Site) -> None:
    site.pid_file.parent.mkdir(mode=0o700)
    site.pid_file.write_text("a year's work\n")
    assert site.notify("stop").returncode == 1
    done = site.notify("start")
    assert done.returncode == 0
    why = "cannot be written: it holds something else than the number of a process; using "
    assert f"PID_FILE: {site.pid_file} {why}" in done.stderr
    assert site.status()["state"] == "active"
    site.stop()
    assert site.pid_file.read_text() == "a year's work\n"


def test_a_pid_file_that_was_replaced_is_not_removed(site: Site) -> None:
    pid = site.start()
    site.pid_file.unlink()
    site.pid_file.write_text("somebody else's\n")
    stopped = site.notify("stop")
    assert stopped.returncode == 1
    assert f"process id {pid} watches" in stopped.stderr
    site.pid_file.write_text("somebody else's\n")
    end(pid, signal.SIGTERM)
    assert site.pid_file.read_text() == "somebody else's\n"


def test_kill_leaves_nothing_that_matters(site: Site) -> None:
    end(site.start())
    assert site.pid_file.exists()
    assert site.notify("status").returncode == 1
    assert site.notify("reload").returncode == 1
    second = site.start()
    assert site.status()["pid"] == second
    site.stop()


def test_restart(site: Site) -> None:
    done = site.notify("restart")
    assert done.returncode == 0, done.stderr
    assert "stopped" not in done.stdout
    first = site.pid
    done = site.notify("restart")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Watching has been stopped.\nDEBUG Adding watch on ")
    assert site.pid != first


def test_a_bad_configuration_changes_nothing(site: Site) -> None:
    (site.top / "config.py").write_text("WATCHES = 1\n")
    done = site.notify("start")
    assert done.returncode == 78
    assert "WATCHES" in done.stderr
    assert not (site.top / "var").exists()

    site.configure()
    pid = site.start()
    site.configure("WATCHES = 1\n")
    for command in ("start", "restart", "reload"):
        done = site.notify(command)
        assert done.returncode == 78, command
        assert "Traceback" not in done.stderr
        assert site.pid == pid
    assert site.status()["pid"] == pid
    site.stop()


def test_one_in_the_foreground(site: Site) -> None:
    with site.popen("run") as foreground:
        lock = str(site.top / "var/lock")
        wait_until(lambda: record_locks.holder_of(lock), 20, "the lock is held")
        started = site.notify("start")
        assert started.returncode == 1
        assert started.stderr == f"notify: already running with process id {foreground.pid}\n"
        assert not site.pid_file.exists()
        stopped = site.notify("stop")
        assert stopped.returncode == 1
        assert f"No pid file exists at {site.pid_file}." in stopped.stderr
        assert f"process id {foreground.pid} watches in the foreground" in stopped.stderr
        wait_until(lambda: site.status()["state"] == "active", 20, "it is active")
        foreground.send_signal(signal.SIGTERM)
        foreground.communicate(timeout=30)
    assert foreground.returncode == 0


def test_sighup_reopens_and_reloads(site: Site) -> None:
    site.start()
    (site.data / "first.csv").write_text("1")
    wait_until(lambda: "Sending task" in site.out.read_text(), what="the first task's line")
    rotated = site.out.with_suffix(".out.1")
    site.out.rename(rotated)
    site.configure("DRY_RUN = ['*/second.csv']\n")
    assert site.notify("reload").returncode == 0
    wait_until(site.out.exists, what="a new output file")
    wait_until(lambda: "Watching 1 dir" in site.out.read_text(), what="it watches again")
    (site.data / "second.csv").write_text("1")
    wait_until(lambda: "Dry run" in site.out.read_text(), what="the new configuration")
    assert "second.csv" not in rotated.read_text()
    site.configure("LOG_DIR = 'elsewhere'\n")
    assert site.notify("reload").returncode == 0
    wait_until(lambda: "LOG_DIR changed" in site.err.read_text(), what="a refusal")
    assert "Not reloaded: LOG_DIR changed" in site.out.read_text()


SIGNALS = """
from watchman import signals
import helper_site

@signals.arrived.connect
def arrived(sender, path, **_):
    with open({notes!r}, 'a') as file:
        file.write(helper_site.WORD + ' ' + os.path.basename(path) + '\\n')
"""


def test_a_refused_configuration_leaves_nothing_behind(site: Site) -> None:
    notes, helper = site.top / "notes", site.top / "helper_site.py"
    places = f"PID_FILE = {str(site.pid_file)!r}\nLOG_DIR = {str(site.out.parent)!r}\n"
    in_force = places + SIGNALS.format(notes=str(notes))
    site.configure(in_force)
    helper.write_text("WORD = 'first'\n")
    notes.touch()
    site.start()
    helper.write_text("WORD = 'refused'\n")
    for number, setting in enumerate(("LOG_DIR", "STATE_DIR")):
        refused = f"Not reloaded: {setting} changed"
        site.configure(f"{in_force}LOG_MEGABYTES = 0.0001\n{setting} = 'elsewhere'\n")
        assert site.notify("reload").returncode == 0
        wait_until(lambda: refused in site.out.read_text(), what="a refusal")  # noqa: B023 — called at once
        (site.data / f"{number}.csv").write_text("1")
        wait_until(lambda: len(notes.read_text().splitlines()) > number, what="the signal")  # noqa: B023 — called at once
        wait_until(lambda: f"{number}.csv" in site.out.read_text(), what="the task's line")  # noqa: B023 — called at once
        assert notes.read_text() == "".join(f"first {n}.csv\n" for n in range(number + 1))
    assert not site.out.with_suffix(".out.1").exists()
    # One that is taken holds, its LOG_MEGABYTES too.
    site.configure(f"{in_force}LOG_MEGABYTES = 0.0001\n")
    assert site.notify("reload").returncode == 0
    wait_until(site.out.with_suffix(".out.1").exists, what="the rotation")


def test_an_output_file_that_cannot_be_opened_again(site: Site) -> None:
    site.start()
    rotated = site.out.with_suffix(".out.1")
    site.out.rename(rotated)
    site.out.mkdir()
    assert site.notify("reload").returncode == 0
    said = f"LOG_DIR: {site.out} cannot be opened: Is a directory; the old file is written on"
    wait_until(lambda: said in site.err.read_text(), what="why")
    wait_until(lambda: "Reloaded" in rotated.read_text(), what="the reload in the old file")


def test_output_is_appended_to(site: Site) -> None:
    site.start()
    site.stop()
    before = site.out.read_text()
    site.start()
    assert site.out.read_text().startswith(before)
    assert len(site.out.read_text()) > len(before)


def test_warnings_are_in_both_files(site: Site) -> None:
    site.configure("CELERY_ROUTES = {}\n")
    site.start()
    for path in (site.out, site.err):
        assert re.search(r"\[WARNING\] .*CELERY_ROUTES: is ignored here", path.read_text())
    assert "INFO" not in site.err.read_text()


def test_output_files_of_the_second_system(site: Site) -> None:
    site.configure("INOTIFIER_DAEMON_STDOUT = 'w.out'\nINOTIFIER_DAEMON_STDERR = 'logs/w.err'\n")
    done = site.notify("start")
    assert done.stdout.endswith(f"output in {site.top}/w.out\n")
    assert " Watching 1 directory" in (site.top / "w.out").read_text()
    assert (site.top / "logs/w.err").read_text() == ""
    assert not site.out.exists()
    site.stop()


def test_start_names_the_file_in_which_logging_of_the_user_s_own_is(site: Site) -> None:
    site.configure(
        "LOGGING = {'version': 1, 'handlers': {'h': {'class': 'logging.StreamHandler'}}, "
        "'root': {'level': 'INFO', 'handlers': ['h']}}\n"
    )
    done = site.notify("start")
    assert done.stdout.endswith(f"; output in {site.out} and {site.err}\n")
    assert "Watching 1 directory" in site.err.read_text()
    site.stop()


def test_logging_that_cannot_be_set_up_is_a_mistake_of_the_configuration(site: Site) -> None:
    site.configure(
        "LOGGING = {'version': 1, 'handlers': {'h': {'class': 'logging.FileHandler', "
        "'filename': '/no/such/log'}}}\n"
    )
    done = site.notify("start")
    assert done.returncode == 78
    assert done.stderr.startswith("notify: LOGGING: ")


def test_logging_of_the_users_own_is_kept(site: Site) -> None:
    site.configure(
        "LOGGING = {'version': 1, 'disable_existing_loggers': False, "
        "'handlers': {'f': {'class': 'logging.FileHandler', "
        f"'filename': {str(site.top / 'own.log')!r}}}}}, "
        "'root': {'level': 'INFO', 'handlers': ['f']}}\n"
    )
    site.start()
    assert "Watching 1 director" in (site.top / "own.log").read_text()
    assert site.out.read_text() == ""


def test_why_it_does_not_watch(site: Site) -> None:
    (site.top / "var").mkdir(mode=0o700)
    connection = sqlite3.connect(site.top / "var/journal.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    done = site.notify("start")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("notify: the journal ")
    assert "has schema 9" in done.stderr
    assert "Traceback" not in done.stderr
    assert site.err.read_text() == done.stderr
    assert not site.pid_file.exists()


def test_a_journal_with_garbage_in_it(site: Site) -> None:
    """Whoever starts it is told that it watches, and it does: nothing ends, nothing is lost."""
    site.start()
    site.notify("stop")
    journal = site.top / "var/journal.db"
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.seek(size // 3)
        file.write(os.urandom(size // 2))
    done = site.notify("start")
    assert done.returncode == 0
    wait_until(lambda: "A new one has been begun" in site.err.read_text(), 20)
    wait_until(lambda: site.status()["state"] == "active", 20, "it is active")
    assert "Traceback" not in site.err.read_text()
    assert site.notify("stop").returncode == 0


def test_stop_waits_and_kill_does_not(site: Site) -> None:
    pid = site.start()
    os.kill(pid, signal.SIGSTOP)
    done = site.notify("stop", "--timeout", "0.2")
    assert done.returncode == 1
    assert f"process id {pid} has not ended within 0.2 s" in done.stderr
    assert site.pid == pid
    done = site.notify("stop", "--timeout", "0.2", "--kill")
    assert (done.returncode, done.stdout) == (0, "Watching has been stopped.\n")
    assert not site.pid_file.exists()
    assert not site.holders()


def test_a_daemon_that_hangs(site: Site) -> None:
    """Its lock is held and its heartbeat old."""
    pid = site.start()
    wait_until(lambda: site.status()["state"] == "active", 20, "it is active")
    site.hang(pid)
    old = os.stat(site.pid_file).st_mtime - 120
    os.utime(site.pid_file, (old, old))
    assert site.status()["state"] == "hung"
    done = site.notify("status")
    assert done.returncode == 1
    assert f"watchman is hung: process {pid}" in done.stdout
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: site.status()["state"] == "active", 30, "it is active again", interval=0.5)


def test_start_from_anywhere_with_a_relative_configuration(site: Site, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "watchman", "start", "--config", "../config.py"],
        cwd=tmp_path / "deep",
        env={**site.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    site.configure("DRY_RUN = ['*']\n")
    assert site.notify("reload").returncode == 0
    wait_until(lambda: "Reloaded" in site.out.read_text(), what="a reload in the new directory")
