"""A program: starts daemons that fail at a named point, quickly, by fork.

``python -m tests.faults.launcher`` has everything imported, reads one JSON request a line and
answers with one line. ``{"start": [arguments], "log": path, "fault": [point, count]}`` gives the
process id, ``{"poll": pid}`` the exit status (negative: the signal) or null.

The points are around the instants after which something is true that was not before: see
``_patches``. The product knows nothing of them.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

KILL, RAISE = "kill", "raise"


class Fault:
    """Ends the process, or the thread, when a point is reached for the ``count``-th time."""

    def __init__(self, how: str, point: str, count: int) -> None:
        self.how = how
        self.point = point
        self.left = count
        self._lock = threading.Lock()

    def reached(self, point: str) -> None:
        if point != self.point:
            return
        with self._lock:
            self.left -= 1
            if self.left:
                return
            if self.how == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"the test's fault: {point}")

    def around(
        self, function: Callable[..., Any], name: str | Callable[..., str | None]
    ) -> Callable[..., Any]:
        """Return the function with points before and after it; ``name`` may depend on the call."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            point = name if isinstance(name, str) else name(*args, **kwargs)
            self.reached(f"{point} before")
            result = function(*args, **kwargs)
            self.reached(f"{point} after")
            return result

        return wrapped

    def patch(self, owner: Any, name: str, point: str | Callable[..., str | None]) -> None:
        setattr(owner, name, self.around(getattr(owner, name), point))


def _noting(_journal: Any, changes: Any, moved: Any = (), **_: Any) -> str | None:
    states = {int(state) for _, state, _ in changes} | {int(row.once_moved) for row in moved}
    return "note ready" if 2 in states else "note sent" if 3 in states else None


def install(fault: Fault) -> None:
    """Put the points into the modules of this process."""
    from watchman import brokers
    from watchman.journal import Journal
    from watchman.journal import opening as journal_opening
    from watchman.journal.known import KnownVersions
    from watchman.journal.partial import PartialTable
    from watchman.mover import syscalls
    from watchman.mover.destination import Destination
    from watchman.pipeline.files import Files
    from watchman.pipeline.partial_files import PartialFiles
    from watchman.sender import Sender
    from watchman.sources.reader import EventReader
    from watchman.verdicts.pool import Pool

    fault.patch(Journal, "record", "record")
    fault.patch(Journal, "redirect", "redirect")
    fault.patch(Journal, "note_first_run", "note first run")
    fault.patch(Journal, "note", _noting)
    fault.patch(Journal, "complete_batches", "complete batches")
    fault.patch(KnownVersions, "remember", "inside record")
    fault.patch(KnownVersions, "forget", "forget")
    fault.patch(PartialTable, "note", "note partial")
    fault.patch(PartialTable, "forget", "drop partial")
    fault.patch(Pool, "ask", "ask")
    fault.patch(PartialFiles, "step", lambda one, *_: "answers" if one._answers else None)
    fault.patch(journal_opening, "_prepare", "create journal")
    fault.patch(os, "unlink", lambda *_, dir_fd=None: None if dir_fd is None else "unlink")
    fault.patch(os, "fsync", "fsync")
    for name in ("copy_file_range", "sendfile"):  # whichever these two file systems can do
        fault.patch(os, name, "copy")
    renameat2 = syscalls._renameat2()
    if renameat2 is not None:
        renaming = fault.around(renameat2, "rename")
        setattr(syscalls, "_renameat2", lambda: renaming)  # noqa: B010 — no variable to mypy
    real = brokers.open_publisher

    def opening(*args: Any) -> Any:
        publisher = real(*args)
        fault.patch(publisher, "publish", "publish")
        return publisher

    setattr(brokers, "open_publisher", opening)  # noqa: B010 — no variable to mypy
    # For what ends a thread, not the process:
    fault.patch(Sender, "_pass", "sender")
    fault.patch(Destination, "_round", "mover")
    fault.patch(Files, "handle", "pipeline")
    fault.patch(EventReader, "_read", "reader")


def start(arguments: list[str], log: str, fault: list[Any] | None) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((null, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, number)
        from watchman.cli import main

        if fault is not None:
            install(Fault(*fault))
        status = main(arguments, standalone_mode=False) or 0
    except BaseException as error:  # noqa: BLE001 — the exit status tells it
        print(f"launcher: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def serve() -> None:
    import celery.app.amqp
    import kombu.transport.filesystem
    import kombu.transport.redis

    import watchman.cli
    import watchman.service

    loaded = (celery.app.amqp, kombu.transport, watchman.cli, watchman.service)
    assert all(loaded)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer = poll(request["poll"])
        else:
            answer = start(request["start"], request["log"], request.get("fault"))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
