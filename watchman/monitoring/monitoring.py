"""The daemon's side of monitoring, for the life of the process: pipelines come and go."""

from __future__ import annotations

import time
from collections.abc import Sequence

from watchman.journal import Journal
from watchman.model import Config, Delivery
from watchman.monitoring.hooks import END, Hooks
from watchman.monitoring.metrics_file import MetricsFile
from watchman.status import Snapshot
from watchman.troubles import Trouble, Troubles


class Monitoring:
    """Tells others what the pipeline finds. Its methods never wait, and are for any thread."""

    def __init__(self) -> None:
        self._of_hooks, self._of_file = Troubles(), Troubles()
        self._hooks = Hooks(self._of_hooks)
        self._file = MetricsFile(self._of_file)

    def begin(self, config: Config, journal: Journal) -> None:
        """Take over what a new pipeline has: threads may be started from now on."""
        self._hooks.begin(config, journal.reasons)
        self._file.begin(config, journal.measures)

    def look_at(self, snapshot: Snapshot) -> None:
        """Tell what is wrong, and what is so no longer."""
        self._hooks.look_at(snapshot)

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        """Tell of deliveries that no retry can help."""
        self._hooks.failed(deliveries)

    def troubles(self) -> list[Trouble]:
        """Return what is wrong with the hooks and the file themselves."""
        return self._of_hooks.all() + self._of_file.all()

    def close(self) -> None:
        """End; what is under way has two seconds."""
        deadline = time.monotonic() + END
        self._file.close()
        self._hooks.close()
        self._file.join(deadline - time.monotonic())
