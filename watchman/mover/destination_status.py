"""What is being done for a MOVES entry, and what stands in its way, as it is shown."""

from __future__ import annotations

from typing import NamedTuple


class RunningCopy(NamedTuple):
    """A copy to another file system, in progress. Sizes in bytes."""

    source: str
    final: str
    done: int
    total: int
    seconds: float = 0.0
    """For how long it has been going on."""


class DestinationStatus(NamedTuple):
    """How it stands with one MOVES entry."""

    source: str
    root: str
    waiting: int
    """Rows in progress or in the backlog; more may wait in the journal."""
    stuck_since_ns: int | None
    """When moving to this root stopped altogether; None while it goes on."""
    reason: str
    """Why it is stuck; empty while it is not."""
    troubles: tuple[tuple[int, str], ...]
    """(since_ns, what and where) for what holds up single directories or files."""
    copies: tuple[RunningCopy, ...]
    moved: int = 0
    """How many deliveries have reached their final paths since the start."""
    moved_only: int = 0
    """How many of those have no task."""
