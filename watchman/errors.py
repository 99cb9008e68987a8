"""The errors that watchman raises on purpose.

Each message is one line that a person can act on: what, where, why, what to do. ``cli`` is the
only place where one of them becomes an exit status.
"""

from __future__ import annotations

from collections.abc import Sequence

EX_CONFIG = 78
"""Exit status of a bad configuration (sysexits.h)."""


class WatchmanError(Exception):
    """Anything that ends a command with a message instead of a traceback."""

    exit_status = 1


class ConfigError(WatchmanError):
    """The configuration cannot be used. ``problems`` holds one line for each mistake."""

    exit_status = EX_CONFIG

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class JournalError(WatchmanError):
    """The journal cannot be opened or written."""


class JournalDamaged(JournalError):  # noqa: N818 — a state, not a mistake
    """The journal that is open answers as a sound one never does: close it and open it again."""


class TimeLimitOver(JournalError):  # noqa: N818 — a state, not a mistake
    """The answer to a question takes longer than it may."""


class AlreadyRunning(WatchmanError):  # noqa: N818 — a state, not a mistake
    """Another daemon holds the state directory."""


class NotRunning(WatchmanError):  # noqa: N818 — a state, not a mistake
    """There is no daemon to talk to."""


class SourceError(WatchmanError):
    """A watch cannot be set up at all (no inotify instance left, for example)."""
