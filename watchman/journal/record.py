"""A delivery, as it is reported."""

from __future__ import annotations

from typing import NamedTuple

from watchman.model import DISCARDED, State, Version


class Record(NamedTuple):
    """A delivery, as it is reported."""

    seq: int
    task_id: str
    source: str
    final: str
    """Equal to ``source`` where nothing is moved."""
    version: Version
    """Of one out of the archive only size and mtime."""
    arrived_ns: int
    broker: str | None
    task: str | None
    kind: str
    state: State
    noted_ns: int
    """When it came into this state."""
    reason: str

    @property
    def word(self) -> str:
        """The state as it is shown: what somebody gave up has not vanished."""
        if self.state is State.VANISHED and self.reason.startswith(DISCARDED):
            return DISCARDED.split()[0]
        return self.state.name.lower()
