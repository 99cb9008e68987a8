"""Whether files can be moved to where MOVES says, before there is one to be moved."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from watchman import hanging
from watchman.model import Move
from watchman.troubles import Troubles


class Destinations:
    """Looks at the destinations that cannot hang; of others the mover tells when it meets them.

    Nothing is looked at before :meth:`look_at_mounts` was called once.
    """

    def __init__(self, moves: Sequence[tuple[str, str]], troubles: Troubles) -> None:
        self._moves = moves
        self._troubles = troubles
        self._looked_at: list[tuple[str, str]] = []

    def look_at_mounts(self) -> None:
        """Take note that something was mounted or unmounted."""
        self._looked_at = [move for move in self._moves if not hanging.points(move[1])]
        for source, root in set(self._moves).difference(self._looked_at):
            self._well(source, root)

    def check(self) -> None:
        """Say what is wrong at the moment."""
        for source, root in self._looked_at:
            reason = _wrong(root)
            if reason is None:
                self._well(source, root)
            else:
                self._troubles.begin(Move(source, root).subject, reason)

    def _well(self, source: str, root: str) -> None:
        self._troubles.end(Move(source, root).subject, line="%s is possible again")


def _wrong(root: str) -> str | None:
    """Return why nothing can be moved there, and the remedy; None if it can."""
    try:
        status = os.stat(root)
    except OSError as error:
        return f"{root}: {error.strerror}; create it, or mount what belongs there: files wait"
    if not stat.S_ISDIR(status.st_mode):
        return f"{root} is no directory; put one there, or correct MOVES: files wait"
    if not os.access(root, os.W_OK | os.X_OK, effective_ids=True):
        user = os.geteuid()
        return f"{root} cannot be written by user {user}; give this user write permission"
    return None
