"""What can come of one attempt to move a delivery, apart from success and an OSError."""

from __future__ import annotations

from watchman.filesystem import Look, Seen
from watchman.model import State


class RootError(OSError):
    """A root cannot be opened, or is not what it was: it concerns every file on its way."""


class DirectoryError(OSError):
    """A directory below a root cannot be opened or made: it concerns every file in it."""


REPLACED = "replaced by a newer upload"


class Ended(Exception):  # noqa: N818 — an outcome, not an error
    """The delivery ends here: vanished or failed."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Odd(Exception):  # noqa: N818 — an outcome, not an error
    """The source is not what was recorded, or is being written: find out what became of it."""


class Elsewhere(Exception):  # noqa: N818 — an outcome, not an error
    """The destination is on another file system: copy."""


class Postponed(Exception):  # noqa: N818 — an outcome, not an error
    """The MOVES entry is stuck: the copy was not begun."""


class Stopped(Exception):  # noqa: N818 — an outcome, not an error
    """The mover was told to stop during a copy; the delivery stays as it is."""


def vanished(look: Look, superseded: bool) -> Ended:
    """Return the end of a delivery whose version is nowhere."""
    if superseded:
        reason = REPLACED
    elif look.seen is Seen.OTHER:
        reason = "replaced by something that is not a file"
    else:
        reason = "gone before it could be moved"
    return Ended(State.VANISHED, reason)
