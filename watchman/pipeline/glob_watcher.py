"""Directories that begin and cease to match a pattern (``do_glob``) while watchman runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from watchman import hanging
from watchman.config.globs import Memory, expand_again
from watchman.model import Config
from watchman.pipeline.file_watcher import FileWatcher
from watchman.pipeline.schedule import CHECK
from watchman.sources.listener import UnwatchedListener
from watchman.text import printable

log = logging.getLogger("watchman.notify")

_SHARE = 20
"""However many directories match: looking for more takes this fraction of the time at most."""


class GlobWatcher:
    """Looks for them in a thread of its own: there may be many, on a slow disk.

    A pattern that nothing matches, or that nobody can look for, is a trouble. ``watcher``, which
    runs in the thread that takes what is found, is woken when :meth:`take` has something.
    """

    def __init__(self, config: Config, unwatched: UnwatchedListener, watcher: FileWatcher) -> None:
        self._config = config
        self._unwatched = unwatched
        self._watcher = watcher
        self._found: Config | None = None
        """Set by the thread only, and never back: what it finds while another is taken stays."""
        self._taken: Config | None = None
        self._memory = Memory()
        self._wrong: set[str] = set()
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        """What ended the thread."""
        self._thread = threading.Thread(target=self._run, name="globs", daemon=True)

    def start(self) -> None:
        """Begin to look; what is wrong with the patterns is told before this returns."""
        fresh, wrong = expand_again(self._config, self._memory)
        self._tell(wrong)
        self._tell_left_out(fresh)
        self._thread.start()

    def stop(self) -> None:
        """End the looking. One that hangs ends with the process, and has no effect."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(hanging.SILENT + CHECK)

    def take(self) -> Config | None:
        """Return the configuration with what matches now, once; None if it is as before."""
        found = self._found
        if found is self._taken:
            return None
        self._taken = found
        return found

    def _run(self) -> None:
        try:
            pause = CHECK
            while not self._stopping.wait(pause):
                begun = time.monotonic()
                self._look()
                pause = max(CHECK, _SHARE * (time.monotonic() - begun))
        except BaseException as error:
            log.exception("Looking for directories that match a pattern ended")
            self.error = error

    def _look(self) -> None:
        fresh, wrong = expand_again(self._config, self._memory)
        self._tell(wrong)
        if fresh is self._config:
            return
        self._tell_left_out(fresh)
        # What has been said is not kept: who makes and removes directories could fill the memory.
        fresh = replace(fresh, warnings=self._config.warnings)
        other = fresh.watches != self._config.watches
        self._config = fresh
        if other and not self._stopping.is_set():
            self._found = fresh
            self._watcher.check_soon()

    def _tell_left_out(self, fresh: Config) -> None:
        """Say what is left out now, but for what was when the configuration was loaded."""
        for warning in fresh.warnings[len(self._config.warnings) :]:
            if warning not in self._config.warnings:
                log.warning("%s", printable(warning))

    def _tell(self, wrong: Mapping[str, OSError]) -> None:
        for pattern, error in wrong.items():
            self._unwatched.say(pattern, error)
        for pattern in self._wrong - wrong.keys():
            self._unwatched.say(pattern, None)
        self._wrong = set(wrong)
