"""Files that are to be asked about, in the order in which they were found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from watchman.pipeline.pending_events import Key
from watchman.verdicts.pool import Functions


class QuestionQueue:
    """A queue for each function of the user's, since one that hangs takes no more questions.

    So what waits for a function is passed over as a whole, however many files that are. A file is
    in it once, however often it was found.
    """

    def __init__(self) -> None:
        self._queues: dict[Functions, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, key: Key, functions: Functions) -> None:
        """Add a file, for which these functions are to be called; mostly none."""
        self._queues.setdefault(functions, OrderedDict())[key] = None

    def drop(self, key: Key, functions: Functions) -> None:
        """Take a file out; it need not be there."""
        queue = self._queues.get(functions)
        if queue is not None:
            queue.pop(key, None)

    def ask(self, ask: Callable[[Key], bool]) -> None:
        """Have ``ask`` take files; those stay for which it returns False, and those behind them."""
        for queue in list(self._queues.values()):
            while queue:
                # Taken out first: to ask may put it in again, behind the others.
                key, _ = queue.popitem(last=False)
                if not ask(key):
                    queue[key] = None
                    queue.move_to_end(key, last=False)
                    break
