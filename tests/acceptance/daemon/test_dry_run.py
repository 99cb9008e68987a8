"""``notify run --dry-run`` has no effect at all, and says what would become of each arrival."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, Version


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


class DryRun:
    """One that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n").partition(": ")[2])

    def says(self, line: str) -> None:
        wait_until(lambda: line in self.lines, 20, f"{line!r} in {self.lines}")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(20)
        self._thread.join(20)
        return status


@contextmanager
def dry_run(site: Site, *arguments: str) -> Iterator[DryRun]:
    with site.popen(*(arguments or ("run", "--dry-run"))) as process:
        run = DryRun(process)
        try:
            wait_until(
                lambda: any(line.startswith("Watching") for line in run.lines),
                30,
                f"it watches: {run.lines}",
            )
            yield run
        finally:
            if process.poll() is None:
                run.end(signal.SIGKILL)


def all_below(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything below a directory, with its times and content."""
    return {
        str(path.relative_to(top)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in top.rglob("*")
        if "__pycache__" not in str(path)
    }


def states(site: Site) -> dict[str, str]:
    """Return the state of each delivery by its file's name."""
    rows = parsed(site.notify("history", "--json").stdout)
    return {Path(row["source"]).name: row["state"] for row in rows}


def with_store(site: Site) -> Path:
    store = site.top / "store"
    store.mkdir()
    site.configure(f"MOVES = {{{str(site.data)!r}: {str(store)!r}}}\n")
    return store


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_nothing_where_nothing_has_run(site: Site, number: int) -> None:
    store = with_store(site)
    (site.data / "old.csv").write_text("x")
    before = all_below(site.top)
    with dry_run(site) as run:
        (site.data / "a.csv").write_text("x")
        run.says(f"Dry run: would move {site.data}/a.csv to {store}/a.csv")
        run.says("Dry run: would send task tasks.load")
        (site.data / "a.txt").write_text("x")
        run.says(f"Dry run: would move {site.data}/a.txt to {store}/a.txt")
        run.says(f"Dry run: would send no task for {site.data}/a.txt: no pattern matches")
        assert run.end(number) == 0
        assert run.lines[-1] == "Watching has been stopped"
        assert run.lines.count("Dry run: would send task tasks.load") == 1
        assert "Dry run: 1 that are there already would be noted and not sent" in run.lines
    assert not list(site.temporary.iterdir())
    (site.data / "a.csv").unlink()
    (site.data / "a.txt").unlink()
    after = all_below(site.top)
    for tree in (before, after):
        del tree["data"]  # its time is that of the uploads
        tree.pop("tmp")
    assert after == before


def test_what_is_recorded_is_neither_moved_nor_sent(site: Site) -> None:
    """The journal is only read, and not a byte of STATE_DIR changes."""
    store = with_store(site)
    state = site.top / "var"
    state.mkdir(mode=0o700)
    paths = [site.data / name for name in ("moving.csv", "ready.csv", "came.csv")]
    for path in paths:
        path.write_text("x")
    journal = Journal(str(state))
    new = []
    for path in paths[:2]:
        status = path.stat()
        version = Version(status.st_dev, status.st_ino, 1, status.st_mtime_ns, status.st_ctime_ns)
        final = str(store / path.name) if path.name == "moving.csv" else None
        route = Route("local", "tasks.load")
        new.append(NewDelivery(path.name, str(path), final, version, 1, route))
    journal.record(new)
    journal.note_first_run([str(site.data)])
    journal.close()
    before = all_below(state)
    with dry_run(site) as run:
        # What came while nothing ran is told, what is known is not.
        run.says(f"Dry run: would move {site.data}/came.csv to {store}/came.csv")
        (site.data / "now.csv").write_text("x")
        run.says(f"Dry run: would move {site.data}/now.csv to {store}/now.csv")
        assert run.end() == 0
    told = [line for line in run.lines if line.startswith("Notified")]
    assert told == [f"Notified of {site.data}/{name}.csv" for name in ("came", "now")]
    assert all_below(state) == before
    assert sorted(path.name for path in site.data.iterdir()) == [
        *("came.csv", "moving.csv", "now.csv", "ready.csv"),
    ]
    assert not list(store.iterdir())
    assert states(site) == {"moving.csv": "moving", "ready.csv": "ready"}


def test_it_runs_beside_the_daemon_which_does_its_work(site: Site) -> None:
    (site.data / "early.csv").write_text("x")
    pid = site.start()
    with dry_run(site) as run:
        assert site.pid == pid
        (site.data / "a.csv").write_text("x")
        run.says("Dry run: would send task tasks.load")
        wait_until(lambda: states(site) == {"a.csv": "sent"}, 20, "the daemon sends it")
        assert run.end() == 0
    assert site.pid == pid
    with dry_run(site) as run:
        # The daemon can be stopped and started meanwhile.
        site.stop()
        site.start()
        (site.data / "b.csv").write_text("x")
        sent = {"a.csv": "sent", "b.csv": "sent"}
        wait_until(lambda: states(site) == sent, 20, "the next one sends it")
        run.says(f"Notified of {site.data}/b.csv")
        run.end()
    assert f"Notified of {site.data}/a.csv" not in run.lines
    site.stop()


def test_processors_logs_and_handlers_of_the_configuration_are_left_alone(site: Site) -> None:
    called = site.top / "called"
    (site.top / "own.py").write_text(
        "import pyinotify\n"
        "class Own(pyinotify.ProcessEvent):\n"
        "    def process_default(self, event):\n"
        f"        open({str(called)!r}, 'w')\n"
    )
    site.configure(
        f"WATCHES.append(({str(site.data)!r}, 4095, 'own.Own'))\n"
        "LOGGING = {'version': 1, 'handlers': {'file': {'class': 'logging.FileHandler', "
        f"'filename': {str(site.top / 'own.log')!r}}}}}, 'root': {{'handlers': ['file']}}}}\n"
    )
    with dry_run(site) as run:
        (site.data / "a.csv").write_text("x")
        run.says("Dry run: would send task tasks.load")
        assert f"Dry run: the processor own.Own is not called for {site.data}" in run.lines
        assert run.end() == 0
    assert not called.exists()
    assert not (site.top / "own.log").exists()


def test_whole_directories_are_told_of(site: Site) -> None:
    site.configure(
        f"WATCHES = [{{'path': {str(site.data)!r}, 'kind': 'directories'}}]\n"
        "PATTERNS = [('*', {'broker': 'local', 'task': 'import_directory'})]\n"
    )
    with dry_run(site) as run:
        (site.data / "x.tmp").mkdir()
        (site.data / "x.tmp").rename(site.data / "x")
        run.says("Dry run: would send task import_directory")
        assert f"2|NOTFINISHED: {site.data}/x.tmp" in run.lines
        assert run.end() == 0
    assert not (site.top / "var").exists()


def test_a_watch_on_the_directory_for_temporary_files_sees_nothing_of_it(site: Site) -> None:
    site.configure(
        f"WATCHES = [{{'path': {str(site.temporary)!r}, 'rec': True, 'auto_add': True}}]\n"
    )
    with dry_run(site) as run:
        (site.temporary / "a.csv").write_text("x")
        run.says(f"Notified of {site.temporary}/a.csv")
        assert run.end() == 0
    assert [line for line in run.lines if line.startswith("Notified")] == [
        f"Notified of {site.temporary}/a.csv"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "--dry-run"),
        ("restart", "--dry-run"),
        ("--dry-run", "start"),
        ("--dry-run", "stop"),
        ("--dry-run", "retry", "--all"),
        ("--dry-run", "scan", "--send"),
    ],
)
def test_no_other_command_takes_it_and_does_its_work(
    site: Site, arguments: tuple[str, ...]
) -> None:
    done = site.notify(*arguments)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
    assert not (site.top / "var").exists()


def test_without_room_for_temporary_files_it_says_so(site: Site) -> None:
    code = (
        "import sys, tempfile; tempfile.tempdir = '/no/such'; "
        "from watchman.cli import main; main(['run', '--dry-run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=site.top,
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "notify: a dry run needs a directory for temporary files: No such file or directory; "
        "set TMPDIR to one that can be written\n"
    )


def test_without_a_command_it_is_the_same(site: Site) -> None:
    with dry_run(site, "--dry-run") as run:
        (site.data / "a.csv").write_text("x")
        run.says("Dry run: would send task tasks.load")
        assert run.end() == 0
    assert not (site.top / "var").exists()


def test_a_reload_reads_the_configuration_again(site: Site) -> None:
    with dry_run(site) as run:
        site.configure("PATTERNS = [('*.txt', {'broker': 'local', 'task': 'other'})]\n")
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(line.startswith("Reloaded") for line in run.lines))
        (site.data / "a.txt").write_text("x")
        run.says("Dry run: would send task other")
        assert run.end() == 0
    assert not (site.top / "var").exists()


def test_what_was_there_before_the_first_run_is_not_said_to_be_moved(site: Site) -> None:
    """Whether a pattern matches or not: the first run only takes note of it."""
    store = with_store(site)
    for name in ("old.csv", "old.txt"):
        (site.data / name).write_text("x")
    assert "; 2 × existing is 'new': what is there before" in site.notify("scan").stdout
    with dry_run(site) as run:
        assert run.end() == 0
    assert "Dry run: 2 that are there already would be noted and not sent" in run.lines
    assert not [line for line in run.lines if "would move" in line]
    site.start()
    (site.data / "new.txt").write_text("x")
    wait_until((store / "new.txt").exists, 20, "it is moved")
    assert sorted(path.name for path in site.data.iterdir()) == ["old.csv", "old.txt"]


def test_what_is_asked_of_an_arrival_is_no_certain_task(site: Site) -> None:
    options = "{'broker': 'local', 'task': 'tasks.load', 'complete': 'gzip'}"
    site.configure(f"PATTERNS += [('*.gz', {options})]\n")
    with dry_run(site) as run:
        (site.data / "half.gz").write_text("x")
        run.says("Dry run: would send task tasks.load if it is what is asked of it")
        (site.data / "a.csv").write_text("x")
        run.says("Dry run: would send task tasks.load")


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_what_was_sent_is_not_said_to_have_been_there_before(site: Site, kind: str) -> None:
    site.configure(
        f"WATCHES = [{{'path': {str(site.data)!r}, 'kind': {kind!r}}}]\n"
        "PATTERNS = [('*', {'broker': 'local', 'task': 'tasks.load'})]\n"
    )
    site.start()
    made = site.top / "made"
    made.mkdir() if kind == "directories" else made.touch()
    made.rename(site.data / "sent")
    wait_until(lambda: states(site) == {"sent": "sent"}, 20)
    site.stop()
    with dry_run(site) as run:
        assert run.end() == 0
    assert [line for line in run.lines if f"{site.data}/sent" in line] == []
