"""A FUSE file system of the tests' own, whose answers can be held back."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_MNT_DETACH = 2


def is_possible() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


needs_fuse = pytest.mark.skipif(not is_possible(), reason="mounting needs root and /dev/fuse")


class FuseServer:
    """Mounts a file system in memory at ``point``, which is made if it is missing.

    A context manager. What is in it survives :meth:`remount`, which gives everything other inode
    numbers, and :meth:`unmount` and :meth:`mount`; it ends with the server. ``kind`` is the type
    that /proc/self/mountinfo shows. While it gives no answers, look at nothing below ``point``.
    """

    def __init__(self, point: Path, kind: str = "fuse.tests") -> None:
        self.point = point
        self._kind = kind
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> FuseServer:
        self.point.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "tests.servers.fusefs", str(self.point), self._kind]
        self._process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect_ok()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        # Only where the server did not do it: it died.
        ctypes.CDLL(None).umount2(os.fsencode(self.point), _MNT_DETACH)
        process.stdout.close()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def hold(self) -> None:
        """Take requests and answer none, as sshfs does whose host is asleep.

        No signal ends a process that waits for such an answer, not even SIGKILL.
        """
        self._tell("hold")

    def suspend(self) -> None:
        """Take no requests, as a program that is stopped. Who waits can be killed."""
        self._tell("suspend")

    def go(self) -> None:
        """Answer what was held, and everything from now on."""
        self._tell("go")

    def held(self) -> int:
        """Return how many requests wait for their answer while it holds."""
        return int(self._say("held"))

    def wait_for_somebody(self, timeout: float = 20.0) -> None:
        """Wait until somebody waits for an answer."""
        wait_until(self.held, timeout, f"somebody asks {self.point}")

    def unmount(self) -> None:
        """Unmount at once; who waits for an answer gets an error."""
        self._tell("unmount")

    def mount(self) -> None:
        """Mount again, with other inode numbers."""
        self._tell("mount")

    def remount(self) -> None:
        """Unmount and mount again: the same content, other inode numbers, another device."""
        self._tell("remount")

    def claim(self, path: Path | str, **values: int) -> None:
        """Have looks at ``path`` told other values than the true ones.

        ``inode``, ``size`` (bytes), ``mtime_ns``, ``ctime_ns`` and ``birth_ns`` of 64 bits; no
        event tells of it. ``flush`` is the error (errno) that each close(2) of it is told, and
        ``look`` that of each look at it, while its directory still lists it; ``list`` that of
        each listing of a directory. ``type`` is its type in a listing (DT_UNKNOWN is 0).
        """
        below = os.path.relpath(path, self.point)
        self._tell(f"claim {json.dumps([below, values])}")

    def _tell(self, command: str) -> None:
        said = self._say(command)
        assert said == "ok", said

    def _say(self, command: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _expect_ok(self) -> None:
        said = self._answer()
        assert said == "ok", f"the FUSE server did not start: {said!r}"

    def _answer(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")
