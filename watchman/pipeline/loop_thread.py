"""A loop in a thread of its own, in file systems that may hang: its beginning and its end."""

from __future__ import annotations

import abc
import logging
import threading
import time
from collections.abc import Iterable, Sequence

from watchman import hanging
from watchman.errors import JournalError
from watchman.journal import Journal
from watchman.model import Watch

log = logging.getLogger("watchman.notify")


class LoopThread(abc.ABC):
    """A thread that watches. Nothing runs before :meth:`start`; all methods are for other threads,
    but for those that begin with an underscore, which are called from this one.

    ``name`` is the thread's, ``what`` is what the log says has ended if it dies.
    """

    def __init__(self, name: str, what: str, watches: Sequence[Watch], journal: Journal) -> None:
        paths = [watch.path for watch in watches]
        self.station = hanging.Station(paths, paths)
        """Where it works, and since when it has not come back."""
        self.error: BaseException | None = None
        """What ended the thread."""
        self.watching = False
        """Whether the first scan is over: every directory is watched."""
        self._what = what
        self._journal = journal
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abc.abstractmethod
    def rescan(self) -> None:
        """Have everything scanned now; from any thread, or a signal handler."""

    @abc.abstractmethod
    def look_again(self, paths: Iterable[str]) -> None:
        """Look at what is not what was recorded; from any thread."""

    @abc.abstractmethod
    def wake(self) -> None:
        """End the wait for events; from any thread, or a signal handler."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after what is in hand."""
        self._stopping = True
        self.wake()

    def join(self, timeout: float) -> bool:
        """Wait for its end, in seconds; False where it hangs and was left.

        What it does when it comes back is too late: the journal does not hear of it.
        """
        if self._thread.ident is None:
            self._close()
            return True
        if hanging.join([self._thread], self.station.where, timeout):
            return True
        # In this order: it may come back at any moment.
        self._journal.shut_out(self._thread)
        hanging.leave([self._thread], self.station.where)
        return False

    def _run(self) -> None:
        try:
            self.station.since = time.monotonic()
            # Who was left in the same mount by a pipeline before may still do what he was at.
            if hanging.await_left(self.station.where, lambda: self._stopping):
                self._begin()
            while not self._stopping:
                self._turn()
            self._finish()
        except JournalError as error:
            self.error = error  # told to stop while the disk is full, or shut out
        except BaseException as error:
            log.exception("%s", self._what)
            self.error = error
        finally:
            self.station.since = None
            self._close()

    @abc.abstractmethod
    def _begin(self) -> None:
        """Read events from now on."""

    @abc.abstractmethod
    def _turn(self) -> None:
        """Wait for what is to be done, and do a bounded piece of it; tell the station so."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Do what is left to be done when told to stop."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Give the inotify instance back."""
