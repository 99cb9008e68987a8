"""The daemon's side of monitoring, for the life of the process: pipelines come and go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from watchman.journal import Journal
from watchman.model import Config, Delivery
from watchman.status import Snapshot
from watchman.troubles import Trouble, Troubles

if TYPE_CHECKING:  # loaded where they are configured
    from watchman.monitoring.hooks import Hooks
    from watchman.monitoring.metrics_file import MetricsFile

END = 2.0
"""Seconds for what is under way at the end of the process."""


class Monitoring:
    """Tells others what the pipeline finds. Its methods never wait, and are for any thread."""

    def __init__(self) -> None:
        self._of_hooks, self._of_file = Troubles(), Troubles()
        self._hooks: Hooks | None = None
        self._file: MetricsFile | None = None

    def begin(self, config: Config, journal: Journal) -> None:
        """Take over what a new pipeline has: threads may be started from now on."""
        if config.hooks and self._hooks is None:
            from watchman.monitoring.hooks import Hooks

            self._hooks = Hooks(self._of_hooks)
        if self._hooks is not None:
            self._hooks.begin(config, journal.reasons)
        if config.metrics_file and self._file is None:
            from watchman.monitoring.metrics_file import MetricsFile

            self._file = MetricsFile(self._of_file)
        if self._file is not None:
            self._file.begin(config, journal.measures)

    def look_at(self, snapshot: Snapshot) -> None:
        """Tell what is wrong, and what is so no longer."""
        if self._hooks is not None:
            self._hooks.look_at(snapshot)

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        """Tell of deliveries that no retry can help."""
        if self._hooks is not None:
            self._hooks.failed(deliveries)

    def troubles(self) -> list[Trouble]:
        """Return what is wrong with the hooks and the file themselves."""
        return self._of_hooks.all() + self._of_file.all()

    def close(self) -> None:
        """End; what is under way has two seconds."""
        deadline = time.monotonic() + END
        if self._file is not None:
            self._file.close()
        if self._hooks is not None:
            self._hooks.close(END)
        if self._file is not None:
            self._file.join(deadline - time.monotonic())
