"""``notify run --dry-run``: what would become of arrivals, without any effect.

The service runs as ever, with places, a journal and a log of its own, and without brokers and
processors. The journal is a scratch one: what the real one knows is only read, once, at the start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from watchman import config as configuration
from watchman import hanging
from watchman.checks.scanning import NO_PATTERN, Unknown, unknown
from watchman.errors import JournalError, WatchmanError
from watchman.file_access import version_of
from watchman.journal import Journal
from watchman.journal.journal_reader import open_reader
from watchman.journal.runs import run_of
from watchman.model import Config, Existing, Version
from watchman.service import Service
from watchman.text import printable

log = logging.getLogger("watchman.notify")

_PREFIX = "watchman-dry-run-"
_AT_A_TIME = 1000


class _Stopped(BaseException):
    """A signal came before the service hears of signals."""


def run(load: Callable[[], Config]) -> None:
    """Say what would become of what is there and of what arrives, until SIGTERM or SIGINT.

    Beside a running daemon or without one. Raises WatchmanError as the service does.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stopped

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with _scratch() as scratch:
            config = load()
            configuration.apply_logging(without_effect(config, scratch))
            log.info("Dry run: nothing is moved, sent or recorded")
            _tell_what_is_there(config, scratch)
            Service(lambda: without_effect(load(), scratch), remember=False).run()
    except _Stopped:
        log.info("Watching has been stopped")
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Give a directory that is removed at the end. Raises WatchmanError."""
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX)
    except OSError as error:
        raise WatchmanError(
            f"a dry run needs a directory for temporary files: {error.strerror}; set TMPDIR to "
            "one that can be written"
        ) from error
    with made as scratch:
        yield scratch


def without_effect(config: Config, scratch: str) -> Config:
    """Return the configuration for a run that has no effect but files below ``scratch``."""
    own = [watch for watch in config.watches if watch.processor is not None]
    # What is there already is told from the real journal.
    plain = [
        dataclasses.replace(watch, existing=Existing.NEW)
        for watch in config.watches
        if watch.processor is None
    ]
    left_out = tuple(
        f"Dry run: the processor {watch.processor_name} is not called for {printable(watch.path)}"
        for watch in own
    )
    return dataclasses.replace(
        config,
        watches=tuple(plain),
        brokers={},
        ignore=(*config.ignore, f"{_PREFIX}*"),  # the scratch directory may lie in a watch
        dry_run=("*",),
        logging=configuration.DEFAULT_LOGGING,
        state_dir=scratch,
        pid_file=os.path.join(scratch, "watchman.pid"),
        log_dir=scratch,
        hooks={},
        metrics_file="",
        warnings=(*config.warnings, *left_out),
    )


def _tell_what_is_there(config: Config, scratch: str) -> None:
    """Say what a start would do with what is there; what comes meanwhile is an arrival."""
    # What may hang is left to the service, which waits for it apart.
    local = tuple(watch for watch in config.watches if not hanging.points(watch.path))
    journal = Journal(scratch)
    try:
        journal.begin_first_runs(map(run_of, config.watches), time.time_ns())
        with open_reader(config.state_dir) as real:
            found = unknown(dataclasses.replace(config, watches=local), real)
            _tell(found, journal)
    except JournalError as error:
        log.warning("Dry run: what is there already is not told: %s", error)
    finally:
        journal.close()


def _tell(found: Iterable[Unknown], journal: Journal) -> None:
    noted: list[tuple[str, Version]] = []
    only_noted = 0
    for one in found:
        if one.state == "being written":
            continue  # an arrival when it is complete
        if one.state == "unreadable":
            log.warning("Dry run: %s cannot be read: %s", printable(one.path), one.note)
        elif one.note.startswith("existing"):
            only_noted += 1
        else:
            _tell_of(one)
            _note(one.path, noted)
        if len(noted) >= _AT_A_TIME:
            journal.record((), noted)
            noted.clear()
    journal.record((), noted)
    if only_noted:
        log.info("Dry run: %d that are there already would be noted and not sent", only_noted)


def _tell_of(one: Unknown) -> None:
    log.info("Notified of %s", printable(one.path))
    if one.destination is not None and one.note in ("", NO_PATTERN):
        log.info("Dry run: would move %s to %s", printable(one.path), printable(one.destination))
    if one.note:
        log.info("Dry run: would send no task for %s: %s", printable(one.path), one.note)
    elif one.task is not None:
        condition = f" if it is what is asked: {'; '.join(one.asked)}" if one.asked else ""
        log.info("Dry run: would send task %s%s", one.task, printable(condition))


def _note(path: str, noted: list[tuple[str, Version]]) -> None:
    """Have a file that was told of known, so that it is told of once."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return
    if os.path.isfile(path):
        noted.append((path, version_of(status)))
