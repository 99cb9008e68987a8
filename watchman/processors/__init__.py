"""What a watch may name to handle its events: classes derived from ``pyinotify.ProcessEvent``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pyinotify

from watchman import signals
from watchman.coverage import is_unfinished
from watchman.text import describe, printable

log = logging.getLogger("watchman.notify")


def check(candidate: object) -> str | None:
    """Say why something cannot process events; None if it can.

    As pyinotify's ``proc_fun`` it is a ProcessEvent, or a function that is called with each event.
    A class is made once without arguments to find out: pyinotify calls its ``my_init()``.
    """
    if isinstance(candidate, pyinotify.ProcessEvent):
        return None
    if not isinstance(candidate, type) and callable(candidate):
        return _check_function(candidate)
    if not (isinstance(candidate, type) and issubclass(candidate, pyinotify.ProcessEvent)):
        return "is neither a subclass of pyinotify.ProcessEvent nor a function of the event"
    try:
        candidate()
    except BaseException as error:  # noqa: BLE001 — making it runs the user's own code
        return f"cannot be made without arguments ({describe(error)})"
    return None


def _check_function(function: Callable[..., object]) -> str | None:
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        return f"cannot be called with an event and nothing else ({error})"
    except ValueError:
        pass  # written in C, without a signature
    return None


class CompletedFiles:
    """Stands for ``kind='files'`` in logs and ``status``: the pipeline of completed uploads."""


class AllEventsSignaler(pyinotify.ProcessEvent):
    """Sends the signal of :mod:`watchman.signals` for every event."""

    def process_default(self, event: Any) -> None:
        """Send the signal named like the event."""
        name = event.maskname.partition("|")[0].lower()
        signals.send_safely(getattr(signals, name), self, event=event)

    def process_IN_Q_OVERFLOW(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
        """Send ``in_q_overflow``; pyinotify would only print a warning."""
        self.process_default(event)


class FinishedDirectories(pyinotify.ProcessEvent):
    """Directories that are made under a finished name, or renamed to one.

    A watch ``(path, mask, 'watchman.processors.FinishedDirectories')`` is the same as
    ``{'path': path, 'mask': mask, 'kind': 'directories'}``: journal, move and task included. A
    subclass named there gets the bare events, logs the same lines and calls :meth:`finished`;
    nothing is remembered, moved or sent for it.
    """

    unfinished: tuple[str, ...] | None = None
    """fnmatch patterns for the names of directories that are still being filled; None for those
    whose extension, what follows the last dot, begins with ``tmp``."""

    def process_IN_CREATE(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
        """Judge a new directory."""
        self._judge("CREATE", event)

    def process_IN_MOVED_TO(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
        """Judge a directory that was renamed or moved in."""
        self._judge("MOVEDTO", event)

    def finished(self, path: str) -> None:
        """Called with the path of each finished directory; does nothing by itself."""

    def _judge(self, kind: str, event: Any) -> None:
        if not event.dir:
            return
        path = printable(event.pathname)
        log.info("1|%s EVENT: %s", kind, path)
        if is_unfinished(event.name, self.unfinished):
            log.info("2|NOTFINISHED: %s", path)
            return
        log.info("2|FINISHED: %s", path)
        self.finished(event.pathname)
