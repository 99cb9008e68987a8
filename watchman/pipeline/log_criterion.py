"""What transfer logs ask of a file: that none calls it incomplete, or that one calls it complete.

The first of every file below TRANSFER_LOGS, the second where its watch has ``require_log``. What a
log has said of a version lasts longer than its line, also across a restart: the journal's
``partial`` has the reason. As logs are asked first, what waits for anything else has their word.
"""

from __future__ import annotations

from typing import Protocol

from watchman.model import Criteria, Version
from watchman.pipeline.found import Found

CALLED_INCOMPLETE = "a transfer log calls its upload incomplete"
NOT_LOGGED = "no transfer log calls it complete"
LOGGED = "no transfer log has anything against it"
"""What is told of a member of a set that waits for others, as it waits for no log any more."""
LATE = 1.0
"""Seconds that a file may wait for its line until that is told."""
NOTHING_ELSE = Criteria(())
"""Of files that only a transfer log keeps waiting."""


class Logs(Protocol):
    """What is known of the lines that were read."""

    def verdict(self, path: str, version: Version) -> bool | None:
        """Say whether a log calls a file complete as it is; None where none tells."""
        ...

    def await_line(self, path: str) -> None:
        """Have the file at a path looked at again when a log tells of it."""
        ...


class LogCriterion:
    """Says of files why they wait."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def objection(self, found: Found, before: str) -> str:
        """Return why a file waits for a log; empty if it need not.

        ``before`` is why it waited last, as it is now.
        """
        reason = self._reason(found, before)
        if reason:
            self._logs.await_line(found.path)
            reason = self._reason(found, before)  # its line may just have been read
        return reason

    def _reason(self, found: Found, before: str) -> str:
        complete = self._logs.verdict(found.path, found.version)
        if complete is False or (complete is None and before == CALLED_INCOMPLETE):
            return CALLED_INCOMPLETE
        is_told = complete is not None or before not in ("", NOT_LOGGED)
        return NOT_LOGGED if found.node.root.watch.require_log and not is_told else ""
