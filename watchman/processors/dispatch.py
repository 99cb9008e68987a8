"""Threads around a processor of the user's own, so that a slow or failing one harms nothing else.

For each watch one thread follows the directories and makes the events, and another calls the
processor; the kernel's queue is emptied by a third (:mod:`watchman.sources.reader`). A processor
that falls behind by more than LIMIT events makes the kernel's queue overflow in the end, of which
it is told like of everything else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from watchman import hanging
from watchman.errors import SourceError
from watchman.model import Watch
from watchman.sources.at_start import AtStart, Starts
from watchman.sources.instance import IN_Q_OVERFLOW, make_event
from watchman.sources.listener import UnwatchedListener
from watchman.text import describe, printable

log = logging.getLogger("watchman.notify")

ROOT_CHECK = 2.0
"""Seconds between two checks that the watch's path is still the directory that is watched."""
AWAY_CHECK = 0.05
"""The same, while there is no such directory."""
LIMIT = 100_000
"""Events that wait for a processor at the most."""
GRACE = 5.0
"""Seconds that a processor gets at the end for what is waiting."""


class ProcessorWatches:
    """All watches that name a processor of the user's own; ``apart`` are paths that may hang."""

    def __init__(
        self,
        watches: Sequence[Watch],
        listener: UnwatchedListener,
        apart: Collection[str] = (),
        starts: Starts | None = None,
    ) -> None:
        self._listener = listener
        self._starts = starts or Starts()
        self._parts = {id(watch): self._part(watch, apart=watch.path in apart) for watch in watches}

    def _part(self, watch: Watch, *, apart: bool) -> _ProcessorWatch:
        return _ProcessorWatch(watch, self._listener, self._starts.of(watch), apart=apart)

    @property
    def error(self) -> BaseException | None:
        """Whatever ended one of our own threads; a processor's exceptions never do."""
        return next((part.error for part in self._parts.values() if part.error), None)

    @property
    def stations(self) -> list[hanging.Station]:
        """Where the threads work that follow the directories."""
        return [part.station for part in self._parts.values()]

    def starting(self, now: float) -> bool:
        """Say whether a watch that may hang is not watched yet, and does not hang."""
        parts = self._parts.values()
        return any(not (part.watching or part.station.hangs(now)) for part in parts)

    def start(self) -> None:
        """Start; every directory is watched when this returns, but for those that may hang.

        Raises SourceError.
        """
        for part in self._parts.values():
            part.start()

    def add(self, watch: Watch) -> None:
        """Take another watch, which cannot hang, while the others go on. Raises SourceError."""
        part = self._part(watch, apart=False)
        # Another thread may be going through the others.
        self._parts = {**self._parts, id(watch): part}
        part.start()

    def stop(self) -> None:
        """End; processors get what happened before, within a few seconds in all."""
        for part in self._parts.values():
            part.finish()
        deadline = time.monotonic() + GRACE
        for part in self._parts.values():
            part.stop(deadline)

    def directories(self, watch: Watch) -> int:
        """Return how many directories a watch covers; 0 before it is added."""
        part = self._parts.get(id(watch))
        return 0 if part is None else part.source.directories


class _ProcessorWatch:
    def __init__(
        self, watch: Watch, listener: UnwatchedListener, at_start: AtStart, *, apart: bool
    ) -> None:
        from watchman.processors.exact_events import ExactEvents

        self._watch = watch
        self._apart = apart
        self.station = hanging.Station([watch.path], [watch.path])
        self.watching = False
        """Whether every directory is watched."""
        self._call: Callable[[Any], Any] = _make(watch)
        self.source = ExactEvents(watch, listener, at_start)
        self._events: deque[Any] = deque()
        self._gap: Any = None
        """The event that tells of what happened since the last one on this watch has ended."""
        if at_start.watched:
            fields = {"wd": -1, "mask": IN_Q_OVERFLOW, "path": watch.path, "name": "", "dir": False}
            self._gap = make_event(fields)
            self._events.append(self._gap)
        self._changed = threading.Condition()
        self._finishing = False
        self._stopping = False
        self._collected = False
        self.error: BaseException | None = None
        name = f"processor-{watch.processor_name.rpartition('.')[2]}"
        self._threads = [
            threading.Thread(target=self._collect, name=f"{name}-events", daemon=True),
            threading.Thread(target=self._dispatch, name=name, daemon=True),
        ]

    def start(self) -> None:
        log.debug(
            "Adding watch on %s, processed by %s",
            printable(self._watch.path),
            self._watch.processor_name,
        )
        if not self._apart:
            self.source.start()
            self.watching = True
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Collect nothing that happens from now on."""
        self._finishing = True
        self.source.wake()
        with self._changed:
            self._changed.notify_all()

    def stop(self, deadline: float) -> None:
        """Wait for the processor, then give everything back."""
        events, processor = self._threads
        if events.ident is None:
            self.source.close()
            return
        hangs = not hanging.join([events], self.station.where, deadline - time.monotonic())
        # The second may have found no room for another thread.
        if not hangs and processor.ident is not None:
            processor.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        # It may have been waiting for room in the queue.
        if hangs and not hanging.join([events], self.station.where, GRACE):
            hanging.leave([events], self.station.where)
            return
        if self._events:
            log.warning(
                "The processor %s did not keep up: %d events on %s are dropped",
                self._watch.processor_name,
                len(self._events),
                printable(self._watch.path),
            )
        self.source.close()

    def _collect(self) -> None:
        """Follow the directories, and queue events while there is room."""
        try:
            next_check = 0.0
            if self._apart:
                self._begin()
            last = False
            while not last:
                last = self._finishing  # what happened before is still taken
                pace = AWAY_CHECK if self.source.away else ROOT_CHECK
                timeout = 0.0 if last else pace
                self.station.since = time.monotonic() + timeout
                events = self.source.take(timeout)
                now = time.monotonic()
                if (now >= next_check or self.source.away) and not last:
                    next_check = now + ROOT_CHECK
                    self.source.check_root()
                self.station.since = None  # a processor that is behind is no file system that hangs
                with self._changed:
                    self._events.extend(events)
                    self._changed.notify_all()
                    self._changed.wait_for(self._has_room)
        except BaseException as error:
            log.exception("The watch on %s died", printable(self._watch.path))
            self.error = error
        finally:
            self.station.since = None
            with self._changed:
                self._collected = True
                self._changed.notify_all()

    def _begin(self) -> None:
        self.station.since = time.monotonic()
        if hanging.await_left(self.station.where, lambda: self._finishing):
            self.source.start()
            self.watching = True

    def _has_room(self) -> bool:
        return self._stopping or self._finishing or len(self._events) < LIMIT

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._collected or self._stopping)
                if self._stopping or not self._events:
                    return
                event = self._events.popleft()
                if len(self._events) == LIMIT - 1:
                    self._changed.notify_all()
            self._process(event)

    def _process(self, event: Any) -> None:
        if event is self._gap:
            log.info(
                "Nobody has watched %s for a moment: the processor %s gets IN_Q_OVERFLOW for what "
                "it may have missed",
                printable(self._watch.path),
                self._watch.processor_name,
            )
        elif event.maskname == "IN_Q_OVERFLOW":
            log.warning(
                "Events on %s were lost: the processor %s is told, and the directories are looked "
                "through again; make it faster, or raise /proc/sys/fs/inotify/max_queued_events",
                printable(self._watch.path),
                self._watch.processor_name,
            )
        try:
            self._call(event)
        except BaseException as error:
            log.error(
                "The processor %s failed on %s %s: %s",
                self._watch.processor_name,
                event.maskname,
                printable(event.pathname),
                printable(describe(error)),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )


def _make(watch: Watch) -> Callable[[Any], Any]:
    """Return the watch's processor, made here where a class is named. Raises SourceError."""
    processor = watch.processor
    if isinstance(processor, type):
        try:
            processor = processor()
        except BaseException as error:
            raise SourceError(
                f"the processor {watch.processor_name} cannot be made: "
                f"{printable(describe(error))}; correct it"
            ) from error
    call: Callable[[Any], Any] = processor
    return call
