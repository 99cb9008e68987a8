"""Files that are to be asked about, in the order in which they were found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from watchman.pipeline.pending_events import Key
from watchman.verdicts.pool import Lane

SOME = 1000
"""Files of a lane that are asked about in a turn, answers that are taken, and files given up."""


class QuestionQueue:
    """A queue for each lane of the pool's, as a function that hangs takes no more questions.

    So what waits for a lane is passed over as a whole, however many files that are. A file is
    in it once, however often it was found.
    """

    def __init__(self) -> None:
        self._queues: dict[Lane, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, key: Key, lane: Lane) -> None:
        """Add a file."""
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = OrderedDict()
        queue[key] = None

    def drop(self, key: Key, lane: Lane) -> None:
        """Take a file out; it need not be there."""
        queue = self._queues.get(lane)
        if queue is not None:
            queue.pop(key, None)

    def ask(self, ask: Callable[[Key], Lane | None], most: int) -> bool:
        """Have ``ask`` take up to ``most`` files of each lane; return whether it may take more.

        It returns None, or the lane in which there is no room for one. That stays, and those behind
        it. Where the lane is another one than it was put in (it is large; of a set each file is
        asked about by itself), it goes there, and holds up no others.
        """
        is_more = False
        for lane, queue in list(self._queues.items()):
            for _ in range(most):
                if not queue:
                    break
                # Taken out first: to ask may put it in again, behind the others.
                key, _ = queue.popitem(last=False)
                full = ask(key)
                if full == lane:
                    queue[key] = None
                    queue.move_to_end(key, last=False)
                    break
                if full is not None:
                    self.put(key, full)
            else:
                is_more |= bool(queue)
        return is_more
