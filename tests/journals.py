"""What a journal holds, read as the commands read it: from outside, while it is in use."""

from __future__ import annotations

import os
from collections.abc import Mapping

from watchman.journal import Journal
from watchman.journal.history import Record, failed
from watchman.journal.reading import reading
from watchman.model import State


def counts(journal: Journal) -> Mapping[tuple[str, State], tuple[int, int]]:
    """Return for each (broker, state) the number of deliveries and the oldest's arrival."""
    with reading(os.path.dirname(journal.path)) as found:
        return found.counts()


def failures(journal: Journal) -> list[Record]:
    """Return the deliveries that have failed."""
    with reading(os.path.dirname(journal.path)) as found:
        return failed(found)
