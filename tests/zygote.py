"""Commands of ``notify`` as processes forked from one that has loaded all of it already.

A command is run some thousand times by the tests, and nearly all of its time is that of importing.
Here it has a process, arguments, environment, directory and descriptors of its own, as ever; what
importing does is left to those tests that start an interpreter (``bin/notify``, the README's and
docs' commands, ``start`` and ``run``).
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.checkout import ROOT
from watchman.commands.groups import every

COMMANDS = {
    *("check", "config", "discard", "failed", "health", "history", "hold", "match", "metrics"),
    *("release", "reload", "resend", "retry", "scan", "status", "stop", "where"),
}
"""What can be run this way: what ends by itself and starts nothing that stays."""
_AT_THE_START = ("LANG", "LC_", "PYTHON", "TZ", "LD_", "COVERAGE")
"""How names of variables begin that an interpreter reads when it starts."""
_MODULES = (
    *("watchman.checks", "watchman.daemon", "watchman.itself", "watchman.status"),
    *("watchman.journal.answers", "watchman.journal.failed_deliveries"),
    *("watchman.journal.resending", "watchman.commands.dry_run"),
    *("watchman.commands.status_screen", "watchman.commands.timeline"),
    *("watchman.brokers.app", "watchman.brokers.capture", "watchman.metrics", "celery.app.amqp"),
    *("celery.app.events", "celery.loaders.app", "kombu.transport.filesystem"),
    *("kombu.transport.pyamqp", "kombu.transport.redis"),
)


def can_run(arguments: Sequence[str], environment: dict[str, str]) -> bool:
    """Say whether a command can be run this way with these variables."""
    names = os.environ.keys() | environment.keys()
    return (
        bool(arguments)
        and arguments[0] in COMMANDS
        and all(
            os.environ.get(name) == environment.get(name)
            for name in names - {"PYTHONPATH"}
            if name.startswith(_AT_THE_START)
        )
    )


def run(
    arguments: Sequence[str], cwd: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``notify`` with these arguments. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = _Zygote.get().run(
            {"arguments": list(arguments), "cwd": str(cwd), "environment": environment},
            (output.fileno(), errors.fileno()),
            timeout,
        )
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(arguments, status, *texts)


class _Zygote:
    """The process that is forked; it ends when this one does."""

    @staticmethod
    @functools.cache
    def get() -> _Zygote:
        return _Zygote()

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="zygote-")
        self._address = os.path.join(self._directory.name, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            # Its end of the pipe is closed when this process ends, however that comes.
            reading, self._writing = os.pipe()
            os.set_inheritable(reading, True)
            os.set_inheritable(listener.fileno(), True)
            numbers = f"{listener.fileno()}, {reading}"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests import zygote; zygote._serve({numbers})"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), reading),
            )
            os.close(reading)
        atexit.register(self._end)

    def _end(self) -> None:
        os.close(self._writing)
        self._process.wait()
        self._directory.cleanup()

    def run(self, request: dict[str, Any], outputs: tuple[int, int], timeout: float) -> int:
        """Return the exit status of one command, as subprocess has it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self._address)
            data = json.dumps(request).encode()
            fds = array.array("i", outputs)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())]
            connection.sendmsg([len(data).to_bytes(4, "big")], rights)
            connection.sendall(data)
            pid = int.from_bytes(_received(connection, 4), "big")
            try:
                return int.from_bytes(_received(connection, 4), "big", signed=True)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(request["arguments"], timeout) from None


def _received(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        assert part, "the process that is forked has ended"
        data += part
    return data


def _serve(listening: int, alive: int) -> None:
    """Fork a process for each request; return in that process only, when it has been run."""
    from watchman.cli import main

    every(main)
    for module in _MODULES:
        __import__(module)
    listener = socket.socket(fileno=listening)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(alive, selectors.EVENT_READ)
    ended, tell = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(tell, False)
    selector.register(ended, selectors.EVENT_READ)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fd == alive:
                os._exit(0)
            elif key.fd == ended:
                with contextlib.suppress(BlockingIOError):
                    os.read(ended, 4096)
                _tell_ended(running)
            else:
                connection, _ = listener.accept()
                request, outputs = _request(connection)
                pid = os.fork()
                if not pid:
                    selector.close()
                    for one in (listener, connection, *running.values()):
                        one.close()
                    _become(request, outputs, (alive, ended, tell))
                    return
                for descriptor in outputs:
                    os.close(descriptor)
                connection.sendall(pid.to_bytes(4, "big"))
                running[pid] = connection


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    length, ancillary, *_ = connection.recvmsg(4, socket.CMSG_SPACE(8))
    outputs = array.array("i")
    for _, _, data in ancillary:
        outputs.frombytes(data)
    request: dict[str, Any] = json.loads(_received(connection, int.from_bytes(length, "big")))
    return request, list(outputs)


def _tell_ended(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with running.pop(pid) as connection, contextlib.suppress(OSError):
                code = os.waitstatus_to_exitcode(status)
                connection.sendall(code.to_bytes(4, "big", signed=True))


def _become(request: dict[str, Any], outputs: list[int], left: tuple[int, ...]) -> None:
    """Be ``python -m watchman`` with the arguments that were sent; as it, end by SystemExit."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for descriptor in left:
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    tempfile.tempdir = None
    sys.path[0] = request["cwd"]
    sys.argv = ["notify", *request["arguments"]]
    from watchman.__main__ import main

    main()
