"""The program behind :mod:`tests.servers.fuse`: a small file system in memory, served by FUSE.

``python -m tests.servers.fusefs MOUNTPOINT [TYPE]`` mounts it and answers the kernel from one
thread, without a library. It reads commands from its standard input, a line each, and answers each
with a line, ``ok`` or what is wrong:

- ``hold``: read requests and answer none, as a program that waits for its own server. No signal
  ends a process whose request was read.
- ``suspend``: read no requests, as a program that is stopped. A process that waits can be killed.
- ``go``: answer what was held, and everything from now on.
- ``remount``: unmount and mount again: same content, other inode numbers, another device.
- ``unmount`` and ``mount``: the two halves.
- ``claim JSON``: a path and what looks at it are told instead of the truth.
- ``held``: answer with how many requests are being held.

It ends with its standard input. Nothing is cached by the kernel: each look asks this program.
"""

from __future__ import annotations

import collections
import ctypes
import errno
import json
import os
import select
import sys

from tests.servers.fusefiles import HEADER, INIT, NO_ANSWER, FileSystem

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_MOST = (1 << 17) + 4096
"""Bytes in a request: a write of 128 kB with its headers."""


class Server:
    """Mounts a file system and answers until its standard input ends."""

    def __init__(self, point: str, kind: str) -> None:
        self._point = point
        self._kind = kind
        self._files = FileSystem()
        self._device = -1
        self._held: collections.deque[bytes] = collections.deque()
        self._holding = self._suspended = False

    def run(self) -> None:
        """Do it."""
        self.mount()
        print("ok", flush=True)
        commands = b""
        while True:
            ready = select.poll()
            ready.register(0, select.POLLIN)
            if self._device >= 0 and not self._suspended:
                ready.register(self._device, select.POLLIN)
            for descriptor, _ in ready.poll():
                if descriptor == 0:
                    chunk = os.read(0, 4096)
                    if not chunk:
                        self.unmount()
                        return
                    *lines, commands = (commands + chunk).split(b"\n")
                    for line in lines:
                        self._command(line.decode("ascii"))
                elif descriptor == self._device:  # no command has closed it meanwhile
                    self._request()

    def mount(self) -> None:
        """Mount it; inode numbers are new ones."""
        self._files.mounted += 1
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        words = [b"watchman-tests", os.fsencode(self._point), self._kind.encode()]
        if _libc.mount(*words, ctypes.c_ulong(6), options.encode()):  # NOSUID, NODEV
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self._point)
        # The kernel greets in its own time: whoever holds the answers from now on means others'.
        greeting = select.poll()
        greeting.register(self._device, select.POLLIN)
        greeting.poll()
        self._reply(os.read(self._device, _MOST))

    def unmount(self) -> None:
        """Unmount it at once; who waits for an answer gets ENOTCONN."""
        _libc.umount2(os.fsencode(self._point), ctypes.c_int(_MNT_DETACH))
        if self._device >= 0:
            os.close(self._device)
        self._device = -1
        self._held.clear()

    def _command(self, line: str) -> None:
        said = "ok"
        word, _, rest = line.partition(" ")
        if word == "claim":
            path, claims = json.loads(rest)
            self._files.claim(os.fsencode(path), claims)
        elif word in ("hold", "suspend", "go"):
            self._holding, self._suspended = word == "hold", word == "suspend"
            while self._held and word == "go":
                self._reply(self._held.popleft())
        elif word in ("mount", "unmount", "remount"):
            if word != "mount":
                self.unmount()
            if word != "unmount":
                self.mount()
        elif word == "held":
            said = str(len(self._held))
        else:
            said = f"unknown: {word}"
        print(said, flush=True)

    def _request(self) -> None:
        try:
            request = os.read(self._device, _MOST)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENODEV:  # somebody else has unmounted it
                self.unmount()
            elif error.errno not in (errno.ENOENT, errno.EINTR):  # given up meanwhile
                raise
            return
        opcode = HEADER.unpack_from(request)[1]
        # The mount's own first request is nobody who waits.
        if self._holding and opcode not in NO_ANSWER and opcode != INIT:
            self._held.append(request)
        else:
            self._reply(request)

    def _reply(self, request: bytes) -> None:
        answer = self._files.answer(request)
        if answer:
            try:
                os.write(self._device, answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # nobody waits for it any more
                    raise


if __name__ == "__main__":
    Server(sys.argv[1], (sys.argv[2:] or ["fuse.tests"])[0]).run()
