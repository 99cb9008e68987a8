"""Leaving the terminal, and telling whoever typed ``start`` how it went.

Done here rather than with python-daemon, which closes every descriptor up to the limit one by one
(minutes in a container whose limit is 2³⁰) and does not detach where it takes its parent, process
1 of a container, for an init.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TextIO

from watchman import limits, queued_logging
from watchman.daemon import places
from watchman.daemon.places import DaemonFile
from watchman.daemon.rotation import Limits, RotatedStream, reopen


class Report:
    """The daemon's end of the pipe to the process that started it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def tell(self, **message: Any) -> None:
        """Send one message; whoever started us may have gone."""
        if self._descriptor >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor, json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Let the other side go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def detach(daemon: Callable[[Report], int], hear: Callable[[Mapping[str, Any]], None]) -> None:
    """Run ``daemon`` in a process without a terminal; return when it has closed its report.

    ``hear`` gets each message of the report. The daemon's process ends with the status that
    ``daemon`` returns.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        _become_daemon(daemon, sending)
    os.close(sending)
    os.waitpid(child, 0)
    with open(receiving, encoding="utf-8") as report:
        for line in report:
            hear(json.loads(line))


def _become_daemon(daemon: Callable[[Report], int], sending: int) -> NoReturn:
    """Never return into the code of the process that was forked: its ends are not ours."""
    status = 1
    report = Report(sending)
    try:
        os.setsid()
        # A session's leader could still get a terminal by opening one; its child cannot.
        if os.fork():
            os._exit(0)
        _clean_up(keep=sending)
        status = daemon(report)
    except SystemExit:
        status = 0
    except BaseException as error:  # noqa: BLE001 — the last place where it can be shown
        words = limits.explain(error)
        if words is None:
            sys.excepthook(*sys.exc_info())
        else:
            report.tell(error=words)
    finally:
        if not queued_logging.hanging():
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
        os._exit(status)


def _clean_up(keep: int) -> None:
    """Drop what was inherited: signal settings, standard input, open descriptors."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Until the service has its own handlers: SIGTERM unwinds, the others can wait.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != keep:
                with contextlib.suppress(OSError):
                    os.close(int(name))


class Output:
    """Standard output and error, in files that can be opened again after a rotation."""

    def __init__(self, out: DaemonFile, err: DaemonFile, limits: Limits) -> None:
        self._places = ((1, out), (2, err))
        self.limits = limits
        self.paths: dict[int, str] = {}
        self.notes: list[str] = []
        """What has to be said about the files."""
        self.unopened: list[str] = []
        """What :meth:`reopen` could not open, and why: to be logged by whoever may do so."""

    def open(self) -> None:
        """Send all further output to the files. Raises WatchmanError if that cannot be."""
        opened: list[tuple[int, str]] = []
        for number, place in self._places:
            descriptor, note = place.use(places.open_output)
            opened.append((descriptor, note))
            self.paths[number] = place.substitute if note else place.path
        self.notes = [note for _, note in opened if note]
        for (number, _), (descriptor, _) in zip(self._places, opened, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
        faulthandler.enable()
        sys.stdout, sys.stderr = self._rotated(1, sys.stdout), self._rotated(2, sys.stderr)

    def _rotated(self, number: int, stream: TextIO) -> Any:
        return RotatedStream(stream, self.paths[number], self.limits)

    def reopen(self) -> None:
        """Open the files again by their names; the old ones are kept where that cannot be done.

        May be called from a signal handler: it neither logs nor waits.
        """
        for number, place in self._places:
            try:
                reopen(self.paths[number], number)
            except OSError as error:
                self.unopened.append(
                    f"{place.setting}: {self.paths[number]} cannot be opened: {error.strerror}; "
                    "the old file is written on; correct it, then 'notify reload'"
                )
