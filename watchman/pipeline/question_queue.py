"""Files that are to be asked about, in the order in which they were found."""

from __future__ import annotations

import collections
from collections.abc import Callable

from watchman.pipeline.pending_events import Key
from watchman.verdicts.pool import Functions


class QuestionQueue:
    """A queue for each function of the user's, since one that hangs takes no more questions.

    So what waits for a function is passed over as a whole, however many files that are.
    """

    def __init__(self) -> None:
        self._queues: dict[Functions, collections.deque[Key]] = {}

    def put(self, key: Key, functions: Functions) -> None:
        """Add a file, for which these functions are to be called; mostly none."""
        self._queues.setdefault(functions, collections.deque()).append(key)

    def ask(self, ask: Callable[[Key], bool]) -> None:
        """Have ``ask`` take files; those stay for which it returns False, and those behind them."""
        for queue in list(self._queues.values()):
            while queue and ask(queue[0]):
                queue.popleft()
