"""The pipeline as a whole, on a real file system, with a publisher that only remembers."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.journals import counts
from tests.running import Remembering, config_for, running, troubles
from tests.waiting import wait_until
from watchman.file_access import Look, Seen, look
from watchman.journal import known
from watchman.model import ACCEPTED, Answer, Existing, Outcome, Route, State, Version
from watchman.pipeline import CLOCK_GRAIN_NS, NAMESPACE, Pipeline, files, task_id, watch_scan
from watchman.pipeline.watcher import Watcher
from watchman.sources.source import Hints


def arrive(sent: Remembering, *paths: Path | str) -> None:
    """Wait until each path was sent, then check that none was sent twice."""
    expected = sorted(map(str, paths))
    wait_until(lambda: len(sent.messages) >= len(expected), 10, f"{len(expected)} tasks")
    assert sorted(sent.paths) == expected


def await_count(sent: Remembering, count: int) -> None:
    """Wait until exactly so many tasks were sent."""
    wait_until(lambda: len(sent.messages) >= count, what=f"{count} tasks")
    assert len(sent.messages) == count


def await_ready(pipeline: Pipeline, count: int) -> None:
    """Wait until so many deliveries are recorded and unsent."""
    wait_until(lambda: counts(pipeline.journal).get(("b", State.READY), (0, 0))[0] == count)


def await_vanished(pipeline: Pipeline) -> None:
    """Wait until one delivery is noted as vanished."""
    wait_until(lambda: counts(pipeline.journal).get(("b", State.VANISHED), (0, 0))[0] == 1)


def recorded(pipeline: Pipeline) -> int:
    """Return how many deliveries are in the journal."""
    return sum(count for count, _ in counts(pipeline.journal).values())


def test_a_closed_file_is_sent_once(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        (root / "a.csv").write_text("1")
        arrive(sent, root / "a.csv")
        version = pipeline.journal.known.lookup(str(root), ["a.csv"])
        assert sent.messages[0].size == 1
        assert version["a.csv"].seq == 1


def test_the_log_tells_the_way(root: Path, state: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    with running(config_for(root, state)) as (_, sent):
        (root / "data\n.csv").touch()
        arrive(sent, root / "data\n.csv")
    lines = [record.message for record in caplog.records if record.name == "watchman.notify"]
    assert f"Notified of {root}/data\\x0a.csv" in lines
    assert lines.index(f"Notified of {root}/data\\x0a.csv") < lines.index("Sending task task")


def test_an_empty_file_that_was_touched_is_sent(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        subprocess.run(["touch", root / "empty"], check=True)
        arrive(sent, root / "empty")


def test_directories_made_just_before(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = [root / f"a{n}/b/c/d/file" for n in range(300)]
        for path in paths:
            path.parent.mkdir(parents=True)
            path.write_text("x")
        arrive(sent, *paths)


def test_proftpd_dst_directories(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(300):
            (root / f".dstXX{n}").mkdir()
            (root / f".dstXX{n}").rename(root / f"dir{n}")
            path = root / f"dir{n}" / "file"
            path.write_text("x")
            paths.append(path)
        arrive(sent, *paths)


def test_hidden_stores_are_never_sent_under_their_hidden_name(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(200):
            hidden = root / f".in.f{n}."
            hidden.write_text("x")
            paths.append(hidden.rename(root / f"f{n}"))
        arrive(sent, *paths)


def test_a_renamed_subtree_is_watched_under_its_new_name(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        before = root / "t0"
        (before / "x" / "y").mkdir(parents=True)
        paths = []
        for n in range(100):
            after = root / f"t{n + 1}"
            before.rename(after)
            path = after / "x" / "y" / f"f{n}"
            path.write_text("x")
            paths.append(str(path))
            # It leaves again before the next rename, so that each path is announced once.
            await_count(sent, n + 1)
            path.unlink()
            before = after
        assert sent.paths == paths


def test_a_tree_moved_in_from_outside(root: Path, state: Path, tmp_path: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = []
        for n in range(200):
            tree = tmp_path / f"out{n}"
            (tree / "p" / "q").mkdir(parents=True)
            for name in ("one", "p/two", "p/q/three"):
                (tree / name).write_text("x")
                paths.append(root / f"in{n}" / name)
            tree.rename(root / f"in{n}")
        arrive(sent, *paths)


def test_a_file_is_not_sent_while_it_is_open_for_writing(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        with (root / "slow").open("w") as slow:
            slow.write("half")
            slow.flush()
            with (root / "slow").open("a") as other:
                other.write("more")
            # A file closed later has been handled: the slow one was looked at before it.
            (root / "marker").write_text("x")
            arrive(sent, root / "marker")
            assert len(pipeline.parts.local.files.incomplete) == 1
            slow.write("rest")
        arrive(sent, root / "marker", root / "slow")


def test_a_file_settles_while_another_is_written_all_the_time(root: Path, state: Path) -> None:
    """There is always an event that is still unread then, which might tell more of it."""
    over = threading.Event()

    def write() -> None:
        with (root / "growing").open("wb", buffering=0) as stream:
            while not over.wait(0.0005):
                stream.write(b"x")

    writer = threading.Thread(target=write)
    with running(config_for(root, state, watch={"settle": 0.2})) as (_, sent):
        writer.start()
        try:
            (root / "a.csv").write_text("x")
            arrive(sent, root / "a.csv")
        finally:
            over.set()
            writer.join()


def test_hard_links_and_unnamed_files_arrive(root: Path, state: Path, tmp_path: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        (tmp_path / "outside").write_text("x")
        os.link(tmp_path / "outside", root / "linked")
        descriptor = os.open(root, os.O_TMPFILE | os.O_WRONLY)
        os.write(descriptor, b"x")
        # With a directory descriptor Python calls linkat(2), which can follow the link in /proc.
        proc = os.open("/proc/self/fd", os.O_PATH)
        os.link(str(descriptor), root / "unnamed", src_dir_fd=proc, follow_symlinks=True)
        os.close(proc)
        os.close(descriptor)
        arrive(sent, root / "linked", root / "unnamed")


def test_changed_times_and_modes_send_nothing(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        (root / "a").write_text("x")
        arrive(sent, root / "a")
        os.utime(root / "a", (1, 1))
        (root / "a").chmod(0o600)
        (root / "b").write_text("x")
        arrive(sent, root / "a", root / "b")
    # The new time is known: a restart does not announce the file again.
    with running(config_for(root, state)) as (_, sent):
        (root / "c").write_text("x")
        arrive(sent, root / "c")


def test_a_rewritten_file_is_a_new_arrival(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        for count in (1, 2, 3):
            (root / "a").write_text("x" * count)
            await_count(sent, count)
        assert len({message.task_id for message in sent.messages}) == 3


@pytest.mark.parametrize("has_lease", [True, False])
def test_what_came_while_down_is_touched_before_the_scan_comes_to_it(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, has_lease: bool
) -> None:
    def without_lease(name: str, directory: int, *, closed: bool = False) -> Look:
        seen = look(name, directory, closed=closed)
        return seen._replace(seen=Seen.UNTESTED) if seen.seen is Seen.COMPLETE else seen

    def touched_first(scanner: watch_scan.Scanner) -> None:
        if not touched.is_set():
            touched.set()
            late.chmod(0o600)
            hints = scanner._source.wait(10.0)
            assert [name for _, name in hints] == [late.name]
            scanner._files.handle(hints)
        drain(scanner)

    if not has_lease:
        monkeypatch.setattr(files, "look", without_lease)
    config = config_for(root, state, watch={"settle": 0.1})
    with running(config):
        pass
    late, touched, drain = root / "late.csv", threading.Event(), watch_scan.Scanner._drain
    late.write_text("x")
    monkeypatch.setattr(watch_scan.Scanner, "_drain", touched_first)
    with running(config) as (_, sent):
        arrive(sent, late)
    assert touched.is_set()


def test_what_changes_with_its_mode_in_the_same_moment_is_an_arrival(
    root: Path, state: Path
) -> None:
    """The attribute change of fchmod before close must not hide the write before it."""
    with running(config_for(root, state)) as (_, sent):
        (root / "a").write_text("0")
        arrive(sent, root / "a")
        for n in range(1, 200):
            with (root / "a").open("w") as file:
                file.write("x" * n)
                file.flush()
                os.fchmod(file.fileno(), 0o600 + n % 8)
            await_count(sent, n + 1)


@pytest.mark.parametrize("whole", [2, 1000])
@pytest.mark.parametrize("left", [0, 2])
def test_what_went_while_nobody_watched_is_forgotten_in_parts(
    root: Path, state: Path, whole: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_scan, "FORGOTTEN", 3)
    monkeypatch.setattr(known, "WHOLE", whole)
    paths = [root / f"{number:02d}" for number in range(20)]
    with running(config_for(root, state)) as (_, sent):
        for path in paths:
            path.write_text("x")
        arrive(sent, *paths)
    for path in paths[left:]:
        path.unlink()
    parts: list[int] = []
    forget = known.KnownVersions.forget

    def counting(self: known.KnownVersions, gone: Iterable[str]) -> None:
        names = list(gone)
        parts.append(len(names))
        forget(self, names)

    monkeypatch.setattr(known.KnownVersions, "forget", counting)
    with running(config_for(root, state)) as (pipeline, sent):
        assert set(pipeline.journal.known.versions(map(str, paths))) == set(map(str, paths[:left]))
        assert sent.messages == []
    assert parts == [3] * ((20 - left) // 3) + [(20 - left) % 3] * bool((20 - left) % 3)


def test_names_of_all_kinds(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        names = [
            b"plain",
            b" lead and trail ",
            b"new\nline",
            b"\xff\xfe not utf-8",
            b"\x01\x7f\x1b[31m",
            "ünïcødé".encode(),
            b"x" * 255,
            b"*?[!a]",
            b"-rf",
            b"'\"\\",
        ]
        for name in names:
            with open(os.path.join(os.fsencode(root), name), "wb") as file:
                file.write(b"x")
        arrive(sent, *(os.path.join(str(root), os.fsdecode(name)) for name in names))


def test_symlinks_fifos_and_sockets_are_no_arrivals(
    root: Path, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("x")
    with running(config_for(root, state)) as (_, sent):
        (root / "link").symlink_to(tmp_path / "secret" / "file")
        (root / "dir").symlink_to(tmp_path / "secret")
        (root / "loop").symlink_to(root)
        os.mkfifo(root / "fifo")
        (root / "real").write_text("x")
        arrive(sent, root / "real")
        (tmp_path / "secret" / "other").write_text("x")
        (root / "last").write_text("x")
        arrive(sent, root / "real", root / "last")


def test_what_was_there_before_the_first_run_is_noted_only(root: Path, state: Path) -> None:
    (root / "old").write_text("x")
    age(root / "old")
    with running(config_for(root, state)) as (_, sent):
        (root / "new").write_text("x")
        arrive(sent, root / "new")
    (root / "while down").write_text("x")
    with running(config_for(root, state)) as (_, sent):
        arrive(sent, root / "while down")


def age(*paths: Path) -> None:
    """Wait until files count as older than a run that starts now, by their change time."""
    newest = max(path.stat().st_ctime_ns for path in paths)
    wait_until(lambda: _coarse_now() - newest > 2 * CLOCK_GRAIN_NS, what="the files age")


def _coarse_now() -> int:
    import time

    return time.time_ns()


@pytest.mark.parametrize(
    ("existing", "first", "second"), [(Existing.ALL, 2, 1), (Existing.NONE, 0, 0)]
)
def test_existing(root: Path, state: Path, existing: Existing, first: int, second: int) -> None:
    olds = [root / "old1", root / "old2"]
    for path in olds:
        path.write_text("x")
    age(*olds)
    config = config_for(root, state, watch={"existing": existing})
    with running(config) as (_, sent):
        (root / "live").write_text("x")
        arrive(sent, *olds[:first], root / "live")
    (root / "while down").write_text("x")
    age(root / "while down")
    with running(config) as (_, sent):
        (root / "live again").write_text("x")
        arrive(sent, *[root / "while down"][:second], root / "live again")


def test_a_backlog_is_sent_oldest_first(root: Path, state: Path) -> None:
    with running(config_for(root, state)):
        pass
    paths = [root / f"{n % 7}" / f"f{n}" for n in range(100)]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    with running(config_for(root, state)) as (_, sent):
        arrive(sent, *paths)
        assert sent.paths == [str(path) for path in paths]


def test_an_overflow_is_caught_up(root: Path, state: Path) -> None:
    """With the kernel's queue full, files are found by a scan."""
    with running(config_for(root, state)) as (pipeline, sent):
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        if limit > 100_000:
            pytest.skip("filling so long a queue takes too long")
        # Nothing is read meanwhile: as if the machine had stalled.
        with pipeline.parts.local.source._reader._reading:
            script = (
                "import os, sys\n"
                "for n in range(int(sys.argv[2])):\n"
                "    open(f'{sys.argv[1]}/f{n}', 'w').close()\n"
            )
            count = limit // 2 + 1000
            subprocess.run([sys.executable, "-c", script, str(root), str(count)], check=True)
        wait_until(lambda: len(sent.messages) >= count, 60, "all files after an overflow")
        assert pipeline.parts.local.source.overflows >= 1
        assert len(set(sent.paths)) == len(sent.paths) == count


@pytest.mark.usefixtures("often")
def test_a_root_that_is_made_again_is_watched_again(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        root.rename(root.with_name("away"))
        wait_until(lambda: str(root) in troubles(pipeline), what="the loss is known")
        root.mkdir()
        (root / "early").write_text("x")
        wait_until(lambda: not troubles(pipeline), what="it is watched again")
        (root / "late").write_text("x")
        arrive(sent, root / "early", root / "late")


def test_a_dead_broker_holds_up_nothing_and_is_drained_in_order(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    with running(config_for(root, state), publisher) as (pipeline, sent):
        paths = []
        for n in range(1200):
            path = root / f"f{n}"
            path.write_text("x")
            paths.append(str(path))
        wait_until(lambda: recorded(pipeline) == 1200, what="all are recorded")
        wait_until(
            lambda: pipeline.parts.senders["b"].trouble == "down", what="the trouble is known"
        )
        order = [row.source for row in pipeline.journal.page_ready("b", 0, 2000)]
        publisher.answer = ACCEPTED
        wait_until(lambda: len(sent.messages) == 1200, 20, "the backlog is sent")
        assert sent.paths == order
        assert sorted(order) == sorted(paths)


def test_a_file_that_is_gone_when_its_turn_comes_vanished(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    with running(config_for(root, state), publisher) as (pipeline, sent):
        (root / "gone").write_text("x")
        (root / "stays").write_text("x")
        await_ready(pipeline, 2)
        (root / "gone").unlink()
        wait_until(
            lambda: pipeline.parts.senders["b"]._backoff.delay > 1,
            20,
            "the files are not fresh any more",
        )
        publisher.answer = ACCEPTED
        arrive(sent, root / "stays")
        await_vanished(pipeline)


def test_a_newer_version_replaces_an_unsent_older_one(root: Path, state: Path) -> None:
    publisher = Remembering()
    publisher.answer = Outcome(Answer.AGAIN, "down")
    with running(config_for(root, state), publisher) as (pipeline, sent):
        (root / "a").write_text("1")
        await_ready(pipeline, 1)
        (root / "a").write_text("22")
        wait_until(lambda: recorded(pipeline) == 2)
        wait_until(
            lambda: pipeline.parts.senders["b"]._backoff.delay > 1,
            20,
            "the file is not fresh any more",
        )
        publisher.answer = ACCEPTED
        wait_until(lambda: sent.messages, what="the newer one")
        assert [message.size for message in sent.messages] == [2]
        await_vanished(pipeline)


def test_no_pattern_no_task(root: Path, state: Path) -> None:
    config = config_for(root, state, patterns=((f"{root}/*.csv", Route("b", "task")),))
    with running(config) as (pipeline, sent):
        (root / "other.txt").write_text("x")
        (root / "a.csv").write_text("x")
        arrive(sent, root / "a.csv")
        both = {"other.txt", "a.csv"}
        wait_until(lambda: set(pipeline.journal.known.lookup(str(root), [*both])) == both)


def test_many_writers_at_once(root: Path, state: Path) -> None:
    with running(config_for(root, state)) as (_, sent):
        paths = [root / f"w{w}" / f"{n}" for w in range(4) for n in range(500)]

        def write(part: list[Path]) -> None:
            for path in part:
                path.parent.mkdir(exist_ok=True)
                path.write_text("x")

        threads = [threading.Thread(target=write, args=(paths[w::4],)) for w in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrive(sent, *paths)


def test_task_id_is_a_uuid5() -> None:
    version = Version(1, 2, 3, 4, 5)
    text = task_id("/up/a.csv", version)
    assert uuid.UUID(text).version == 5
    namespace = uuid.UUID(bytes=NAMESPACE)
    name = b"/up/a.csv" + struct.pack(">6q", 1, 2, 3, 4, 5, 0)
    digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
    assert text == str(uuid.UUID(bytes=digest[:16], version=5))
    assert task_id("/up/a.csv", version._replace(size=4)) != text


def test_the_status_counts_directories_while_they_are_scanned(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (root / f"d{number}/e").mkdir(parents=True)
    monkeypatch.setattr("watchman.pipeline.watch_scan.SCAN_TIME", 0.0)  # one at a time
    monkeypatch.setattr("watchman.sources.prescan.PrescanProcess.start", lambda *_: None)
    seen: set[int] = set()
    turn = Watcher.turn

    def spy(self: Watcher[Hints], at_most: float) -> None:
        turn(self, at_most)
        seen.add(self.source.covers(self.source.roots[0].watch))

    monkeypatch.setattr(Watcher, "turn", spy)
    with running(config_for(root, state)) as (pipeline, _):
        assert pipeline.parts.covers(pipeline.config.watches[0]) == 61
    assert len(seen) > 10
