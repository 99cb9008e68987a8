"""Somebody removes or replaces the journal under the running daemon: nothing is lost with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest

from tests.faults.driver import WATCHING, Daemon, check, in_redis, wait_for_tasks
from tests.journals import counts
from tests.servers.redis import RedisServer
from tests.waiting import wait_until
from watchman.errors import JournalError
from watchman.journal import Journal, NewDelivery
from watchman.journal.journal_reader import open_reader
from watchman.model import Route, State, Version

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'b': {url!r}}}
WATCHES = [{{'path': {plain!r}}}, {{'path': {moved!r}}}]
PATTERNS = [('*', {{'broker': 'b', 'task': 't'}})]
MOVES = {{{moved!r}: {store!r}}}
"""


def fill(state: Path, count: int = 20) -> Journal:
    """Return an open journal with some deliveries, some in the file, some in its log."""
    state.mkdir(exist_ok=True)
    Journal(str(state)).close()
    journal = Journal(str(state))
    record(journal, range(count))
    return journal


def record(journal: Journal, numbers: range) -> None:
    route = Route("b", "task", (1,))
    journal.record(
        [NewDelivery(f"id {n}", f"/up/{n}", None, Version(1, n, 3, 4), 9, route) for n in numbers]
    )


def present(journal: Journal) -> bool:
    return journal.in_place


def remove_all(state: Path) -> None:
    shutil.rmtree(state)


def remove_file(state: Path) -> None:
    (state / "journal.db").unlink()


def remove_contents(state: Path) -> None:
    for path in state.iterdir():
        path.unlink()


@pytest.mark.parametrize("remove", [remove_all, remove_file, remove_contents])
def test_it_is_written_anew_when_it_is_closed(
    tmp_path: Path, remove: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    journal = fill(state)
    assert present(journal)
    remove(state)
    assert not present(journal)
    record(journal, range(20, 30))
    assert len(journal.page_ready("b", 0, 100)) == 30
    journal.close()
    assert [path.name for path in state.iterdir()] == ["journal.db"]
    assert state.stat().st_mode & 0o077 == 0 or remove is not remove_all
    (said,) = [r.getMessage() for r in caplog.records if r.name == "watchman.journal"]
    assert "was removed while it was in use" in said
    again = Journal(str(state))
    assert [d.task_id for d in again.page_ready("b", 0, 100)] == [f"id {n}" for n in range(30)]
    assert again.known.lookup("/up", ["29"])["29"].seq == 30
    again.close()


def test_what_took_its_place_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "state"
    fill(tmp_path / "other", 1).close()
    journal = fill(state)
    os.replace(tmp_path / "other" / "journal.db", state / "journal.db")
    assert not present(journal)
    journal.close()
    (kept,) = state.glob("journal.db.replaced-*")
    assert str(kept) in caplog.text
    now = Journal(str(state))
    assert len(now.page_ready("b", 0, 100)) == 1
    now.close()
    os.replace(kept, state / "journal.db")
    before = Journal(str(state))
    assert len(before.page_ready("b", 0, 100)) == 20
    before.close()


def test_an_empty_file_in_its_place_holds_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = fill(state)
    remove_contents(state)
    (state / "journal.db").touch()
    journal.close()
    again = Journal(str(state))
    assert len(again.page_ready("b", 0, 100)) == 20
    again.close()
    assert [path.name for path in state.iterdir()] == ["journal.db"]


def test_where_none_can_be_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = fill(state)
    shutil.rmtree(state)
    state.write_text("a file")
    with pytest.raises(JournalError, match="removed or replaced while it was in use; a new"):
        journal.close()
    with pytest.raises(JournalError, match="removed or replaced"):
        record(journal, range(1))


def test_no_thread_reads_from_another_file(tmp_path: Path) -> None:
    """A connection that is opened later would be one to what is there now."""
    state = tmp_path / "state"
    journal = fill(state)
    journal.page_ready("b", 0, 1)
    remove_file(state)
    fill(state, 1).close()
    assert len(counts(journal)) == 1
    with pytest.raises(JournalError, match="removed or replaced"):
        in_thread(lambda: journal.page_ready("b", 0, 1))
    journal.close()


def in_thread(function: Callable[[], object]) -> None:
    """Call a function in a thread of its own; raise what it raises."""
    with futures.ThreadPoolExecutor() as pool:
        pool.submit(function).result(10)


def test_the_daemon_goes_on(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    state, store = tmp_path / "state", tmp_path / "store"
    plain, moved = tmp_path / "plain", tmp_path / "moved"
    for path in (plain, moved, store):
        path.mkdir()
    server = RedisServer(tmp_path / "redis")
    config = tmp_path / "config.py"
    config.write_text(
        CONFIG.format(
            state=str(state),
            url=server.url,
            plain=str(plain),
            moved=str(moved),
            store=str(store),
        )
    )
    files: dict[str, bytes] = {}

    def upload(word: str) -> None:
        for number in range(40):
            path = (plain, moved)[number % 2] / f"{word}{number}"
            files[str(path)] = path.name.encode()
            path.write_bytes(path.name.encode())

    def waiting() -> int:
        try:
            with open_reader(str(state)) as found:
                return found.counts().get(("b", State.READY), (0, 0))[0]
        except JournalError:
            return 0  # not written anew yet

    running = daemon(config).wait_watching()
    upload("before")
    wait_until(lambda: waiting() == 40, 20, "all wait for the broker")
    # Renamed first: the daemon may write its status just between the last file and its directory.
    shutil.rmtree(state.rename(tmp_path / "removed"))
    upload("meanwhile")
    wait_until(lambda: "has been written anew" in running.output, 30, "the loss is noticed")
    wait_until(lambda: state.exists() and waiting() == 80, 30, "all is in the new one")
    wait_until(lambda: len(WATCHING.findall(running.output.encode())) == 2, 30, "it goes on")
    assert running.status is None
    second = daemon(config)
    assert second.wait_end() != 0
    assert "already running" in second.output
    server.start()
    try:
        sent = wait_for_tasks(files, lambda: in_redis(server.port))
        check(files, sent, {str(moved): str(store)})
    finally:
        server.stop()
    running.stop()
    assert "Traceback" not in running.output
    assert running.output.count("was removed or replaced") == 1
