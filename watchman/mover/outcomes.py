"""How an attempt to move a delivery can end, apart from success and a plain OSError.

The exceptions that are no errors say what is to be done next; what is an OSError stands in the way,
and its class says of how many files.
"""

from __future__ import annotations

from watchman.file_access import Look, Seen
from watchman.model import State


class RootError(OSError):
    """A root cannot be opened, or is not what it was: it concerns every file on its way."""


class DirectoryError(OSError):
    """A directory below a root cannot be opened or made: it concerns every file in it."""


REPLACED = "replaced by a newer upload"


class Terminal(Exception):  # noqa: N818 — an outcome, not an error
    """The delivery ends here: vanished or failed."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class SourceChanged(Exception):  # noqa: N818 — an outcome, not an error
    """The source is gone, in use or not what was recorded: find out what became of it."""


class CrossDevice(Exception):  # noqa: N818 — an outcome, not an error
    """The destination is on another file system: copy. The argument is the row."""


class Postponed(Exception):  # noqa: N818 — an outcome, not an error
    """The MOVES entry is stuck: the copy was not begun."""


class Cancelled(Exception):  # noqa: N818 — an outcome, not an error
    """The mover was told to stop during a copy; the delivery stays as it is."""


def vanished(look: Look, superseded: bool) -> Terminal:
    """Return the end of a delivery whose version is nowhere.

    ``look`` is what is at its source now; ``superseded`` says that a newer delivery of the same
    source is recorded.
    """
    if superseded:
        reason = REPLACED
    elif look.seen is Seen.OTHER:
        reason = "replaced by something that is not a file"
    else:
        reason = "gone before it could be moved"
    return Terminal(State.VANISHED, reason)
