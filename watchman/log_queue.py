"""The queue between one logging handler and its output: whoever logs never waits.

A pipe that nobody reads, a terminal stopped with ^S, a syslog that hangs: they hold up the thread
that writes for this handler, and nobody else. While the queue is full, lines are left out and
counted. What goes wrong is told to the other handlers at once, to this one when it takes lines
again, and to ``notify status`` as long as it lasts.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from watchman.clock import Begun
from watchman.text import describe, printable

log = logging.getLogger("watchman.service")

MOST_LINES = 100_000
"""Lines that wait for a handler at the most: some seconds of the fastest burst."""
MOST_BYTES = 64_000_000
"""What the waiting lines may take in memory, roughly: uploaders choose how long paths are."""
PAUSE = 0.01
"""Seconds that the thread rests when it has written all: to wake it for each line of a stream of
uploads, just when that line's file is about to be recorded or its task to be sent, would hold both
up for the interpreter's lock."""
STALLED = 5.0
"""Seconds that one write may take before it is said to hang."""
QUIET = 10.0
"""Seconds without a failure after which a handler is said to work again: where some lines fail
and others do not, each would be reported otherwise."""

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of arguments that look the same whenever they are formatted."""
_OVERHEAD = 1500
"""Bytes that a record takes besides its text."""

_subject = threading.local()
"""``queue``: the queue that this thread is telling the others about."""


class LogTrouble(NamedTuple):
    """A handler that does not take its lines."""

    subject: str
    message: str
    since_ns: int


class _Item(NamedTuple):
    content: logging.LogRecord | str | threading.Event
    """A record; lines that are formatted already; or whom to tell that the queue got so far."""
    lines: int
    size: int


class HandlerQueue:
    """Takes a handler's place (``handler.handle``) and writes for it in a thread of its own.

    The handler's filters run in the thread that logs, because they may look at it; as in
    logging.handlers.QueueHandler. Where ``handle`` is the handler's own, it is called as a whole
    by the thread that writes.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self.handler = handler
        self.name = f"log handler {printable(str(handler.name or type(handler).__name__))}"
        self._filters_here = type(handler).handle is logging.Handler.handle
        # What MemoryHandler and its like pass their records on to.
        target = getattr(handler, "target", None)
        self._parts = [handler]
        if isinstance(target, logging.Handler) and "handle" not in vars(target):
            self._parts.append(target)
        self.begin_anew()
        handler.handle = self.handle  # type: ignore[method-assign]  # — Logger calls this
        for part in self._parts:
            self._report_errors_of(part)

    def begin_anew(self) -> None:
        """Set up an empty queue, and a thread that :meth:`start` starts."""
        # Its put() is reentrant, and so is the lock: a signal handler, a finaliser or a warning
        # that logs in the middle of either waits for nobody.
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._lines = 0
        self._size = 0
        self._left_out = 0
        self._gap_begun: Begun | None = None
        self._closed = False
        self._is_waited_for = threading.Event()
        """Set when somebody waits for the end of what is queued: the thread does not rest then."""
        self._busy_since: tuple[float, int] | None = None
        """When the item in hand was begun: monotonic seconds, and ns since the epoch."""
        self._stall_said = False
        self._error: BaseException | None = None
        """What the item in hand failed with."""
        self._missed = 0
        self._reason = ""
        self._failing = Begun()
        """Since when it fails, where there is a reason."""
        self._last_failure = 0.0
        self._last_success = 0.0
        self._thread = threading.Thread(target=self._write, name=self.name, daemon=True)

    # For whoever logs

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue a record, in place of ``Handler.handle``; never waits, and never raises."""
        if getattr(_subject, "queue", None) is self:
            return False
        try:
            if self._filters_here:
                passed: Any = self.handler.filter(record)  # since Python 3.12 perhaps a record
                if not passed:
                    return False
                record = passed if isinstance(passed, logging.LogRecord) else record
            own, size = _own(record)
        except BaseException as error:  # noqa: BLE001 — a filter or an argument of the user's
            self._failed(error, 1)
            return False
        self._put(own, 1, size)
        return True

    def put_lines(self, text: str, lines: int) -> None:
        """Queue lines for a stream's handler, formatted and with their ends; never waits."""
        self._put(text, lines, len(text))

    def _put(self, content: logging.LogRecord | str, lines: int, size: int) -> None:
        with self._lock:
            if self._closed:
                return
            full = self._lines > 0 and (
                self._lines + lines > MOST_LINES or self._size + size > MOST_BYTES
            )
            first = full and not self._left_out
            # A gap is closed by whoever writes, so that its count stands where the lines would.
            if full or self._left_out:
                self._gap_begun = self._gap_begun or Begun()
                self._left_out += lines
            else:
                self._lines += lines
                self._size += size
                self._items.put(_Item(content, lines, size))
        if first:
            self._stall_said = True
            self._tell_others(
                logging.ERROR, "The %s takes no lines; they are left out there until it does"
            )

    # For whoever runs it

    def start(self) -> None:
        """Begin to write. To be called when no process will be forked any more."""
        if self._thread.ident is None:
            self._thread.start()

    def drain_mark(self) -> threading.Event:
        """Return what is set when everything that is queued now is written."""
        written = threading.Event()
        self._items.put(_Item(written, 0, 0))
        self._is_waited_for.set()
        return written

    def finish(self) -> None:
        """Take no more lines; what is queued is written, then the handler is closed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._items.put(None)
                self._is_waited_for.set()

    def finished(self, timeout: float) -> bool:
        """Wait for the end after :meth:`finish`; False if it takes longer."""
        if self._thread.ident is None:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def troubles(self) -> list[LogTrouble]:
        """Return what is wrong at the moment; what has not been said yet is told to the others."""
        found = []
        with self._lock:
            busy, waiting = self._busy_since, self._lines
            left_out, gap = self._left_out, self._gap_begun
        stalled = busy is not None and time.monotonic() - busy[0] > STALLED
        if (stalled or left_out) and not self._closed:
            if not self._stall_said:
                self._stall_said = True
                self._tell_others(logging.ERROR, "The %s takes no lines; they wait in memory")
            message = (
                f"takes no lines: {waiting} wait, {left_out} were left out; see who reads its "
                "output (a stopped terminal, a dead log shipper), or reload with another LOGGING"
            )
            since_ns = busy[1] if busy else gap.ns if gap else 0
            found.append(LogTrouble(self.name, message, since_ns))
        self._see_recovery()
        if self._reason:
            message = (
                f"fails: {self._reason}; {self._missed} lines are missing there; see to its file "
                "or server, or reload with another LOGGING"
            )
            found.append(LogTrouble(self.name, message, self._failing.ns))
        return found

    # In the thread that writes

    def _write(self) -> None:
        while (item := self._items.get()) is not None:
            if isinstance(item.content, threading.Event):
                item.content.set()
                continue
            started = time.monotonic()
            self._busy_since = started, time.time_ns()
            written = self._try_to_write(item.content)
            error, self._error = self._error, None
            if error is not None:
                self._failed(error, item.lines)
            elif written:
                self._last_success = time.monotonic()
                self._see_recovery()
            with self._lock:
                self._busy_since = None
                self._lines -= item.lines
                self._size -= item.size
            self._see_flowing(time.monotonic() - started)
            if self._items.empty() and not self._closed:
                self._is_waited_for.wait(PAUSE)
                self._is_waited_for.clear()
        if self._left_out:
            self._try_to_write(self._gap()[0])
        for part in self._parts:
            with contextlib.suppress(Exception):  # there is nobody left who could be told
                if getattr(part, "flushOnClose", True):  # as logging.shutdown does
                    part.flush()
                part.close()

    def _try_to_write(self, content: logging.LogRecord | str) -> bool:
        """Write an item; say whether it was, as far as can be told.

        It was not where a filter rejected it, or where ``_error`` is set.
        """
        handler = self.handler
        try:
            if isinstance(content, str):
                assert isinstance(handler, logging.StreamHandler)
                with handler.lock or contextlib.nullcontext():
                    handler.stream.write(content)
                    handler.flush()
            elif not self._filters_here:
                return type(handler).handle(handler, content) is not False
            else:
                with handler.lock or contextlib.nullcontext():
                    handler.emit(content)
        except BaseException as error:  # noqa: BLE001 — a handler of the user's may raise anything
            self._error = error
        return True

    def _see_flowing(self, seconds: float) -> None:
        """Say that lines are taken again: where they were left out, and to the others."""
        with self._lock:
            half = self._lines <= MOST_LINES // 2 and self._size <= MOST_BYTES // 2
            # Not at the first free place, or each line would be followed by such a note.
            if self._left_out and half and not self._closed:
                record, note = self._gap()
                self._lines += 1
                self._items.put(_Item(record, 1, 0))
            elif self._stall_said and seconds > STALLED and not self._left_out:
                note = f"it takes lines again after {seconds:.1f} s"
            else:
                return
            self._stall_said = False
        self._tell_others(logging.WARNING, "The %s: %s", note)

    def _gap(self) -> tuple[logging.LogRecord, str]:
        """End the gap; return what is to be written in its place, and to be told to the others."""
        count, self._left_out = self._left_out, 0
        gap, self._gap_begun = self._gap_begun or Begun(), None
        seconds = gap.seconds
        note = f"it took no lines for {seconds:.1f} s, and {count} lines are left out"
        arguments = (self.name, note)
        text = "The %s: %s here"
        return log.makeRecord(log.name, logging.WARNING, "", 0, text, arguments, None), note

    # Failures

    def _report_errors_of(self, handler: logging.Handler) -> None:
        """Take the place of ``handleError``, which prints a traceback on standard error."""

        def handle_error(record: logging.LogRecord) -> None:
            self._error = sys.exc_info()[1] or RuntimeError("it does not say why")
            # It may have more to do, such as to close a socket; logging's own is silent by now.
            type(handler).handleError(handler, record)

        handler.handleError = handle_error  # type: ignore[method-assign]  # — emit calls this

    def _failed(self, error: BaseException, lines: int) -> None:
        with self._lock:
            self._last_failure = time.monotonic()
            self._missed += lines
            first = not self._reason
            self._reason = printable(describe(error))
            if first:
                self._failing = Begun()
        if first:
            note = "The %s fails: %s; its lines are missing there until that is corrected"
            self._tell_others(logging.ERROR, note, self._reason)

    def _see_recovery(self) -> None:
        with self._lock:
            if not self._reason or self._last_success <= self._last_failure:
                return
            if time.monotonic() - self._last_failure < QUIET:
                return
            missed, seconds = self._missed, self._failing.seconds
            self._reason, self._missed = "", 0
        log.warning(
            "The %s works again after %.0f s; %d lines are missing", self.name, seconds, missed
        )

    def _tell_others(self, level: int, note: str, *arguments: object) -> None:
        """Log what concerns this handler, everywhere but there."""
        with _telling_about(self), contextlib.suppress(Exception):
            log.log(level, note, self.name, *arguments)


@contextlib.contextmanager
def _telling_about(subject: HandlerQueue) -> Iterator[None]:
    before = getattr(_subject, "queue", None)
    _subject.queue = subject
    try:
        yield
    finally:
        _subject.queue = before


def _own(record: logging.LogRecord) -> tuple[logging.LogRecord, int]:
    """Return a copy of the record and its size: others format it at the same time, in their way.

    What may look different by then is formatted now, as logging.handlers.QueueHandler does.
    """
    if type(record) is logging.LogRecord:
        # Four times as fast as copy().
        plain = logging.LogRecord.__new__(logging.LogRecord)
        plain.__dict__.update(record.__dict__)
        record = plain
    else:
        record = copy.copy(record)
    size = _OVERHEAD
    arguments = record.args
    if arguments:
        if not isinstance(arguments, tuple) or not all(type(one) in _PLAIN for one in arguments):
            record.msg, record.args = record.getMessage(), None
            arguments = ()
        size += sum(len(one) for one in arguments if isinstance(one, (str, bytes)))
    elif not isinstance(record.msg, str):
        record.msg = record.getMessage()
    return record, size + len(record.msg)
