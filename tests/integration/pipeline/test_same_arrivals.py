"""Which arrivals are the same, on a real file system: identity.py's table as users meet it."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.sources.uploads import exchange
from tests.journals import counts, history
from tests.running import Remembering, config_for, running
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman.ignored_names import DEFAULT_IGNORE
from watchman.journal.journal_reader import open_reader
from watchman.model import ACCEPTED, Answer, Method, Outcome, State
from watchman.pipeline import Pipeline
from watchman.sources import reader, source

OLD = 1_500_000_000_000_000_000


def flush(root: Path, sent: Remembering) -> list[str]:
    """Return what was sent so far, after all that happened before now has been handled."""
    mark = root / f"mark{len(list(root.glob('mark*')))}"
    mark.write_text("x")
    wait_until(lambda: str(mark) in sent.paths, 20, f"{mark} is sent")
    return [path for path in sent.paths if not os.path.basename(path).startswith("mark")]


def await_ready(pipeline: Pipeline, count: int) -> None:
    """Wait until so many deliveries are recorded and unsent."""
    wait_until(lambda: counts(pipeline.journal).get(("b", State.READY), (0, 0))[0] == count)


def write(path: Path, content: str, mtime_ns: int = OLD) -> None:
    """Write in place, and give the same time each time, as devices without a clock do."""
    with path.open("w") as file:
        file.write(content)
        file.flush()
        os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))


def test_a_rewrite_with_the_same_size_and_time_is_an_arrival(root: Path, state: Path) -> None:
    path = root / "record.dat"
    with running(config_for(root, state)) as (_, sent):
        for n in range(1, 6):
            write(path, f"value {n}")
            assert flush(root, sent) == [str(path)] * n
    ids = {message.task_id for message in sent.messages if message.path == str(path)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    "command",
    [
        ["cp", "--preserve=timestamps"],
        ["rsync", "--inplace", "--times", "--ignore-times", "--whole-file"],
        ["rsync", "--times", "--ignore-times"],
    ],
    ids=" ".join,
)
def test_uploads_again_by_clients_that_keep_times(
    root: Path, state: Path, tmp_path: Path, command: list[str]
) -> None:
    source, path = tmp_path / "record.dat", root / "record.dat"
    # rsync closes its temporary file before it renames it, and is not always at once about that.
    with running(config_for(root, state, ignore=DEFAULT_IGNORE)) as (_, sent):
        for n in range(1, 5):
            write(source, f"value {n}")
            subprocess.run([*command, source, path], check=True)
            assert flush(root, sent) == [str(path)] * n
    ids = {message.task_id for message in sent.messages if message.path == str(path)}
    assert len(ids) == 4


def test_what_was_removed_and_made_again_is_another_upload(root: Path, state: Path) -> None:
    """The worker deletes the file, and the next upload gets its inode, size and time."""
    path = root / "record.dat"
    with running(config_for(root, state)) as (_, sent):
        for n in range(1, 11):
            write(path, "value")
            assert flush(root, sent) == [str(path)] * n
            path.unlink()
            if n % 2:
                flush(root, sent)  # it was seen to be gone
    ids = {message.task_id for message in sent.messages if message.path == str(path)}
    assert len(ids) == 10


def test_truncated_by_its_path_is_an_arrival(root: Path, state: Path) -> None:
    """As SFTP's setstat does: no close follows."""
    path = root / "a.csv"
    with running(config_for(root, state)) as (_, sent):
        path.write_text("a long line")
        assert flush(root, sent) == [str(path)]
        for size in (4, 20):
            os.truncate(path, size)
            wait_until(lambda size=size: sent.messages[-1].size == size, 10, f"{size} bytes")  # type: ignore[misc]  # — binds size
        assert flush(root, sent) == [str(path)] * 3


@pytest.mark.parametrize("split", [False, True])
def test_exchanged_files_are_arrivals_at_both_names(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    """The second leaves its name after the first has come there (renameat2(2))."""
    if split:  # each event by itself
        monkeypatch.setattr(reader, "CHUNK", 48)
        monkeypatch.setattr(source, "TAKEN", 1)
    paths = [root / name for name in ("a.csv", "b.csv")]
    with running(config_for(root, state)) as (pipeline, sent):
        for path in paths:
            path.write_text(path.name)
        flush(root, sent)
        exchange(*paths)
        assert sorted(flush(root, sent)) == sorted(map(str, paths * 2))
        pipeline.rescan()
        flush(root, sent)
        assert len(flush(root, sent)) == 4


def test_made_again_at_once_while_unsent(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    path = root / "record.dat"
    with running(config_for(root, state), publisher) as (pipeline, sent):
        for n in range(6):
            if n:
                path.unlink()
            tick = time.time_ns() + 20_000_000  # the ctime must be another one
            wait_until(lambda tick=tick: time.time_ns() > tick)  # type: ignore[misc]  # — binds tick
            write(path, "value")
            wait_until(lambda n=n: known_seq(pipeline, path) == n + 1)  # type: ignore[misc]  # — binds n
        publisher.answer = ACCEPTED
        assert flush(root, sent) == [str(path)]


def test_only_opened_for_writing_changed_or_linked_is_no_arrival(
    root: Path, state: Path, tmp_path: Path
) -> None:
    path = root / "a.csv"
    with running(config_for(root, state)) as (pipeline, sent):
        write(path, "value")
        assert flush(root, sent) == [str(path)]
        for n in range(5):
            # A link that is made elsewhere gives no event: what is known has the next change's.
            os.link(path, tmp_path / f"link{n}")
            assert flush(root, sent) == [str(path)]
            path.chmod(0o600 + n)
            flush(root, sent)
            os.close(os.open(path, os.O_RDWR))
            flush(root, sent)
            os.utime(path, ns=(n, n))
            assert flush(root, sent) == [str(path)]
        status = path.stat()
        last = (status.st_mtime_ns, status.st_ctime_ns)

        def known() -> tuple[int, int]:
            found = pipeline.journal.known.lookup(str(root), ["a.csv"])["a.csv"].version
            return found.mtime_ns, found.changed_ns

        # Noted in its own time: nobody waits for what sends nothing.
        wait_until(lambda: known() == last, what="the last change is known")


def test_a_directory_that_is_renamed_there_and_back_holds_what_was_announced(
    root: Path, state: Path
) -> None:
    """One task for each path, however often: the files are the ones that were announced."""
    with running(config_for(root, state)) as (_, sent):
        (root / "d" / "deep").mkdir(parents=True)
        for n in range(20):
            (root / "d" / f"{n}.csv").write_text("x")
            (root / "d" / "deep" / f"{n}.csv").write_text("x")
            (root / "d").rename(root / "e")
            if n % 3 == 0:
                flush(root, sent)
            (root / "e").rename(root / "d")
        flush(root, sent)
        wait_until(lambda: {str(p) for p in (root / "d").rglob("*.csv")} <= set(sent.paths))
        flush(root, sent)
    assert {path: n for path, n in Counter(sent.paths).items() if n > 1} == {}


def test_what_comes_back_unsent_is_the_delivery_that_is_there(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    with running(config_for(root, state), publisher) as (pipeline, sent):
        (root / "d").mkdir()
        (root / "d" / "a.csv").write_text("x")
        await_ready(pipeline, 1)
        for _ in range(3):
            (root / "d").rename(root / "e")
            wait_until(lambda: pipeline.parts.local.source.find(str(root / "e")))
            (root / "e").rename(root / "d")
            wait_until(lambda: pipeline.parts.local.source.find(str(root / "d")))
        publisher.answer = ACCEPTED
        flush(root, sent)
        wait_until(lambda: str(root / "d" / "a.csv") in sent.paths)
        flush(root, sent)
        assert sent.paths.count(str(root / "d" / "a.csv")) == 1


def test_a_file_that_is_renamed_there_and_back_unsent_is_sent_once(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    path = root / "a.csv"
    with running(config_for(root, state), publisher) as (pipeline, sent):
        path.write_text("x")
        await_ready(pipeline, 1)
        for _ in range(3):
            path.rename(root / "b.csv")
            wait_until(lambda: pipeline.journal.known.lookup(str(root), ["b.csv"]))
            (root / "b.csv").rename(path)
            wait_until(lambda: pipeline.journal.known.lookup(str(root), ["a.csv"]))
        publisher.answer = ACCEPTED
        assert flush(root, sent).count(str(path)) == 1


def test_writes_to_an_ignored_name_are_not_waited_for(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        with (root / "a.part").open("w") as hidden, (root / "b").open("w") as file:
            for n in range(100):
                hidden.write(f"{n}\n")
                hidden.flush()
                file.write(f"{n}\n")
                file.flush()
            wait_until(lambda: len(pipeline.parts.local.files.incomplete) == 1)
            flush(root, sent)
            assert len(pipeline.parts.local.files.incomplete) == 1
        assert flush(root, sent) == [str(root / "b")]
        assert len(pipeline.parts.local.files.incomplete) == 0


def test_sent_renamed_away_and_back_is_an_arrival_with_an_id_of_its_own(
    root: Path, state: Path
) -> None:
    path = root / "a.csv"
    with running(config_for(root, state)) as (_, sent):
        path.write_text("x")
        assert flush(root, sent) == [str(path)]
        path.rename(root / ".part")
        (root / ".part").rename(path)
        wait_until(lambda: sent.paths.count(str(path)) == 2)
    assert len({message.task_id for message in sent.messages}) == len(sent.messages)


def test_a_directory_made_anew_holds_other_uploads(root: Path, state: Path, tmp_path: Path) -> None:
    """Copied with its times over and over: inode numbers, sizes and mtimes are the same."""
    source = tmp_path / "d"
    source.mkdir()
    for n in range(3):
        write(source / f"{n}.csv", "value")
    with running(config_for(root, state)) as (_, sent):
        for n in range(1, 6):
            subprocess.run(["cp", "-rp", source, root / "d"], check=True)
            wait_until(lambda n=n: len(flush(root, sent)) == 3 * n, 20, f"copy {n}")  # type: ignore[misc]  # — binds n
            subprocess.run(["rm", "-r", root / "d"], check=True)
    assert len({message.task_id for message in sent.messages}) == len(sent.messages)


@pytest.mark.parametrize("far", [False, True], ids=["same file system", "another"])
def test_a_write_that_restores_the_time_replaces_the_unmoved_version(
    root: Path, state: Path, tmp_path: Path, other_device: Path, far: bool
) -> None:
    store = (other_device if far else tmp_path) / "store"
    path = root / "record.dat"
    moves = ((str(root), str(store)),)
    with running(config_for(root, state, moves=moves)) as (pipeline, sent):
        for n in range(1, 4):
            write(path, f"value {n}")
            wait_until(lambda n=n: known_seq(pipeline, path) == n, what=f"version {n}")  # type: ignore[misc]  # — binds n
        store.mkdir()
        wait_until(lambda: sent.paths == [str(store / "record.dat")], 20, "the last is sent")
        newest = sent.messages[0].task_id
        wait_until(lambda: ("b", State.SENT) in counts(pipeline.journal), what="it is noted")
        with open_reader(str(state)) as found:
            ended = {record.task_id: record.state for record in history(found, [str(path)], 9)}
    assert (store / "record.dat").read_text() == "value 3"
    assert ended.pop(newest) is State.SENT
    assert list(ended.values()) == [State.VANISHED] * 2


def known_seq(pipeline: Pipeline, path: Path) -> int:
    """Return which delivery is known as the file's."""
    known = pipeline.journal.known.lookup(str(path.parent), [path.name])
    return known[path.name].seq if known else 0


def test_modes_changed_while_nobody_watched_send_nothing(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        for n in range(20):
            (root / f"{n}.csv").write_text("x")
        assert len(flush(root, sent)) == 20
    subprocess.run(["chmod", "-R", "g+w", root], check=True)
    with running(config_for(root, state)) as (pipeline, again):
        assert flush(root, again) == []
        changed_ns = (root / "1.csv").stat().st_ctime_ns
        wait_until(
            lambda: (
                pipeline.journal.known.lookup(str(root), ["1.csv"])["1.csv"].version.changed_ns
                == changed_ns
            ),
            what="the new ctime is known",
        )
        # Known as it is now, so that only a write counts from here on.
        os.close(os.open(root / "1.csv", os.O_RDWR))
        assert flush(root, again) == []


def test_a_write_that_restores_the_time_replaces_the_unsent_version(
    root: Path, state: Path
) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    path = root / "record.dat"
    with running(config_for(root, state), publisher) as (pipeline, sent):
        write(path, "value 1")
        await_ready(pipeline, 1)
        write(path, "value 2")
        wait_until(
            lambda: pipeline.journal.known.lookup(str(root), ["record.dat"])["record.dat"].seq == 2
        )
        publisher.answer = ACCEPTED
        assert flush(root, sent) == [str(path)]


@needs_fuse
def test_a_time_before_1970_is_not_before_the_first_run(tmp_path: Path, state: Path) -> None:
    """FUSE gives any ctime; what comes while watchman is down is an arrival."""
    with FuseServer(tmp_path / "fuse") as server:
        config = config_for(server.point, state, watch={"settle": 0.05, "method": Method.INOTIFY})
        first = server.point / "first"
        with running(config) as (_, sent):
            first.write_text("x")
            wait_until(lambda: sent.paths == [str(first)], 20, "the first is sent")
        second = server.point / "second"
        second.write_text("x")
        server.claim(second, ctime_ns=-1)
        with running(config) as (_, sent):
            wait_until(lambda: sent.paths == [str(second)], 20, "the second is sent")
