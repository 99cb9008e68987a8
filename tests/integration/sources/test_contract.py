"""One contract for every source of hints: events from the kernel, and polling."""

from __future__ import annotations

import ftplib
import io
import os
import random
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sources.uploads import (
    LONG,
    age,
    arrive,
    arrive_at_least,
    await_count,
    program,
)
from tests.running import Remembering, config_for, running, troubles
from tests.servers.proftpd import ProFTPD
from tests.waiting import wait_until
from watchman.file_access import PATH_MAX, Seen, look
from watchman.model import Config, Method
from watchman.pipeline import schedule

POLL = {"method": Method.POLL, "interval": 0.1, "settle": 0.3}


@pytest.fixture(params=["inotify", "poll"])
def method(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The part of a watch that chooses its source."""
    return POLL if request.param == "poll" else {"method": Method.INOTIFY}


@pytest.fixture
def config(root: Path, state: Path, method: dict[str, Any]) -> Callable[..., Config]:
    def make(**watch: Any) -> Config:
        return config_for(root, state, watch={**method, **watch})

    return make


Make = Callable[..., Config]


def test_what_is_made_moved_and_linked(config: Make, root: Path, tmp_path: Path) -> None:
    with running(config()) as (_, sent):
        paths = [root / "made", root / "a" / "b" / "made"]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        (tmp_path / "tree" / "sub").mkdir(parents=True)
        (tmp_path / "tree" / "sub" / "file").write_text("x")
        os.link(tmp_path / "tree" / "sub" / "file", root / "linked")
        (tmp_path / "tree").rename(root / "tree")
        (root / "empty").touch()
        arrive(sent, [*paths, root / "linked", root / "tree" / "sub" / "file", root / "empty"])


def test_what_is_rewritten_arrives_again(config: Make, root: Path) -> None:
    with running(config()) as (_, sent):
        for size in range(1, 4):
            (root / "file").write_text("x" * size)
            await_count(sent, size)
        assert [message.size for message in sent.messages] == [1, 2, 3]


def test_a_file_that_is_open_for_writing_waits(config: Make, root: Path) -> None:
    with running(config()) as (_, sent):
        with (root / "slow").open("w") as slow:
            slow.write("half")
            slow.flush()
            (root / "marker").write_text("x")
            arrive(sent, [root / "marker"])
        arrive(sent, [root / "marker", root / "slow"])


def test_a_restart_sends_what_came_meanwhile_and_nothing_else(config: Make, root: Path) -> None:
    old = root / "sub" / "old"
    old.parent.mkdir()
    old.write_text("x")
    age(old)
    with running(config()) as (_, sent):
        (root / "live").write_text("x")
        arrive(sent, [root / "live"])
    (root / "meanwhile").write_text("x")
    (root / "sub" / "gone").write_text("x")
    (root / "sub" / "gone").unlink()
    with running(config()) as (_, sent):
        arrive(sent, [root / "meanwhile"])
    with running(config(), resumed=True) as (_, sent):
        (root / "last").write_text("x")
        arrive(sent, [root / "last"])


def test_files_that_come_while_it_starts(config: Make, root: Path) -> None:
    """Before the first start, during it, and after it: each exactly once."""
    for n in range(50):
        (root / f"old{n}").mkdir()
        (root / f"old{n}" / "file").write_text("x")
    age(root / "old49" / "file")
    go_on = threading.Event()
    written: list[Path] = []

    def write() -> None:
        number = 0
        while not go_on.wait(0.0005):
            path = root / f"old{number % 50}" / f"new{number}"
            path.write_text("x")
            written.append(path)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(written) > 20)
    with running(config()) as (pipeline, sent):
        during = len(written)
        wait_until(lambda: len(written) > during + 20)
        go_on.set()
        writer.join()
        # What was there before the first start is noted only.
        started = pipeline.parts.local.scanner._first_runs._started_ns
        expected = [path for path in written if path.stat().st_ctime_ns >= started]
        assert len(expected) > 20
        arrive(sent, expected)


# Completeness


def test_slow_segmented_and_resumed_uploads(config: Make, root: Path) -> None:
    """Up to four writers on one file, with pauses: never sent before the last one has closed."""
    count = 10_000 if LONG else 300
    random.seed(3)
    sizes: dict[str, int] = {}
    closed_at: dict[str, int] = {}
    lock = threading.Lock()
    plan = [(root / f"{n % 10}" / f"f{n}", random.randint(1, 4)) for n in range(count)]
    for n in range(10):
        (root / f"{n}").mkdir()

    class Checking(Remembering):
        def publish(self, batch: Any) -> Any:
            with lock:
                for message in batch:
                    assert message.path in closed_at, f"too early: {message.path}"
                    assert message.size == sizes[message.path], message
            return super().publish(batch)

    def upload(part: list[tuple[Path, int]]) -> None:
        pause = threading.Event()
        for path, writers in part:
            descriptors = [os.open(path, os.O_WRONLY | os.O_CREAT) for _ in range(writers)]
            for number, descriptor in enumerate(descriptors):
                os.pwrite(descriptor, b"x" * 100, 100 * number)
                pause.wait(random.random() * 0.004)
            for descriptor in descriptors[1:]:
                os.close(descriptor)
                pause.wait(random.random() * 0.004)
            with lock:
                sizes[str(path)] = 100 * writers
                # Noted just before: from the close on it may be sent.
                closed_at[str(path)] = writers
                os.close(descriptors[0])

    with running(config(), Checking()) as (_, sent):
        threads = [threading.Thread(target=upload, args=(plan[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrive(sent, [path for path, _ in plan], timeout=60)


def test_uploads_by_many_connections_with_settle(ftp_directory: Path, state: Path) -> None:
    """APPE and REST close and open again: with ``settle``, one task after the last of them."""
    with ProFTPD(ftp_directory) as server:
        config = config_for(server.root, state, watch={"settle": 2.0})
        with running(config) as (_, sent):

            def upload(name: str, *, rest: bool) -> None:
                with server.ftp() as ftp:
                    ftp.storbinary(f"STOR {name}", io.BytesIO(b"a" * 1000))
                for part in range(1, 4):
                    # A new connection each time, as a client does after it was cut off.
                    with server.ftp() as ftp:
                        content = io.BytesIO(b"a" * 1000)
                        if rest:
                            ftp.storbinary(f"STOR {name}", content, rest=1000 * part)
                        else:
                            ftp.storbinary(f"APPE {name}", content)

            names = [f"{kind}{n}" for kind in ("rest", "appe") for n in range(4)]
            threads = [
                threading.Thread(target=upload, args=(name,), kwargs={"rest": name[0] == "r"})
                for name in names
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            arrive(sent, [server.root / name for name in names])
            assert {message.size for message in sent.messages} == {4000}


def test_a_cut_connection_leaves_a_file_that_a_resumed_upload_completes(
    ftp_directory: Path, state: Path
) -> None:
    with ProFTPD(ftp_directory) as server:
        config = config_for(server.root, state, watch={"settle": 0.7})
        with running(config) as (_, sent):
            ftp = server.ftp()
            data = ftp.transfercmd("STOR cut")
            data.sendall(b"a" * 5000)
            wait_until(lambda: (server.root / "cut").stat().st_size == 5000, what="half is there")
            # Reset, not closed: the end of the file is not the end of the upload.
            data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with server.ftp() as again:
                again.voidcmd("TYPE I")  # ready, so that it begins within the settle time
                data.close()
                ftp.close()
                again.storbinary("STOR cut", io.BytesIO(b"a" * 5000), rest=5000)
                with pytest.raises(ftplib.Error):
                    again.retrbinary("RETR nothing", lambda _: None)
            arrive(sent, [server.root / "cut"])
            assert sent.messages[0].size == 10_000


# Names


def every_name() -> Iterator[bytes]:
    """Every byte that a name can have, alone and among others, and the longest names."""
    for byte in range(1, 256):
        if byte not in b"./":
            yield bytes([byte])
        if byte != ord("/"):
            yield b"a" + bytes([byte]) + b"z"
    yield b"x" * 255
    yield "ü".encode() * 127
    yield b"\xff" * 255
    yield b"new\nline\r\n\x1b[31m"
    yield b" lead and trail "
    yield b"*?[!a]{},;|&$`'\"\\~#%"
    yield b"-rf"


def test_names(config: Make, root: Path) -> None:
    names = sorted(set(every_name()))
    assert len(names) > 500
    with running(config()) as (_, sent):
        base = os.fsencode(root)
        for name in names:
            for path in (os.path.join(base, name), os.path.join(base, b"dir" + name[:250], name)):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(name)
        expected = [os.path.join(base, name) for name in names]
        expected += [os.path.join(base, b"dir" + name[:250], name) for name in names]
        arrive(sent, map(os.fsdecode, expected), timeout=40)
        # The worker opens it by the path that it was given.
        for message in sent.messages:
            assert Path(message.path).read_bytes() == os.fsencode(os.path.basename(message.path))


def test_a_hundred_levels(config: Make, root: Path) -> None:
    path = root
    for n in range(100):
        path /= f"level{n}"
    path.mkdir(parents=True)
    with running(config()) as (_, sent):
        (path / "file").write_text("x")
        arrive(sent, [path / "file"])
        path = root
        for n in range(100):
            path /= f"other{n}"
        path.mkdir(parents=True)
        (path / "file").write_text("x")
        arrive_at_least(sent, [path / "file"])


def test_paths_that_no_program_can_open(
    config: Make, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are said once, and never announced; the longest that can be opened is."""
    depth = (PATH_MAX - len(str(root)) - 2) // 201
    directory = os.open(root, os.O_RDONLY)
    path = root
    for n in range(depth + 2):
        os.mkdir("d" * 200, dir_fd=directory)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
        path = path / ("d" * 200) if n < depth else path
    left = PATH_MAX - len(str(path)) - 1
    with running(config()) as (pipeline, sent):
        os.close(os.open("deep", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
        longest = path / ("x" * min(left, 255))
        longest.write_text("x")
        assert longest.exists()
        arrive(sent, [longest])
        assert len(troubles(pipeline)) == 1
        if left < 255:
            deepest = os.open(path, os.O_RDONLY)
            os.close(os.open("y" * (left + 1), os.O_WRONLY | os.O_CREAT, dir_fd=deepest))
            os.close(deepest)
        pipeline.rescan()
        (root / "last").write_text("x")
        arrive(sent, [longest, root / "last"])
    os.close(directory)
    said = [record for record in caplog.records if "Not watching" in record.getMessage()]
    assert len(said) == 1
    assert "4095" in said[0].getMessage()


def test_what_is_no_file_is_no_arrival(config: Make, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("x")
    with running(config()) as (pipeline, sent):
        (root / "inside").mkdir()
        (root / "link").symlink_to(secret / "file")
        (root / "dir").symlink_to(secret)
        (root / "inward").symlink_to(root / "inside")
        (root / "loop").symlink_to(root)
        (root / "self").symlink_to("self")
        (root / "inside" / "up").symlink_to("..")
        os.mkfifo(root / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(root / "s"))
            if os.geteuid() == 0:
                os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
                os.mknod(root / "disk", 0o666 | stat.S_IFBLK, os.makedev(7, 200))
            (root / "inside" / "file").write_text("x")
            arrive(sent, [root / "inside" / "file"])
            (secret / "other").write_text("x")
            pipeline.rescan()
            (root / "last").write_text("x")
            arrive(sent, [root / "inside" / "file", root / "last"])
            assert pipeline.parts.local.source.roots[0].directories == 2


def test_a_writer_that_waits_for_a_reader_is_left_alone(root: Path, state: Path) -> None:
    """Opening a FIFO for reading would let its writer go on, and then break its pipe."""
    with running(config_for(root, state)) as (pipeline, sent):
        os.mkfifo(root / "fifo")
        text = "import os, sys; print(1, flush=True); os.write(os.open(sys.argv[1], 1), b'data')"
        argv = program(text, root / "fifo")
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"1\n"
            state_of = Path(f"/proc/{writer.pid}/stat")
            wait_until(lambda: ") S " in state_of.read_text(), what="it waits for a reader")
            (root / "fifo").chmod(0o666)
            (root / "fifo").rename(root / "other")
            os.link(root / "other", root / "third")
            pipeline.rescan()
            (root / "file").write_text("x")
            arrive(sent, [root / "file"])
            assert writer.poll() is None
            assert (root / "other").read_text() == "data"
            assert writer.wait(10) == 0


def test_a_look_does_not_open_what_is_no_file(root: Path) -> None:
    """Where the look's own open can be seen: a FIFO whose writer does not block."""
    os.mkfifo(root / "fifo")
    directory = os.open(root, os.O_PATH)
    try:
        assert look("fifo", directory).seen is Seen.OTHER
        assert look("fifo", directory, closed=True).seen is Seen.OTHER
        (root / "link").symlink_to("/dev/null")
        assert look("link", directory).seen is Seen.OTHER
        assert look("link", directory, closed=True).seen is Seen.OTHER
        assert look("nothing", directory).seen is Seen.GONE
    finally:
        os.close(directory)


def test_a_directory_that_is_swapped_for_a_symlink(
    config: Make, root: Path, tmp_path: Path
) -> None:
    """Between the event and the look, and back: nothing outside is announced."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for n in range(200):
        (outside / f"f{n}").write_text("secret, and larger than what is inside")
    inside, away = root / "in", root / "away"
    inside.mkdir()
    with running(config()) as (_, sent):
        for n in range(200):
            (inside / f"f{n}").write_text("x")
            inside.rename(away)
            inside.symlink_to(outside)
            inside.unlink()
            away.rename(inside)
        arrive_at_least(sent, [inside / f"f{n}" for n in range(200)])
        inside.rename(away)
        inside.symlink_to(outside)
        (outside / "late").write_text("secret")
        (root / "last").write_text("x")
        arrive_at_least(sent, [root / "last"])
        assert {message.size for message in sent.messages} == {1}
        assert str(inside / "late") not in sent.paths


def test_polling_goes_on_while_it_scans_rarely(root: Path, state: Path) -> None:
    """The pace of a polled watch is its interval, not the check's."""
    with running(config_for(root, state, watch=POLL)) as (pipeline, sent):
        assert pipeline.parts.local._schedule.pace == POLL["interval"]
        assert pipeline.parts.local._schedule.pace < schedule.CHECK
        assert pipeline.parts.local.source.directories == 0
        (root / "file").write_text("x")
        arrive(sent, [root / "file"])


def test_a_remote_share_inside_a_local_tree_is_polled(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mounted below counts too: others' writes there give no event."""
    from watchman import mounts

    share = root / "a" / "share"
    share.mkdir(parents=True)
    monkeypatch.setattr(mounts, "mounts", lambda *_: {str(share): mounts.Mount(99, "nfs4", 99)})
    watch = {"interval": 0.1, "settle": 0.2}
    with running(config_for(root, state, watch=watch)) as (pipeline, sent):
        node = pipeline.parts.loops[0].watcher.source.find(str(share))
        assert node is not None
        assert node.root.is_polled(f"{share}/file")
        assert not node.root.is_polled(f"{root}/a/file")
        # As if somebody else had written it: without an event.
        pipeline.parts.loops[0].watcher.source._watch_table.detach(node)
        (share / "file").write_text("x")
        arrive(sent, [share / "file"])
