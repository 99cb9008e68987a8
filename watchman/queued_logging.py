"""Logging as the daemon does it: a queue before every handler, so that no output holds it up.

Only the service installs this; the other commands log directly. Records are queued from then on,
and written from :func:`start` on: helper processes are forked while there is one thread. Handlers
stay what and where they are (levels, filters, formatters, loggers); only ``handle`` of each is
another, as is that of those that are added later.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from watchman.log_queue import HandlerQueue, LogTrouble

log = logging.getLogger("watchman.service")

DRAIN_SECONDS = 2.0
"""How long handlers that are to be closed may take to write what is queued."""

_queues: dict[int, HandlerQueue] = {}
"""By the handler's id."""
_leaving: list[HandlerQueue] = []
"""Queues of handlers that a reload has removed."""
_installed = False
_started = False
_add_handler = logging.Logger.addHandler
_filter = logging.Logger.filter
_filters_said: set[str] = set()
"""Loggers of whose filters has been said that they fail."""


def install() -> None:
    """Put a queue before every handler there is or will be."""
    global _installed  # noqa: PLW0603 — logging is one for the process
    _installed = True
    logging.Logger.addHandler = _adopt_and_add  # type: ignore[assignment,method-assign]  # — below
    logging.Logger.filter = _filter_safely  # type: ignore[assignment,method-assign]  # — below
    for handler in _attached():
        _adopt(handler)
    # Whatever fails is said by the queues; logging's own way is a traceback on standard error.
    logging.raiseExceptions = False
    # What Python itself would write to standard error, from any thread.
    logging.captureWarnings(True)
    threading.excepthook = _thread_died
    sys.unraisablehook = _cannot_be_raised


def start() -> None:
    """Begin to write, in threads: no process must be forked from now on.

    Called when the forks have been made, and before anything that may take long; then there are
    none, and the daemon does their work itself.
    """
    global _started  # noqa: PLW0603 — logging is one for the process
    if _installed:
        _started = True
        for each in (*_queues.values(), *_leaving):
            each.start()


def after_fork() -> None:
    """Begin anew in a child: the threads, and what was queued for them, are its parent's."""
    global _started  # noqa: PLW0603 — logging is one for the process
    _started = False
    _leaving.clear()
    for each in _queues.values():
        each.begin_anew()


def queue_of(handler: logging.Handler) -> HandlerQueue | None:
    """Return the queue before a handler; None where it is used directly."""
    return _queues.get(id(handler))


@contextlib.contextmanager
def reconfigured() -> Iterator[None]:
    """Let the block configure logging anew; handlers it removes are drained, then closed.

    dictConfig would close the old ones itself, first of all, and wait for one that hangs.
    """
    if not _installed:
        yield
        return
    drain(DRAIN_SECONDS)
    # The list that dictConfig and the end of Python go through.
    listed: list[Any] = logging._handlerList  # type: ignore[attr-defined]  # — no public way
    before = listed[:]
    listed.clear()
    try:
        yield
    finally:
        attached = {id(handler) for handler in _attached()}
        for number in [number for number in [*_queues] if number not in attached]:
            left = _queues.pop(number)
            left.finish()
            _leaving.append(left)
        _leaving[:] = [each for each in _leaving if not each.finished(0)]
        listed[:0] = [one for one in before if id(one()) in _queues]


def drain(seconds: float) -> bool:
    """Wait until what is queued is written; False if that takes some handler longer."""
    deadline = time.monotonic() + seconds
    ends = [each.drain_mark() for each in [*_queues.values()]] if _started else []
    return all(end.wait(max(0.0, deadline - time.monotonic())) for end in ends)


def troubles() -> list[LogTrouble]:
    """Return what is wrong with handlers; each is told what is new about the others."""
    found = [trouble for each in [*_queues.values()] for trouble in each.troubles()]
    # The daemon's own files, which it rotates itself: also for what no handler has written.
    own = [getattr(stream, "trouble", None) for stream in (sys.stdout, sys.stderr)]
    return found + [trouble for trouble in own if isinstance(trouble, LogTrouble)]


def close(seconds: float = DRAIN_SECONDS) -> None:
    """Write what is queued and close the handlers; give up those that take longer."""
    start()
    deadline = time.monotonic() + seconds
    _leaving.extend(_queues.values())
    for each in _leaving:
        each.finish()
    _leaving[:] = [
        each for each in _leaving if not each.finished(max(0.0, deadline - time.monotonic()))
    ]


def hanging() -> bool:
    """Say whether a handler was given up by :func:`close`.

    Its thread may hold locks for which the end of Python would wait: those of the handler, and
    of standard output.
    """
    return any(not each.finished(0) for each in _leaving)


def last_words(text: str) -> None:
    """Write to standard error after :func:`close`; wait a second at the most, for it may hang."""
    writer = threading.Thread(target=lambda: sys.stderr.write(text), daemon=True)
    writer.start()
    writer.join(1.0)


def _attached() -> list[logging.Handler]:
    """Return every handler that a record may reach."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    found = [one for each in loggers if isinstance(each, logging.Logger) for one in each.handlers]
    return [*found, logging.lastResort] if logging.lastResort else found


def _adopt(handler: logging.Handler) -> None:
    if id(handler) not in _queues and not isinstance(handler, logging.NullHandler):
        _queues[id(handler)] = HandlerQueue(handler)
        if _started:
            _queues[id(handler)].start()


def _adopt_and_add(logger: logging.Logger, handler: logging.Handler) -> None:
    _adopt(handler)
    _add_handler(logger, handler)


def _filter_safely(logger: logging.Logger, record: logging.LogRecord) -> Any:
    """Ask a logger's filters; one that fails lets the record pass, and ends no thread."""
    try:
        return _filter(logger, record)
    except BaseException as error:  # noqa: BLE001 — a filter of the user's may raise anything
        if logger.name not in _filters_said:
            _filters_said.add(logger.name)
            log.error("A filter of the logger %s fails: %r; correct it", logger.name, error)
        return True


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if died.exc_type is not SystemExit and died.exc_value is not None:
        name = died.thread.name if died.thread else "?"
        cause = (died.exc_type, died.exc_value, died.exc_traceback)
        log.error("The thread %s died", name, exc_info=cause)


def _cannot_be_raised(what: sys.UnraisableHookArgs) -> None:
    if what.exc_value is not None:
        cause = (what.exc_type, what.exc_value, what.exc_traceback)
        log.error("%s", what.err_msg or "An exception that nobody can catch", exc_info=cause)
