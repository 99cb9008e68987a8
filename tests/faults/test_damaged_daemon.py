"""A daemon whose journal is damaged, before its start or under it: nothing is lost by that."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.faults.driver import WATCHING, Daemon, Sent, in_directory, wait_for_tasks
from tests.waiting import wait_until
from watchman.cli import main

PAGE = 4096
AGAIN = "is closed, checked and opened again"
ANEW = "A new one has been begun"


class Site:
    """A daemon with a plain watch, one that moves and one for directories, and its uploads."""

    def __init__(self, base: Path, start: Callable[..., Daemon]) -> None:
        self.state = base / "state"
        self.journal = self.state / "journal.db"
        self.plain, self.moved, self.whole = base / "plain", base / "moved", base / "whole"
        for path in (self.plain, self.moved, self.whole, base / "store"):
            path.mkdir()
        self.config = base / "config.py"
        self.config.write_text(
            f"STATE_DIR = {str(self.state)!r}\n"
            "BROKERS = {'b': 'filesystem://', 'dead': 'redis://127.0.0.1:1'}\n"
            f"WATCHES = [{{'path': {str(self.plain)!r}, 'rec': True, 'auto_add': True}},\n"
            f"           {{'path': {str(self.moved)!r}}},\n"
            f"           {{'path': {str(self.whole)!r}, 'kind': 'directories'}}]\n"
            "PATTERNS = [('*waits*', {'broker': 'dead', 'task': 't'}),\n"
            "            ('*', {'broker': 'b', 'task': 't'})]\n"
            f"MOVES = {{{str(self.moved)!r}: {str(base / 'store')!r}}}\n"
        )
        self._start = start
        self.uploads: list[str] = []
        self.daemons: list[Daemon] = []

    def start(self) -> Daemon:
        self.daemons.append(self._start(self.config))
        return self.daemons[-1]

    def upload(self, word: str, count: int = 9) -> None:
        for number in range(count):
            directory = (self.plain, self.moved, self.whole)[number % 3]
            path = directory / f"{word}{number}"
            if directory is self.whole:
                path.mkdir()
            else:
                path.write_text(path.name)
            self.uploads.append(str(path))

    def sent(self) -> list[Sent]:
        return in_directory(self.state)

    def wait_for_all(self) -> dict[str, set[str]]:
        """Wait for a task for everything; return all ids by source."""
        ids: dict[str, set[str]] = {}
        try:
            found = wait_for_tasks(self.uploads, self.sent, 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.daemons[-1].output}") from error
        for message in found:
            ids.setdefault(message.source, set()).add(message.task_id)
        return ids

    def notify(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*arguments, "--config", str(self.config)])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    def check(self) -> None:
        for daemon in self.daemons:
            assert "Traceback" not in daemon.output, daemon.output


@pytest.fixture
def site(tmp_path: Path, daemon: Callable[..., Daemon]) -> Site:
    return Site(tmp_path, daemon)


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def page(number: int) -> Callable[[Site], None]:
    """Damage one page in ten, of the file without a log."""

    def damage(site: Site) -> None:
        pages = site.journal.stat().st_size // PAGE
        overwrite(site.journal, min(pages - 1, pages * number // 10) * PAGE, os.urandom(PAGE))

    return damage


def empty(site: Site) -> None:
    os.truncate(site.journal, 0)


def half(site: Site) -> None:
    os.truncate(site.journal, site.journal.stat().st_size // 2)


def header(site: Site) -> None:
    overwrite(site.journal, 0, os.urandom(100))


def version(site: Site) -> None:
    """The number of the schema, as a bit that flipped leaves it."""
    overwrite(site.journal, 60, b"\x40\0\0\1")


def no_version(site: Site) -> None:
    overwrite(site.journal, 60, b"\0\0\0\0")


def middle(site: Site) -> None:
    size = site.journal.stat().st_size
    overwrite(site.journal, size // 3, os.urandom(size // 3))


def missing(site: Site) -> None:
    site.journal.unlink()


def drop_tables(site: Site) -> None:
    with sqlite3.connect(site.journal) as connection:
        connection.execute("DROP TABLE known")
        connection.execute("DROP TABLE watches")
    connection.close()


DAMAGES = [
    *map(page, range(10)),
    *(empty, half, header, version, no_version, middle, missing, drop_tables),
]
NAMES = [f"page {number}" for number in range(10)] + [one.__name__ for one in DAMAGES[10:]]


def fill(site: Site) -> dict[str, set[str]]:
    """Run a daemon, and give it enough for a journal of some dozen pages."""
    running = site.start().wait_watching()
    site.upload("first", 150)
    ids = site.wait_for_all()
    wait_until(lambda: ": 0" not in site.notify("status")[1], 10)
    running.stop()
    return ids


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
def test_before_a_start(site: Site, damage: Callable[[Site], None]) -> None:
    before = fill(site)
    site.upload("down")
    damage(site)
    running = site.start().wait_watching()
    site.upload("later")
    ids = site.wait_for_all()
    running.stop()
    site.check()
    for source, known in before.items():
        assert ids[source] == known, "another id for what was sent"
    assert all(len(many) == 1 for many in ids.values())


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
def test_under_a_running_daemon(site: Site, damage: Callable[[Site], None]) -> None:
    before = fill(site)
    running = site.start().wait_watching()
    damage(site)
    for word in ("one", "two", "three"):
        site.upload(word)
    ids = site.wait_for_all()
    assert running.status is None
    # Whether it was met by then or not: the next start does not begin with it.
    running.kill()
    site.upload("last")
    site.start().wait_watching()
    ids |= site.wait_for_all()
    site.daemons[-1].stop()
    site.check()
    for source, known in before.items():
        assert ids[source] == known


def test_it_is_replaced_in_the_same_process(site: Site) -> None:
    fill(site)
    running = site.start().wait_watching()
    middle(site)
    site.upload("meanwhile")
    os.kill(running.pid, 10)  # SIGUSR1: catch up, and so read what is known
    wait_until(lambda: ANEW in running.output, 30, running.output)
    wait_until(lambda: len(WATCHING.findall(running.output.encode())) == 2, 30)
    site.wait_for_all()
    assert running.output.count(AGAIN) == 1
    assert running.output.count(ANEW) == 1
    assert len(list(site.state.glob("journal.db.damaged-*[0-9]"))) == 1
    running.stop()
    site.check()
    assert site.notify("failed") == (0, "nothing failed\n")


def test_what_was_moved_and_not_announced(site: Site) -> None:
    """No scan finds it again: what the connection that wrote it can still read is kept."""
    fill(site)
    running = site.start().wait_watching()
    paths = [site.moved / f"waits{number}" for number in range(20)]
    for path in paths:
        path.write_text(path.name)

    def waiting() -> dict[bytes, str]:
        with contextlib.closing(sqlite3.connect(site.journal)) as journal:
            rows = journal.execute(
                "SELECT final, task_id FROM deliveries WHERE state = 2 AND broker = 'dead'"
            )
            return dict(rows.fetchall())

    before = wait_until(lambda: len(waiting()) == len(paths) and waiting(), 30)
    empty(site)  # SQLite removes the log as well
    # A look at everything reads what is known.
    site.upload("new")
    os.kill(running.pid, 10)  # SIGUSR1
    wait_until(lambda: ANEW in running.output, 30, running.output)
    site.wait_for_all()
    running.stop()
    site.start().wait_watching()
    assert waiting() == before, running.output
    site.daemons[-1].stop()
    site.check()


def log_all(site: Site) -> None:
    log = site.journal.with_name("journal.db-wal")
    overwrite(log, 0, os.urandom(log.stat().st_size))


def log_middle(site: Site) -> None:
    log = site.journal.with_name("journal.db-wal")
    size = log.stat().st_size
    overwrite(log, size // 2, os.urandom(size // 4))


def log_cut(site: Site) -> None:
    log = site.journal.with_name("journal.db-wal")
    os.truncate(log, log.stat().st_size // 3)


def log_missing(site: Site) -> None:
    site.journal.with_name("journal.db-wal").unlink()


@pytest.mark.parametrize("damage", [log_all, log_middle, log_cut, log_missing])
def test_only_the_log_is_destroyed(site: Site, damage: Callable[[Site], None]) -> None:
    """SQLite leaves out what it cannot read of it, without a word."""
    fill(site)
    running = site.start().wait_watching()
    site.upload("logged", 60)
    before = site.wait_for_all()
    running.kill()
    damage(site)
    site.upload("down")
    again = site.start().wait_watching()
    ids = site.wait_for_all()
    assert "what was recorded last, is destroyed or cut off" in again.output
    again.stop()
    site.check()
    for source, known in before.items():
        assert ids[source] == known


def test_a_log_that_is_whole_is_not_suspected(site: Site) -> None:
    running = site.start().wait_watching()
    for word in ("a", "b"):
        site.upload(word, 30)
        site.wait_for_all()
        running.kill()
        running = site.start().wait_watching()
    running.stop()
    assert not list(site.state.glob("*damaged*"))


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_journal_that_was_there_is_no_first_run(site: Site, how: str) -> None:
    """Whatever else says that there was one: the files that came meanwhile are not old."""
    site.start().wait_watching().stop()
    site.upload("down", 30)
    if how == "empty":
        os.truncate(site.journal, 0)
    else:
        site.journal.unlink()
    running = site.start().wait_watching()
    site.wait_for_all()
    (line,) = [line for line in running.output.splitlines() if "[ERROR]" in line]
    assert f"it is {how}, although heartbeat and status.json beside it" in line
    assert "To begin anew on purpose" in line
    running.stop()


def test_beginning_anew_on_purpose(site: Site) -> None:
    fill(site)
    shutil.rmtree(site.state)
    running = site.start().wait_watching()
    site.uploads = []
    site.upload("new")
    site.wait_for_all()
    assert len(site.sent()) == len(site.uploads)
    assert "[ERROR]" not in running.output
    running.stop()


def test_the_commands_say_what_to_do(site: Site) -> None:
    fill(site)
    whole = site.journal.read_bytes()
    for damage in (header, middle, empty, version, no_version):
        site.journal.write_bytes(whole)
        damage(site)
        for command in (["history"], ["failed"], ["retry", "--all"], ["discard", "1"], ["scan"]):
            status, output = site.notify(*command)
            if damage is middle and "damaged" not in output:
                continue  # it did not read that part
            (line,) = output.splitlines()
            assert status == 1
            assert str(site.journal) in line
            assert "'notify restart' has a new one begun" in line
        status, output = site.notify("status")
        assert status == 1
        assert "inactive" in output
    site.journal.write_bytes(whole)
    assert site.notify("history", "--limit", "9" * 15)[0] == 0
