"""Which deliveries are being copied: no two attempts at one task id or one source at a time.

At one task id, both would use the same temporary names. The journal has one row of an identity
under way, but a copy that hangs in the kernel outlives its mover: after a reload the next mover
finds the same row. So this is known for the whole process, not for a mover.

At one source, both would copy what was rewritten after the first was recorded: one upload would be
at the destination twice, with a task for each.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable, Iterator

from watchman.model import Delivery
from watchman.mover.outcome import Odd

_lock = threading.Lock()
_task_ids: set[str] = set()
_sources: set[str] = set()


class UnderWayError(OSError):
    """Another attempt at the same delivery has not ended yet."""

    def __init__(self, row: Delivery) -> None:
        super().__init__(
            errno.EALREADY, "an earlier attempt at it has not come back from the kernel", row.source
        )


def claim(row: Delivery) -> None:
    """Begin an attempt at moving; who gets the claim must release it.

    Raises UnderWayError; Odd where another delivery of the same source is being copied: what
    becomes of the source is to be found out when that is done.
    """
    with _lock:
        if row.task_id in _task_ids:
            raise UnderWayError(row)
        if row.source in _sources:
            raise Odd
        _task_ids.add(row.task_id)
        _sources.add(row.source)


def release(row: Delivery) -> None:
    """End an attempt; what it has left may be used or removed by others from now on."""
    with _lock:
        _task_ids.discard(row.task_id)
        _sources.discard(row.source)


def refuse(row: Delivery) -> None:
    """Raise what :func:`claim` would."""
    if row.task_id in _task_ids:
        raise UnderWayError(row)
    if row.source in _sources:
        raise Odd


def is_copied_by_another(row: Delivery) -> bool:
    """Say whether an attempt at another delivery of the row's source is in flight."""
    return row.source in _sources and row.task_id not in _task_ids


def any_of(rows: Iterable[Delivery]) -> bool:
    """Say whether there is an attempt at one of them, or at one of their sources."""
    return bool(_sources) and any(
        row.task_id in _task_ids or row.source in _sources for row in rows
    )


@contextlib.contextmanager
def claimed(row: Delivery) -> Iterator[None]:
    """Hold the claim of what an attempt has left, whatever is done with the source.

    Raises UnderWayError.
    """
    with _lock:
        if row.task_id in _task_ids:
            raise UnderWayError(row)
        _task_ids.add(row.task_id)
    try:
        yield
    finally:
        with _lock:
            _task_ids.discard(row.task_id)
