"""Which delivery a file at the destination belongs to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from watchman.model import Delivery

_RECENT = 5000
"""Final paths remembered at least; rewritten files are found out within a batch or two."""


class Finals:
    """The final paths of what was moved to one destination of late. For several threads.

    A file may be rewritten between its record and its rename: then it goes with the first delivery,
    in its newer version, and the delivery of that version finds its very file at its final path. It
    must not take it for its own, moved before a crash: two tasks would be sent for one file. Nor
    must the first, where the file was made anew with the same size and time.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[list[str], list[int]]] = deque()
        """Final paths and seqs; the youngest last."""
        self._count = 0
        self._owners: dict[str, int] | None = None
        """The same, by path, where somebody has asked since the last batch."""
        self._lock = threading.Lock()

    def add(self, rows: Sequence[Delivery]) -> None:
        """Remember rows that have been moved."""
        if not rows:
            return
        with self._lock:
            self._batches.append(([row.final for row in rows], [row.seq for row in rows]))
            self._count += len(rows)
            self._owners = None
            while self._count - len(self._batches[0][0]) >= _RECENT:
                self._count -= len(self._batches.popleft()[0])

    def is_anothers(self, row: Delivery) -> bool:
        """Say whether what is at the row's final path was moved there by another row."""
        with self._lock:
            if self._owners is None:
                self._owners = {}
                for finals, seqs in self._batches:
                    self._owners.update(zip(finals, seqs, strict=True))
            owner = self._owners.get(row.final)
        return owner is not None and owner != row.seq


_finals: dict[str, Finals] = {}
_finals_lock = threading.Lock()


def finals_of(root: str) -> Finals:
    """Return what was moved to the destination ``root``, by the movers before a reload too.

    To the next mover each row that it finds may have been moved and not noted, as after a crash.
    """
    with _finals_lock:
        return _finals.setdefault(root, Finals())


def forget_finals(root: str) -> None:
    """Begin anew for ``root``, where a mover may have moved what it could not tell.

    Its file would be taken for an earlier one of that name, which somebody has fetched since, and
    would have no task.
    """
    with _finals_lock:
        _finals.pop(root, None)
