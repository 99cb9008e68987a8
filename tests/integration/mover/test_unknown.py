"""What cannot be looked at has not vanished, has not changed, and is not absent."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.model import State
from watchman.mover import obstacles
from watchman.mover.names import marker_name, temporary_name

CODES = [
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
]

LESSEE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(obstacles, "LONGEST_DELAY", 0.2)


@contextmanager
def write_lease(path: Path) -> Iterator[None]:
    """Hold one in another process: whoever opens the file without waiting gets EAGAIN."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", LESSEE, str(path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield
        assert process.stdin
        process.stdin.close()


def failing(names: set[str], code: int, real: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(name: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(name, str) and name in names:
            raise OSError(code, os.strerror(code), name)
        return real(name, *rest, **more)

    return wrapped


def test_a_write_lease_of_another_process_is_waited_for(any_rig: Rig) -> None:
    seq = any_rig.put("f")
    with write_lease(any_rig.inbox / "f"):
        any_rig.mover.start()
        wait_until(lambda: any_rig.heard.paths, what="it to be noticed")
        reports = len(any_rig.heard.paths)
        wait_until(lambda: len(any_rig.heard.paths) > reports, what="another look")
        assert any_rig.state(seq) is State.MOVING
        assert os.listdir(any_rig.inbox) == ["f"]  # to read it would wait for the lease
    any_rig.wake()
    any_rig.wait(seq, State.READY, 20)
    any_rig.mover.stop(5)
    assert any_rig.files() == {"f": b"content"}


def test_a_write_lease_in_a_directory_is_waited_for(any_rig: Rig) -> None:
    any_rig.upload("t/f")
    seq = any_rig.record("t", kind="directories")
    with write_lease(any_rig.inbox / "t/f"):
        any_rig.mover.start()
        wait_until(lambda: any_rig.heard.paths, what="it to be noticed")
        assert any_rig.state(seq) is State.MOVING
    any_rig.wake()
    any_rig.wait(seq, State.READY, 20)
    any_rig.mover.stop(5)
    assert any_rig.files() == {"t/f": b"content"}


@pytest.mark.parametrize("kind", ["files", "directories"])
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_a_source_that_cannot_be_looked_at(
    own_rig: Rig, monkeypatch: pytest.MonkeyPatch, code: int, kind: str
) -> None:
    rig = own_rig
    rig.upload("x/f")
    name = "x" if kind == "directories" else "x/f"
    seq = rig.record(name, kind=kind)
    names = {os.path.basename(name)}
    monkeypatch.setattr(os, "stat", failing(names, code, os.stat))
    monkeypatch.setattr(os, "open", failing(names, code, os.open))
    with rig.running():
        wait_until(lambda: rig.status().troubles or rig.status().reason, what="the trouble")
        said = rig.status().reason or rig.status().troubles[0][1]
        assert errno.errorcode[code] in said
        retried = next(iter(rig.destination.obstacles.active.values()))
        wait_until(lambda: retried.backoff.delay >= 0.2, what="some attempts")
        assert rig.state(seq) is State.MOVING
        names.clear()
        rig.wake()
        rig.wait(seq, State.READY)
    assert rig.files() == {"x/f": b"content"}
    assert "f" not in {os.path.basename(path) for path in rig.left()}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_mark_that_cannot_be_read_makes_no_second_copy(
    far: Rig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The copy is in its place, and the mover was stopped before it removed the source."""
    far.upload("t/f")
    seq = far.record("t", kind="directories")
    row = far.row(seq)
    (far.root / "t").mkdir()
    (far.root / "t/f").write_bytes(b"content")
    times = (far.inbox / "t/f").stat()
    os.utime(far.root / "t/f", ns=(times.st_atime_ns, times.st_mtime_ns))
    mark = marker_name(row.task_id)
    (far.root / mark).write_text(f"{os.stat(far.root / 't').st_ino}\n")
    names = {mark}
    monkeypatch.setattr(os, "open", failing(names, code, os.open))
    with far.running():
        wait_until(lambda: far.status().troubles or far.status().reason, what="the trouble")
        assert far.state(seq) is State.MOVING
        names.clear()
        far.wait(seq, State.READY)
    assert far.files() == {"t/f": b"content"}
    assert list(far.inbox.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_a_source_that_was_set_aside_and_cannot_be_looked_at(
    far: Rig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    seq = far.put("f")
    aside = temporary_name(far.row(seq).task_id)
    (far.inbox / "f").rename(far.inbox / aside)
    names = {aside}
    monkeypatch.setattr(os, "stat", failing(names, code, os.stat))
    monkeypatch.setattr(os, "open", failing(names, code, os.open))
    with far.running():
        wait_until(lambda: far.status().troubles or far.status().reason, what="the trouble")
        assert far.state(seq) is State.MOVING
        names.clear()
        far.wait(seq, State.READY)
    assert far.files() == {"f": b"content"}
    assert far.left() == {}


def test_no_lease_is_left_behind(far: Rig) -> None:
    """While a source is held, whoever opens it for writing waits: it must not be for long."""
    seq = far.put("f")
    with far.running():
        far.wait(seq, State.READY)
    with (far.root / "f").open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
