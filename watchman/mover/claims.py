"""Which delivery a file belongs to, where several attempts or deliveries could take it.

All of it is known for the whole process and not for one mover: a copy that hangs in the kernel
outlives its mover, and after a reload the next mover finds the same rows in the journal.

A claim is held by each attempt that copies. No two attempts have the same task id: both would use
the same temporary names. Nor do two have the same source: both would copy what was rewritten after
the first was recorded, and one upload would be at the destination twice, with a task for each.

:class:`FinalPaths` tells which delivery a file at the destination is of.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from watchman.model import Delivery
from watchman.mover.outcomes import SourceChanged

_RECENT = 5000
"""Final paths remembered at least; rewritten files are found out within a batch or two."""

# Changed under the lock. The destination's thread looks without it: where it misses a claim by a
# moment, the copy finds its source gone.
_lock = threading.Lock()
_task_ids: set[str] = set()
_sources: set[str] = set()


class ClaimedError(OSError):
    """Another attempt at the same delivery has not ended yet."""

    def __init__(self, row: Delivery) -> None:
        super().__init__(
            errno.EALREADY, "an earlier attempt at it has not come back from the kernel", row.source
        )


def claim(row: Delivery) -> None:
    """Claim a delivery and its source for a copy, until :func:`release`.

    Raises ClaimedError; SourceChanged where another delivery of the same source is being copied:
    what becomes of the source shows when that is done.
    """
    with _lock:
        if row.task_id in _task_ids:
            raise ClaimedError(row)
        if row.source in _sources:
            raise SourceChanged
        _task_ids.add(row.task_id)
        _sources.add(row.source)


def release(row: Delivery) -> None:
    """Give a claim back: others may use or remove what the attempt has left."""
    with _lock:
        _task_ids.discard(row.task_id)
        _sources.discard(row.source)


def refuse(row: Delivery) -> None:
    """Raise what :func:`claim` would raise."""
    if row.task_id in _task_ids:
        raise ClaimedError(row)
    if row.source in _sources:
        raise SourceChanged


def is_copied_by_another(row: Delivery) -> bool:
    """Say whether another delivery of the row's source is being copied."""
    return row.source in _sources and row.task_id not in _task_ids


def any_of(rows: Iterable[Delivery]) -> bool:
    """Say whether one of the rows or one of their sources is claimed."""
    return bool(_sources) and any(
        row.task_id in _task_ids or row.source in _sources for row in rows
    )


@contextlib.contextmanager
def claimed(row: Delivery) -> Iterator[None]:
    """Claim a delivery, without its source, while what its attempts have left is removed.

    Raises ClaimedError.
    """
    with _lock:
        if row.task_id in _task_ids:
            raise ClaimedError(row)
        _task_ids.add(row.task_id)
    try:
        yield
    finally:
        with _lock:
            _task_ids.discard(row.task_id)


class FinalPaths:
    """The final paths of what was moved to one destination of late. For several threads.

    A file may be rewritten between its record and its rename. Then its newer version goes with the
    first delivery, and the second, which was recorded for that version, finds it at its own final
    path. It must not take the file for its own, moved before a crash: two tasks would be sent for
    one file. The same holds for the first delivery, where the file was made anew with the same size
    and time and went with the second.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[list[str], list[int]]] = deque()
        """The final paths and seqs of each batch, the youngest last."""
        self._count = 0
        self._owners: dict[str, int] | None = None
        """Seqs by final path, made of the batches when somebody asks: hardly ever."""
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


_by_root: dict[str, FinalPaths] = {}
_by_root_lock = threading.Lock()


def final_paths(root: str) -> FinalPaths:
    """Return what was moved to the destination ``root``, also by the movers before a reload.

    For a mover each row that it finds at its start may have been moved and not noted.
    """
    with _by_root_lock:
        return _by_root.setdefault(root, FinalPaths())


def forget_final_paths(root: str) -> None:
    """Forget all for ``root``, where a mover hangs or died and may have moved more than it told.

    What it moved last would be taken for another delivery's, moved there before under the same name
    and fetched since, and would have no task.
    """
    with _by_root_lock:
        _by_root.pop(root, None)
