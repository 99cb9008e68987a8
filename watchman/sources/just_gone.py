"""What matches a pattern goes with its uploader: that it is gone is no trouble at once."""

from __future__ import annotations

import time

from watchman.file_access import GONE_ERRNOS
from watchman.model import Watch

WITHIN = 10.0
"""Seconds within which a directory that is gone, and matched a pattern, is given up.

Only where it is not, as it may be unmounted, it is told that it is missed.
"""


class JustGone:
    """Says of one watch whether what is wrong with its directory is still to be told."""

    def __init__(self, watch: Watch) -> None:
        self._is_match = bool(watch.pattern)
        self._since: float | None = None

    def is_there(self) -> None:
        """Take note that the directory is there."""
        self._since = None

    def may_be_given_up(self, error: OSError) -> bool:
        """Say whether the directory has just gone, and may soon be nobody's any more."""
        if not self._is_match or error.errno not in GONE_ERRNOS:
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since < WITHIN
