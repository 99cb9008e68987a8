"""What is shown of the mover: how it stands with each MOVES entry."""

from __future__ import annotations

from typing import NamedTuple

from watchman.mover.lane import Lane
from watchman.mover.trouble import WHOLE, Trouble

NAMED = 20
"""Troubles of single directories and files that the status names."""


class CopyStatus(NamedTuple):
    """A copy to another file system, in progress. Sizes in bytes."""

    source: str
    final: str
    done: int
    total: int


class MoveStatus(NamedTuple):
    """How it stands with one MOVES entry."""

    source: str
    root: str
    waiting: int
    """Rows in hand; more may wait in the journal."""
    stuck_since_ns: int | None
    """When moving to this root stopped altogether; None while it goes on."""
    reason: str
    """Why it is stuck; empty while it is not."""
    troubles: tuple[tuple[int, str], ...]
    """(since_ns, what and where) for what holds up single directories or files."""
    copies: tuple[CopyStatus, ...]


def _named(troubles: list[Trouble]) -> tuple[tuple[int, str], ...]:
    """Return what is shown of single directories and files: the first, and how many more."""
    shown = [(trouble.since_ns, trouble.reason) for trouble in troubles[:NAMED]]
    more = troubles[NAMED:]
    if more:
        shown.append((more[0].since_ns, f"and {len(more)} more such troubles"))
    return tuple(shown)


def status_of_lane(lane: Lane) -> MoveStatus:
    """Say what one lane is doing, and what stands in its way."""
    troubles = dict(lane.troubles.active)
    whole = troubles.pop(WHOLE, None)
    return MoveStatus(
        lane.source,
        lane.root,
        lane.waiting(),
        whole.since_ns if whole else None,
        whole.reason if whole else "",
        _named(list(troubles.values())),
        tuple(
            CopyStatus(copy.source, copy.final, copy.done, copy.total)
            for copy in lane.copiers.running()
        ),
    )
