"""The journal's disk is full, or may hold no larger file: it waits, says so, and loses nothing."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.driver import Daemon, check, in_redis, wait_for_tasks
from tests.mounted import fill, mounted
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.errors import JournalError
from watchman.journal import Journal, NewDelivery, write_retry
from watchman.model import Route, State, Version
from watchman.status.status_file import Snapshot, read

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'b': {url!r}}}
WATCHES = [{{'path': {plain!r}}}, {{'path': {moved!r}}}]
PATTERNS = [('*', {{'broker': 'b', 'task': 't', 'options': {{'queue': {queue!r}}}}})]
MOVES = {{{moved!r}: {store!r}}}
"""
FULL, AGAIN = "cannot be written", "can be written again"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with mounted(tmp_path / "small") as path:
        yield path


def snapshot(state: Path) -> Snapshot:
    """The running watchman's word for ``notify status``, as soon as there is one."""
    return wait_until(lambda: read(str(state)), 20, "a snapshot")


def troubled(state: Path) -> Snapshot:
    """The same, as soon as it says that the disk of the journal is full."""

    def said() -> Snapshot | None:
        found = snapshot(state)
        troubles = {trouble["subject"]: trouble["message"] for trouble in found["troubles"]}
        return found if "free space there" in troubles.get(f"{state}/journal.db", "") else None

    return wait_until(said, 20, "status says it")


class Site:
    def __init__(self, directory: Path, state: Path, server: RedisServer, queue: str) -> None:
        self.server, self.queue = server, queue
        self.plain, self.moved = directory / "plain", directory / "moved"
        self.store = directory / "store"
        for path in (self.plain, self.moved, self.store):
            path.mkdir()
        self.config = directory / "config.py"
        self.config.write_text(
            CONFIG.format(
                state=str(state),
                url=server.url,
                plain=str(self.plain),
                moved=str(self.moved),
                store=str(self.store),
                queue=queue,
            )
        )
        self.files: dict[str, bytes] = {}

    def upload(self, word: str, count: int) -> None:
        for number in range(count):
            path = (self.plain, self.moved)[number % 2] / f"{word}{number}"
            self.files[str(path)] = str(path).encode()
            path.write_bytes(str(path).encode())

    def check(self) -> None:
        sent = wait_for_tasks(self.files, lambda: in_redis(self.server.port, self.queue))
        check(self.files, sent, {str(self.moved): str(self.store)})


@pytest.fixture
def full(
    tmp_path: Path,
    small: Path,
    daemon: Callable[..., Daemon],
    redis_server: RedisServer,
    queue_name: Callable[[str], str],
) -> tuple[Site, Daemon]:
    """A daemon that has said that the disk is full."""
    site = Site(tmp_path, small, redis_server, queue_name("full"))
    running = daemon(site.config).wait_watching()
    site.upload("before", 4)
    site.check()
    fill(small / "filler")
    site.upload("while-full", 2000)
    wait_until(lambda: FULL in running.output, 20, "the full disk is said")
    return site, running


def test_a_full_disk_stops_nothing_for_good(small: Path, full: tuple[Site, Daemon]) -> None:
    site, running = full
    assert "free space there" in running.output
    # It still runs, and so do the uploads.
    site.upload("later", 100)
    assert running.status is None
    beat = troubled(small)["beat_ns"]
    wait_until(lambda: troubled(small)["beat_ns"] > beat, 20, "it does not count as hung")
    (small / "filler").unlink()
    wait_until(lambda: AGAIN in running.output, 20, "its end is said")
    wait_until(lambda: not snapshot(small)["troubles"], 20, "status knows it")
    site.check()
    running.stop()
    assert running.output.count(AGAIN) == running.output.count(FULL) == 1
    assert "Traceback" not in running.output


def test_a_full_disk_holds_up_no_shutdown(
    small: Path, full: tuple[Site, Daemon], daemon: Callable[..., Daemon]
) -> None:
    site, running = full
    running.stop()
    assert "found again at the next start" in running.output
    assert "Traceback" not in running.output
    (small / "filler").unlink()
    site.upload("while-down", 10)
    daemon(site.config).wait_watching()
    site.check()


def test_a_limit_of_file_sizes_is_waited_for(
    tmp_path: Path,
    daemon: Callable[..., Daemon],
    redis_server: RedisServer,
    queue_name: Callable[[str], str],
) -> None:
    """EFBIG comes out of SQLite as an I/O error, as a failing disk does."""
    state = tmp_path / "state"
    site = Site(tmp_path, state, redis_server, queue_name("limit"))
    running = daemon(site.config).wait_watching()
    hard = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)[1]
    limit = (state / "journal.db-wal").stat().st_size
    assert limit > 3 * running.log.stat().st_size
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (limit, hard))
    site.upload("while-limited", 10)
    wait_until(lambda: FULL in running.output, 20, "the limit is said")
    assert "disk I/O error" in running.output
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (hard, hard))
    site.check()
    running.stop()
    assert running.output.count(FULL) == 1


def new(number: int) -> NewDelivery:
    return NewDelivery(f"{number}", f"/up/{number}", None, Version(1, 2, 3, 4), 5, Route("b", "t"))


def test_every_way_to_write_waits_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a lock that somebody holds: here it can be let go at the right moment."""
    monkeypatch.setattr(write_retry, "FIRST_DELAY", 0.02)
    journal = Journal(str(tmp_path))
    journal.record([new(1)._replace(final="/store/1"), new(2), new(3)])
    journal._database._writer.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(journal.path, isolation_level=None, check_same_thread=False)
    writes: list[Callable[[], object]] = [
        lambda: journal.record([new(4)]),
        lambda: journal.note([(2, State.SENT, "")]),
        lambda: journal.redirect(1, "/store/other"),
        lambda: journal.known.forget(["/up/2"]),
        lambda: journal.known.refresh([("/up/3", Version(1, 2, 9, 9))]),
        lambda: journal.known.forget_below("/up"),
        lambda: journal.note_first_run(["/up"]),
        lambda: journal.begin_first_runs(["/up/2"], 1),
        lambda: journal.prune(2**62),
    ]
    for write in writes:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=write)
        thread.start()
        wait_until(lambda: journal.write_retry.trouble, 5, "it waits")
        assert "another process is writing" in journal.write_retry.trouble
        other.execute("ROLLBACK")
        thread.join(10)
        assert not thread.is_alive()
        assert not journal.write_retry.trouble
    other.close()
    assert [d.final for d in journal.page_strays((), 9)] == ["/store/other"]
    assert [d.source for d in journal.page_ready("b", 0, 9)] == ["/up/3", "/up/4"]
    assert journal.page_ready("b", 0, 9)[0].version.size == 9
    journal.close()


def test_giving_up_records_nothing(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal._database._writer.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal.write_retry.give_up = lambda: True
    with pytest.raises(JournalError, match="found again at the next start"):
        journal.record([new(1)])
    other.execute("ROLLBACK")
    other.close()
    assert journal.page_ready("b", 0, 9) == []
    journal.record([new(2)])
    assert [(d.seq, d.source) for d in journal.page_ready("b", 0, 9)] == [(1, "/up/2")]
    journal.close()
