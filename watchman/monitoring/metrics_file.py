"""METRICS_FILE: the metrics, written every 15 s for node_exporter's textfile collector."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from watchman import guard
from watchman.errors import WatchmanError
from watchman.journal.measures import Measures
from watchman.model import Config
from watchman.replacement import remove_left, replace
from watchman.troubles import Troubles

log = logging.getLogger("watchman.notify")

EVERY = 15.0
"""Seconds between two writes."""
_MODE = 0o644
"""node_exporter is another user."""


class MetricsFile:
    """Writes the file from a thread of its own, which there is as long as the file is set."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._config: Config | None = None
        self._read_journal: Callable[[], Measures]
        self._since_ns = time.time_ns()
        self._closed = threading.Event()
        self._cleared = ""
        """The path beside which nothing is left of processes that were killed."""
        self._thread: threading.Thread | None = None

    def begin(self, config: Config, read_journal: Callable[[], Measures]) -> None:
        """Write for this configuration from now on; ``read_journal()`` may raise JournalError."""
        self._read_journal = read_journal
        before, self._config = self._config, config
        if before is not None and before.metrics_file != config.metrics_file:
            self._troubles.end(before.metrics_file)
        # One that hangs, on a share that is away, goes on when that is back: there is never a
        # second.
        if config.metrics_file and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="metrics-file", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write no more. The file stays: how old it is tells that nobody writes it."""
        self._closed.set()

    def join(self, timeout: float) -> None:
        """Wait for the end of what is being written, in seconds; on a share it may hang."""
        if self._thread is not None:
            self._thread.join(max(0.0, timeout))

    def _run(self) -> None:
        while not self._closed.is_set():
            config = self._config
            if config is not None and config.metrics_file:
                self._write(config)
            self._closed.wait(EVERY)

    def _write(self, config: Config) -> None:
        # Loaded where it is configured.
        from watchman.metrics.exposition import as_text
        from watchman.metrics.facts import of_this_process

        path = config.metrics_file
        if path != self._cleared:
            self._cleared = path
            remove_left(path)
        try:
            process = guard.pid(), self._since_ns
            words = as_text(of_this_process(config, process, self._read_journal))
            replace(path, words, _MODE)
        except OSError as error:
            why = f"the metrics cannot be written: {error.strerror}; check METRICS_FILE's directory"
            self._troubles.begin(path, why)
        except WatchmanError as error:
            self._troubles.begin(path, f"there are no metrics to write: {error}")
        except Exception as error:
            log.debug("The metrics: %r", error, exc_info=True)
            self._troubles.begin(path, f"there are no metrics to write: {error!r}; report this")
        else:
            self._troubles.end(path, line="%s: the metrics are written again")
