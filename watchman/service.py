"""Run until told to stop: lock, logging, signals, reload."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from watchman import brokers, guard, hanging, limits, queued_logging, record_locks
from watchman import config as configuration
from watchman.backoff import Backoff
from watchman.errors import AlreadyRunning, JournalDamaged, JournalError, WatchmanError
from watchman.journal import Journal
from watchman.model import Config, Publisher
from watchman.monitoring import Monitoring
from watchman.pipeline import Pipeline
from watchman.sources.at_start import Starts
from watchman.troubles import Lasting

if TYPE_CHECKING:  # loaded where there are MOVES
    from watchman.mover.rename_process import RenameProcess

log = logging.getLogger("watchman.service")

DESCRIPTORS = 4096
"""Open files that the daemon wants to be allowed."""

GARBAGE_THRESHOLD = 50_000
"""New objects after which Python looks for unreachable cycles among them. Ours are few, and with
the usual 700 a burst spends a twentieth of its time on looking."""
SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread may keep the interpreter while others wait: the reader and the
senders do many short system calls, and each would otherwise wait 5 ms for its turn."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a journal that was damaged, and is so once more, is opened again."""
_SLICE = 0.1


@contextlib.contextmanager
def locked(state_dir: str) -> Iterator[None]:
    """Hold the state directory for this process; make it (0700) if it is missing.

    The kernel drops the lock with the process, however it ends. Raises AlreadyRunning with the
    other process's id, WatchmanError where the directory cannot be used.
    """
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(record_locks.lock_of(state_dir), flags, 0o600)
    except OSError as error:
        raise WatchmanError(
            f"STATE_DIR: {state_dir} cannot be used: {error.strerror}; correct its permissions "
            "or name another directory"
        ) from error
    try:
        while not record_locks.take(descriptor):
            holder = record_locks.holder(descriptor)
            if holder is not None:
                raise AlreadyRunning(
                    f"already running with {record_locks.who(holder)} on {state_dir}; stop it "
                    "first, or give this one another STATE_DIR"
                )
        os.ftruncate(descriptor, 0)
        # For people only. Of a full disk the journal tells, with the remedy.
        with contextlib.suppress(OSError):
            os.write(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(descriptor)


def _may_hang(config: Config) -> bool:
    """Say whether anything that is watched or moved to may hang."""
    paths = [watch.path for watch in config.watches]
    return bool(hanging.points(*paths, *(path for move in config.all_moves for path in move)))


def _raise_descriptor_limit() -> None:
    """Allow more open files than usual: a burst keeps hundreds of directories open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    wrong = limits.too_few_descriptors()
    if wrong:
        raise WatchmanError(wrong)


class Starter(Protocol):
    """Who has started the service, and waits for word of it.

    What is called from a signal's handler must neither log nor wait for long.
    """

    def ready(self, state_dir: str) -> None:
        """Everything is watched, after the start or a reload."""
        ...

    def reloading(self) -> None:
        """SIGHUP came; nothing has been done about it. From its handler."""
        ...

    def adopted(self, config: Config) -> None:
        """The configuration is in force, after the start or a reload."""
        ...

    def stopping(self) -> None:
        """SIGTERM or SIGINT came; nothing has been done about it. From its handler."""
        ...

    def leave(self) -> None:
        """Give back what is the daemon's own: this is a child, which takes over."""
        ...


class Service:
    """The daemon in the foreground.

    ``load`` reads the configuration; it is called again for each reload, and a mistake found
    then is logged and changes nothing.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        starter: Starter | None = None,
        *,
        remember: bool = True,
    ) -> None:
        self._load = load
        self._remember = remember
        """Whether the places of a start are kept for when the configuration cannot be used."""
        self._starter = starter
        self._tell_parent: Callable[[], None] | None = None
        """In a child: says that everything is watched; the parent tells the starter."""
        self._was_ready = False
        self._pipeline: Pipeline | None = None
        self._rename_process: RenameProcess | None = None
        self._apart: set[str] = set()
        """Watches that once could hang: they keep a thread of their own."""
        self._starts = Starts()
        self._lasting = Lasting()
        self._monitoring = Monitoring()
        self._resumed = False
        self._reopened = 0.0
        """When, by the monotonic clock, the journal was opened last after it was damaged."""
        self._pause = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._unopened = False
        self._reload = False
        self._stopping = False
        self._is_child = False
        """Whether this is the process that can be left behind."""
        self._journal_left = False
        """Whether the journal was removed or replaced: the lock has to be taken again as well."""

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. Raises WatchmanError for whatever ends it otherwise."""
        queued_logging.install()
        try:
            config = self._load()
            # First: whoever finds the lock held may send any of these signals.
            self._set_up_process()
            # Before anything is made: a mistake in LOGGING is one of the configuration.
            configuration.apply_logging(config)
            self._watch(config)
            log.info("Watching has been stopped")
        finally:
            queued_logging.close()

    def _watch(self, config: Config) -> None:
        try:
            while not self._stopping:
                with locked(config.state_dir):
                    self._adopt(config)
                    if self._remember:
                        configuration.remember(config)
                    config = self._with_lock(config)
        finally:
            self._monitoring.close()
            if self._rename_process is not None:
                self._rename_process.end()

    def _with_lock(self, config: Config) -> Config:
        """Watch until stopped, or until the lock has to be taken again."""
        if self._is_right_for(config):
            return self._with_journal(config)
        # The child has one of its own, and threads do not survive a fork.
        self._monitoring.close()
        self._monitoring = Monitoring()
        stopped = guard.run(
            lambda ready: self._in_child(config, ready),
            lambda: self.now_watching(config),
            queued_logging.start,
        )
        self._stopping = self._stopping or stopped
        self._resumed = True
        self._reload = False
        if not self._stopping:
            with contextlib.suppress(WatchmanError):  # as it was reloaded last, if it can be
                fresh = self._load()
                if fresh.state_dir == config.state_dir:
                    return fresh
                configuration.reject(fresh)
        return config

    def _is_right_for(self, config: Config) -> bool:
        """Say whether this process may watch it: a reload or a mount can bring what may hang."""
        return self._is_child or not _may_hang(config)

    def _in_child(self, config: Config, tell_ready: Callable[[], None]) -> bool:
        """Do it in a process that can be left behind; say whether it was told to stop."""
        self._is_child = True
        self._journal_left = False
        if self._starter is not None:
            self._starter.leave()
        queued_logging.after_fork()
        self._tell_parent = tell_ready
        try:
            while not (self._stopping or self._journal_left):
                config = self._with_journal(config)
        finally:
            self._monitoring.close()
            if self._rename_process is not None:
                self._rename_process.end()
            queued_logging.close()
        return self._stopping

    def _with_journal(self, config: Config) -> Config:
        """Watch until stopped, or until the journal is gone or damaged.

        Return the configuration for what comes then.
        """
        journal = self._open_journal(config)
        if journal is None:
            return config
        try:
            if config.moves and self._rename_process is None and not self._resumed:
                from watchman.mover.rename_process import RenameProcess

                # Before there are threads; so a reload that brings the first MOVES has none.
                self._rename_process = RenameProcess.start()
            while not self._stopping and journal.sound and self._is_right_for(config):
                config = self._with_pipeline(config, journal)
                # What is left of the last one is full of cycles, and the next one as large.
                self._pipeline = None
                gc.collect()
        except BaseException:
            journal.suspect()  # a broken file may be what has ended us
            raise
        finally:
            journal.write_retry.give_up = lambda: self._stopping
            self._journal_left = not journal.in_place
            journal.close()
        if journal.damage:
            self._hold_back()
        return config

    def _open_journal(self, config: Config) -> Journal | None:
        """Open the journal; None where that has to be tried again, or was stopped.

        Raises JournalError where a first start cannot have it; who watches already goes on trying.
        """
        try:
            journal = Journal(config.state_dir, lambda: self._stopping)
        except JournalError as error:
            if self._stopping:
                log.warning("%s", error)
                return None
            if not (self._resumed or isinstance(error, JournalDamaged)):
                raise
            if not self._unopened:
                log.error("%s. Nothing is watched until then: it is tried again", error)
            self._unopened = True
            self._hold_back()
            return None
        self._unopened = False
        return journal

    def _hold_back(self) -> None:
        """Wait before the journal is opened again, the longer the more often that was of no use."""
        queued_logging.start()
        now = time.monotonic()
        again = now - self._reopened < 2 * LONGEST_PAUSE
        if again:
            self._pause.next()
        else:
            self._pause.reset()
        # An event that a signal handler sets could be the one that it has interrupted.
        never = threading.Event()
        while not self._stopping and time.monotonic() < now + self._pause.delay:
            never.wait(_SLICE)
        self._reopened = time.monotonic()

    def _with_pipeline(self, config: Config, journal: Journal) -> Config:
        """Run one pipeline; return the configuration for the next."""
        for warning in config.warnings:
            log.warning("%s", warning)
        # To make a pipeline may take a long wait for the journal, which must not outlast a signal.
        journal.write_retry.give_up = lambda: self._interrupted
        try:
            pipeline = self._pipeline = Pipeline(
                config,
                journal,
                self,
                resumed=self._resumed,
                rename_process=self._rename_process,
                apart=self._apart,
                starts=self._starts,
                lasting=self._lasting,
                monitoring=self._monitoring,
            )
            # A signal may have come before there was a pipeline to tell.
            if self._interrupted:
                pipeline.stop()
            self._resumed = True
            pipeline.run()
        except WatchmanError as error:
            if journal.sound:
                if not (self._interrupted and isinstance(error, JournalError)):
                    raise
                log.warning("%s", error)
        if journal.damage:
            log.error(
                "The journal %s is damaged (%s): it is closed, checked and opened again",
                journal.path,
                journal.damage,
            )
        if self._reload and not self._stopping:
            self._reload = False
            return self._reloaded(config)
        # There may be more watches by now (do_glob).
        return config if self._pipeline is None else self._pipeline.config

    @property
    def _interrupted(self) -> bool:
        return self._stopping or self._reload

    # Called by the pipeline: this is its owner

    def open_publisher(self, config: Config, broker: str) -> Publisher:
        """Return what hands messages to a broker."""
        return brokers.open_publisher(config.brokers[broker], config.celery, config.state_dir)

    def now_watching(self, config: Config) -> None:
        """Tell whoever waits for it that everything is watched."""
        if self._starter is None and self._tell_parent is None:
            return
        if not self._was_ready:
            # Whoever waits for the start looks into the log next.
            queued_logging.drain(0.5)
        self._was_ready = True
        if self._tell_parent is not None:
            self._tell_parent()
        elif self._starter is not None:
            self._starter.ready(config.state_dir)

    def _reloaded(self, config: Config) -> Config:
        try:
            fresh = self._load()
        except WatchmanError as error:
            for line in str(error).splitlines():
                log.error("Not reloaded: %s", line)
            return config
        if fresh.state_dir != config.state_dir:
            log.error("Not reloaded: STATE_DIR changed; restart to use %s", fresh.state_dir)
            configuration.reject(fresh)
            return config
        try:
            configuration.apply_logging(fresh)
        except WatchmanError as error:
            log.error("Not reloaded: %s", error)
            configuration.reject(fresh)
            return config
        self._adopt(fresh)
        log.info("Reloaded %s", fresh.path)
        return fresh

    def _adopt(self, config: Config) -> None:
        configuration.adopt(config)
        if self._starter is not None:
            self._starter.adopted(config)

    def _set_up_process(self) -> None:
        # A lease that is broken while we hold it (for microseconds) raises SIGIO, whose default
        # is to end the process.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGUSR1, self._on_rescan)
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        _raise_descriptor_limit()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._starter is not None:
            self._starter.stopping()
        self._stopping = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def _on_rescan(self, _number: int, _frame: FrameType | None) -> None:
        if self._pipeline is not None:
            self._pipeline.rescan()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        if self._starter is not None:
            self._starter.reloading()
        self._reload = True
        if self._pipeline is not None:
            self._pipeline.stop()
