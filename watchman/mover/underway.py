"""Which deliveries are being copied: no two attempts at one task id at a time.

Both would use the same temporary names. The journal has one row of an identity under way, but a
copy that hangs in the kernel outlives its mover: after a reload the next mover finds the same row.
So this is known for the whole process, not for a mover.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable, Iterator

from watchman.model import Delivery

_lock = threading.Lock()
_task_ids: set[str] = set()


class UnderWayError(OSError):
    """Another attempt at the same delivery has not ended yet."""

    def __init__(self, row: Delivery) -> None:
        super().__init__(
            errno.EALREADY, "an earlier attempt at it has not come back from the kernel", row.source
        )


def claim(row: Delivery) -> None:
    """Begin an attempt. Raises UnderWayError; who gets the claim must release it."""
    with _lock:
        if row.task_id in _task_ids:
            raise UnderWayError(row)
        _task_ids.add(row.task_id)


def release(row: Delivery) -> None:
    """End an attempt; what it has left may be used or removed by others from now on."""
    with _lock:
        _task_ids.discard(row.task_id)


def refuse(row: Delivery) -> None:
    """Raise UnderWayError while there is an attempt."""
    if row.task_id in _task_ids:
        raise UnderWayError(row)


def any_of(rows: Iterable[Delivery]) -> bool:
    """Say whether there is an attempt at one of them."""
    return bool(_task_ids) and any(row.task_id in _task_ids for row in rows)


@contextlib.contextmanager
def claimed(row: Delivery) -> Iterator[None]:
    """Hold a claim. Raises UnderWayError."""
    claim(row)
    try:
        yield
    finally:
        release(row)
