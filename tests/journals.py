"""What a journal holds, read as the commands read it: from outside, while it is in use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from watchman.journal import Journal, answers, failed_deliveries
from watchman.journal.failed_deliveries import Record, Selection, failed
from watchman.journal.journal_reader import JournalReader, open_reader
from watchman.journal.question import Question
from watchman.model import State


def counts(journal: Journal) -> Mapping[tuple[str, State], tuple[int, int]]:
    """Return for each (broker, state) the number of deliveries and the oldest's arrival."""
    with open_reader(os.path.dirname(journal.path)) as found:
        return found.counts()


def failures(journal: Journal) -> list[Record]:
    """Return the deliveries that have failed."""
    with open_reader(os.path.dirname(journal.path)) as found:
        return list(failed(found))


def history(journal: JournalReader, paths: Sequence[str], limit: int) -> list[Record]:
    """Return what became of files, the newest first, ``limit`` at the most; none named: of all."""
    return answers.ask(journal, Question(tuple(paths)), limit).records


def retry(
    state_dir: object, selection: Selection, is_moved: Callable[[Record], bool] = lambda _: False
) -> list[Record]:
    """Put failed deliveries back on their way; return them in their new state."""
    with failed_deliveries.retry(str(state_dir), selection, is_moved) as changes:
        return list(changes.changed)


def discard(state_dir: object, selection: Selection, by: str) -> list[Record]:
    """Give failed deliveries up; return them in their new state."""
    with failed_deliveries.discard(str(state_dir), selection, by) as changes:
        return list(changes.changed)
