"""What goes wrong around a watched directory: said once, healed without a restart, caught up."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkout import ROOT, require_open_checkout
from tests.integration.sources.uploads import age, arrive, arrive_at_least, await_count, program
from tests.mounted import bound
from tests.running import Remembering, config_for, running, troubles
from tests.servers import require
from tests.servers.fuse import FuseServer, needs_fuse
from tests.waiting import wait_until
from watchman.file_access import Seen, look
from watchman.mover.lease import Lease
from watchman.pipeline import Pipeline, schedule

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and give files away")
NOBODY = 65534


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after roots and retry what failed more often than users need it."""
    monkeypatch.setattr(schedule, "CHECK", 0.1)
    monkeypatch.setattr(schedule, "RETRY_UNWATCHED", 0.2)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "watchman.notify")
    return caplog


def count(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


def mount(path: Path) -> None:
    subprocess.run([require("mount"), "-t", "tmpfs", "none", str(path)], check=True)


def umount(path: Path) -> None:
    """Unmount it as soon as nobody uses it: a look at a file in it may be going on."""
    argv = [require("umount"), str(path)]
    wait_until(lambda: subprocess.run(argv, check=False).returncode == 0, what="unmounting")


# Roots


def test_a_root_that_is_not_there_yet(
    root: Path, state: Path, logged: pytest.LogCaptureFixture
) -> None:
    root.rmdir()
    with running(config_for(root, state)) as (pipeline, sent):
        assert list(troubles(pipeline)) == [str(root)]
        wait_until(lambda: pipeline.parts.local._next_check > 0)
        root.mkdir()
        (root / "early").write_text("x")
        wait_until(lambda: not troubles(pipeline), what="it is watched")
        (root / "late").write_text("x")
        arrive(sent, [root / "early", root / "late"])
    assert count(logged, f"Not watching {root}: No such file") == 1
    assert count(logged, f"Watching {root} again") == 1


def test_the_first_run_of_a_root_that_comes_late(root: Path, state: Path, tmp_path: Path) -> None:
    """What was there before watchman ran is noted only, also where it is mounted later."""
    (root / "old").write_text("x")
    age(root / "old")
    away = root.rename(tmp_path / "away")
    with running(config_for(root, state)) as (pipeline, sent):
        (away / "new").write_text("x")
        away.rename(root)
        arrive(sent, [root / "new"])
        wait_until(lambda: pipeline.journal.known.lookup(str(root), ["old"]), what="old is known")
    assert sent.paths == [str(root / "new")]


def test_a_root_that_is_deleted_and_made_again(
    root: Path, state: Path, logged: pytest.LogCaptureFixture
) -> None:
    with running(config_for(root, state)) as (pipeline, sent):
        paths = []
        for n in range(10):
            (root / "sub").mkdir()
            path = root / "sub" / f"{n}"
            path.write_text("x")
            paths.append(path)
            arrive(sent, paths)
            path.unlink()
            (root / "sub").rmdir()
            root.rmdir()
            if n % 2:
                wait_until(lambda: troubles(pipeline), what="the loss is known")
            root.mkdir()
        wait_until(lambda: not troubles(pipeline), what="it is watched again")
        (root / "last").write_text("x")
        arrive(sent, [*paths, root / "last"])
    assert count(logged, "Not watching") == count(logged, "again")


def test_a_directory_that_is_bound_to_another_path_is_watched_once(
    root: Path, state: Path, logged: pytest.LogCaptureFixture
) -> None:
    place, config = root.with_name("bound"), config_for(root, state)
    place.mkdir()
    (root / "sub").mkdir()
    watch = replace(config.watches[0], path=str(place))
    same = f"Not watching {place}: it is watched as {root}, which is the same directory; remove one"
    patterns = (("*", config.patterns[0][1]),)
    config = replace(config, watches=(*config.watches, watch), patterns=patterns)
    with running(config) as (pipeline, sent):
        with bound(root, place):
            wait_until(lambda: troubles(pipeline), what="it is said")
            paths = [root / "a", root / "sub" / "b"]
            for path in paths:
                path.write_text("x")
            arrive(sent, paths)
            checked: list[None] = []
            roots = pipeline.parts._watchers[0].source._roots
            check = roots.check
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(roots, "check", lambda: checked.append(check()))
                wait_until(lambda: len(checked) > 3, what="it is looked at again")
        again = f"Watching {place} again"
        wait_until(lambda: count(logged, again), what="it is another one again")
        (place / "c").write_text("x")
        arrive(sent, [*paths, place / "c"])
    assert count(logged, same) == 1


@as_root
def test_a_root_that_is_mounted_over_and_unmounted(root: Path, state: Path) -> None:
    """Nothing that was announced is announced again when the mount is gone or back."""
    (root / "sub").mkdir()
    with running(config_for(root, state)) as (pipeline, sent):
        below = [root / "below", root / "sub" / "below"]
        for path in below:
            path.write_text("x")
        arrive(sent, below)
        mount(root)
        try:
            (root / "sub").mkdir()
            above = [root / "above", root / "sub" / "above"]
            for path in above:
                path.write_text("x")
            arrive(sent, below + above)
        finally:
            umount(root)
        (root / "sub" / "last").write_text("x")
        arrive(sent, [*below, *above, root / "sub" / "last"])
        assert not troubles(pipeline)


@as_root
def test_a_subdirectory_that_is_mounted_over(root: Path, state: Path) -> None:
    inner = root / "a" / "share"
    (inner / "sub").mkdir(parents=True)
    with running(config_for(root, state)) as (_, sent):
        paths = [inner / "below", inner / "sub" / "below"]
        for path in paths:
            path.write_text("x")
        arrive(sent, paths)
        mount(inner)
        try:
            paths.append(inner / "above")
            paths[-1].write_text("x")
            arrive(sent, paths)
            (inner / "new").mkdir()
            paths.append(inner / "new" / "above")
            paths[-1].write_text("x")
            arrive(sent, paths)
        finally:
            umount(inner)
        paths.append(inner / "sub" / "last")
        paths[-1].write_text("x")
        arrive(sent, paths)


@as_root
def test_a_share_that_is_not_mounted_at_a_restart(root: Path, state: Path) -> None:
    """An empty mount point does not mean that everything was deleted."""
    mount(root)
    try:
        with running(config_for(root, state)) as (_, sent):
            for n in range(10):
                (root / f"{n}").write_text("x")
            arrive(sent, [root / f"{n}" for n in range(10)])
        kept = root.with_name("kept")
        kept.mkdir()
        subprocess.run(["mount", "--bind", str(root), str(kept)], check=True)
    finally:
        umount(root)
    try:
        with running(config_for(root, state)) as (_, sent):
            (root / "local").write_text("x")
            arrive(sent, [root / "local"])
        subprocess.run(["mount", "--bind", str(kept), str(root)], check=True)
        try:
            with running(config_for(root, state)) as (_, sent):
                (root / "late").write_text("x")
                arrive(sent, [root / "late"])
        finally:
            umount(root)
    finally:
        umount(kept)


# Limits and permissions, in processes of their own


def in_namespace(state: Path, text: str, *arguments: str | Path, user: int = 0) -> str:
    """Run a program that uses a pipeline, in a user namespace or as another user."""
    prefix = [require("unshare"), "-Ur"]
    if user:
        require_open_checkout()
        ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        prefix = [require("setpriv"), *ids]
    state.mkdir(exist_ok=True)
    state.chmod(0o777)
    done = subprocess.run(
        [*prefix, *program(text, state, *arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


PREAMBLE = """\
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
from tests.running import config_for, running, troubles
from tests.integration.sources.uploads import arrive
from tests.waiting import wait_until
from watchman.pipeline import schedule
schedule.CHECK, schedule.RETRY_UNWATCHED = 0.1, 0.2
state, root = Path(sys.argv[1]), Path(sys.argv[2])
"""

LIMIT = """\
limit = Path("/proc/sys/user/max_inotify_watches")
limit.write_text("20")
with running(config_for(root, state / "journal")) as (pipeline, sent):
    assert pipeline.parts.local.source.directories <= 20, pipeline.parts.local.source.directories
    assert list(troubles(pipeline)) == ["inotify watches"], troubles(pipeline)
    paths = [root / f"d{n}" / "file" for n in range(50)]
    for path in paths:
        path.write_text("x")
    arrive(sent, paths)
    (root / "d1" / "new").mkdir()
    paths.append(root / "d1" / "new" / "file")
    paths[-1].write_text("x")
    arrive(sent, paths)
    limit.write_text("1000")
    wait_until(lambda: not troubles(pipeline), what="it has healed")
    assert pipeline.parts.local.source.directories == 52, pipeline.parts.local.source.directories
    paths.append(root / "d49" / "late")
    paths[-1].write_text("x")
    arrive(sent, paths)
"""


def may_unshare() -> bool:
    require("unshare")
    done = subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True)
    return done.returncode == 0


def test_the_limit_of_watches(root: Path, state: Path) -> None:
    """What can be watched is, the rest is scanned; it heals when the limit is raised."""
    if not may_unshare():
        pytest.skip("this kernel lets nobody make a user namespace")
    for n in range(50):
        (root / f"d{n}").mkdir()
    output = in_namespace(state, PREAMBLE + LIMIT, root)
    assert output.count("Not watching") == 1, output
    assert output.count("the limit of 20 watches is reached") == 1, output
    assert output.count("sysctl user.max_inotify_watches=") == 1, output
    assert output.count("inotify watches are enough again") == 1, output


UNREADABLE = """\
closed, searchless = root / "closed", root / "searchless"
with running(config_for(root, state / "journal")) as (pipeline, sent):
    assert set(troubles(pipeline)) == {str(closed), str(searchless)}, troubles(pipeline)
    paths = [root / "open"]
    paths[0].write_text("x")
    arrive(sent, paths)
    for directory in (closed, searchless):
        directory.chmod(0o755)
    wait_until(lambda: not troubles(pipeline), what="they have healed")
    paths += [closed / "before", searchless / "before"]
    arrive(sent, paths)
    paths.append(closed / "after")
    paths[-1].write_text("x")
    arrive(sent, paths)
    # What is known stays known while nobody may look at it.
    closed.chmod(0)
    wait_until(lambda: list(troubles(pipeline)) == [str(closed)], what="it is said")
    closed.chmod(0o755)
    wait_until(lambda: not troubles(pipeline), what="it has healed")
    paths.append(closed / "last")
    paths[-1].write_text("x")
    arrive(sent, paths)
    closed.chmod(0)
    wait_until(lambda: troubles(pipeline), what="it is said")
    closed.rename(closed.with_name("elsewhere"))
    wait_until(lambda: str(closed) not in troubles(pipeline), what="it has left")
    closed.with_name("elsewhere").chmod(0o755)
"""


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that every user can reach."""
    from tests.servers.proftpd import public_directory, remove

    directory = public_directory()
    directory.chmod(0o777)
    yield directory
    remove(directory)


@as_root
def test_directories_that_may_not_be_read(public: Path) -> None:
    """WatchTable as soon as their permissions allow it, without a restart."""
    root = public / "up"
    for name, mode in (("closed", 0), ("searchless", 0o444)):
        directory = root / name
        directory.mkdir(parents=True)
        (directory / "before").write_text("x")
        for path in (directory / "before", directory, root):
            os.chown(path, NOBODY, NOBODY)
        directory.chmod(mode)
    output = in_namespace(public / "state", PREAMBLE + UNREADABLE, root, user=NOBODY)
    assert output.count(f"Not watching {root}/closed: Permission denied") == 3, output
    assert output.count(f"Not watching {root}/searchless: Permission denied") == 1, output
    assert output.count(f"Watching {root}/closed again") == 2, output
    assert output.count(f"Watching {root}/searchless again") == 1, output


NO_LEASE = """\
with running(config_for(root, state / "journal", watch={"settle": 0.5})) as (pipeline, sent):
    os.kill(int(sys.argv[3]), 10)  # SIGUSR1: watching
    paths = [root / "one", root / "sub" / "two"]
    arrive(sent, paths)
"""
WRITER = """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(os.getpid(), flush=True)
signal.sigwait({signal.SIGUSR1})
for path in sys.argv[1:]:
    with open(path, "w") as file:
        file.write("x")
        os.fchmod(file.fileno(), 0o644)
"""


@as_root
def test_where_no_lease_can_be_had_the_settle_rule_decides(public: Path) -> None:
    """A lease is for the file's owner, or CAP_LEASE; said once for the watch."""
    require_open_checkout()
    root = public / "up"
    (root / "sub").mkdir(parents=True)
    argv = program(WRITER, root / "one", root / "sub" / "two")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        pid = writer.stdout.readline().strip()
        # Signals go to processes of the same user only: a root process stands between the two.
        relay = subprocess.Popen(program(RELAY, pid), stdout=subprocess.PIPE, text=True)
        assert relay.stdout is not None
        address = relay.stdout.readline().strip()
        try:
            text = PREAMBLE + NO_LEASE.replace("os.kill(int(sys.argv[3]), 10)", KNOCK)
            output = in_namespace(public / "state", text, root, address, user=NOBODY)
        finally:
            relay.wait(20)
            relay.stdout.close()
        assert writer.wait(20) == 0
    assert output.count("a lease needs their owner") == 1, output
    assert output.count("for 0.5 s") == 1, output


KNOCK = "import socket; socket.create_connection(('127.0.0.1', int(sys.argv[3])))"
RELAY = """\
import os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    server.settimeout(40)
    server.accept()[0].close()
os.kill(int(sys.argv[1]), 10)
"""


def test_a_look_that_fails_for_the_moment_is_no_answer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor left, or somebody's write lease: look again, and do not take it as settled."""
    (root / "file").write_text("x")
    directory = os.open(root, os.O_PATH)
    try:
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):

            def fail(*_: object, code: int = number, **__: object) -> int:
                raise OSError(code, os.strerror(code))

            with monkeypatch.context() as patch:
                patch.setattr(os, "open", fail)
                assert look("file", directory).seen is Seen.BUSY
        assert look("file", directory).seen is Seen.COMPLETE
    finally:
        os.close(directory)


@needs_fuse
@pytest.mark.parametrize("number", [errno.EIO, errno.ECONNABORTED, errno.ENOTCONN, errno.ESTALE])
def test_an_error_of_close_ends_nothing(tmp_path: Path, number: int) -> None:
    """As a share answers that goes away between the look and its end."""
    with FuseServer(tmp_path / "share") as server:
        (server.point / "file").write_text("x")
        server.claim(server.point / "file", flush=number)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            (server.point / "file").read_text()
        directory = os.open(server.point, os.O_PATH)
        try:
            found = look("file", directory)
            assert found.version is not None
            with Lease("file", directory) as hold:
                assert hold.look().version == found.version
        finally:
            os.close(directory)


def test_a_directory_whose_reading_fails_half_way(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not listed is not taken for deleted."""
    with running(config_for(root, state)) as (pipeline, sent):
        for n in range(5):
            (root / f"{n}").write_text("x")
        arrive(sent, [root / f"{n}" for n in range(5)])

        class Failing:
            def __init__(self, descriptor: int) -> None:
                """Nothing is read."""

            def __enter__(self) -> Failing:
                return self

            def __exit__(self, *_: object) -> None:
                """Nothing to close."""

            def __iter__(self) -> Iterator[os.DirEntry[str]]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", Failing)
            pipeline.rescan()
            wait_until(lambda: troubles(pipeline), what="the failure is said")
        wait_until(lambda: not troubles(pipeline), what="it has healed")
        (root / "last").write_text("x")
        arrive(sent, [root / f"{n}" for n in (0, 1, 2, 3, 4, "last")])


# Overflows


def stalled(pipeline: Pipeline, *argv: str) -> None:
    """Run a program while nobody reads the kernel's queue: as if the machine had stalled."""
    with pipeline.parts.local.source._reader._reading:
        subprocess.run(argv, check=True, timeout=60)


FILL = """\
import os, sys
root, limit = sys.argv[1], int(sys.argv[2])
for n in range(limit // 2 + 10):  # a directory made and given other times: two events
    os.mkdir(f"{root}/full{n}")
    os.rmdir(f"{root}/full{n}")
os.rename(f"{root}/moved", f"{root}/elsewhere")
os.mkdir(f"{root}/moved")
for n in range(50):
    os.makedirs(f"{root}/new{n}/a/b")
    open(f"{root}/new{n}/a/b/file", "w").close()
for name in ("moved", "elsewhere"):
    open(f"{root}/{name}/file", "w").close()
with open(f"{root}/rewritten", "r+") as file:
    file.write("y")
"""


def queue_limit() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def test_an_overflow_while_directories_are_made(root: Path, state: Path) -> None:
    """Directories whose events were lost are watched, under the names that they have now."""
    (root / "moved").mkdir()
    (root / "rewritten").write_text("x")
    age(root / "rewritten")
    with running(config_for(root, state)) as (pipeline, sent):
        stalled(pipeline, *program(FILL, root, str(queue_limit())))
        paths = [root / f"new{n}" / "a" / "b" / "file" for n in range(50)]
        paths += [root / name / "file" for name in ("moved", "elsewhere")]
        arrive(sent, [*paths, root / "rewritten"], timeout=30)
        assert pipeline.parts.local.source.overflows >= 1
        wait_until(lambda: not pipeline.parts.local.scanner.pending, what="the scan is over")
        late = [path.with_name("late") for path in paths]
        for path in late:
            path.write_text("x")
        arrive(sent, [*paths, root / "rewritten", *late])


TOUCH_AFTER = """\
import os, sys
root, limit = sys.argv[1], int(sys.argv[2])
for n in range(limit // 2 + 10):
    os.mkdir(f"{root}/full{n}")
    os.rmdir(f"{root}/full{n}")
with open(f"{root}/file", "r+") as file:
    file.write("y")
"""


def test_a_touch_after_a_lost_write_does_not_hide_it(root: Path, state: Path) -> None:
    """The close event is lost in an overflow, the attribute event is not: still an arrival."""
    with running(config_for(root, state)) as (pipeline, sent):
        (root / "file").write_text("x")
        arrive(sent, [root / "file"])
        stalled(pipeline, *program(TOUCH_AFTER, root, str(queue_limit())))
        os.utime(root / "file", (1, 1))
        wait_until(lambda: len(sent.messages) >= 2, what="the lost write")
        wait_until(lambda: pipeline.parts.local.source.certain, what="the scan is over")
    assert set(sent.paths) == {str(root / "file")}


def test_times_that_are_set_after_closing_double_nothing(root: Path, state: Path) -> None:
    """As rsync, tar and cp -p do: create, write, close, utime, one right after the other."""
    text = (
        "import os, sys\n"
        "for n in range(2000):\n"
        "    path = f'{sys.argv[1]}/f{n}'\n"
        "    with open(path, 'w') as file: file.write('x')\n"
        "    os.utime(path, (n, n))\n"
    )
    with running(config_for(root, state)) as (_, sent):
        subprocess.run([sys.executable, "-c", text, str(root)], check=True, timeout=60)
        arrive_at_least(sent, [root / f"f{n}" for n in range(2000)])
        (root / "last").write_text("x")
        arrive_at_least(sent, [root / "last"])
        assert len(sent.messages) == 2001


def test_a_publisher_in_these_tests_can_see_a_double(root: Path, state: Path) -> None:
    """The tests above would fail if something were sent twice."""
    publisher = Remembering()
    with running(config_for(root, state), publisher) as (_, sent):
        for number, text in enumerate(("x", "yy"), 1):
            (root / "file").write_text(text)
            await_count(sent, number)
    with pytest.raises(AssertionError, match="too many"):
        arrive(sent, [root / "file"])
