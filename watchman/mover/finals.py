"""Which delivery a file at the destination belongs to."""

from __future__ import annotations

from collections.abc import Iterable

from watchman.model import Delivery

_RECENT = 20_000
"""Final paths remembered at least; rewritten files are found out within a batch or two."""


class Finals:
    """The final paths of what a lane has moved of late.

    A file may be rewritten between its record and its rename: then it goes with the first delivery,
    in its newer version, and the delivery of that version finds its very file at its final path. It
    must not take it for its own, moved before a crash: two tasks would be sent for one file.
    """

    def __init__(self) -> None:
        self._recent: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def add(self, rows: Iterable[Delivery]) -> None:
        """Remember rows that have been moved."""
        self._recent.update((row.final, row.seq) for row in rows)
        if len(self._recent) >= _RECENT:
            self._recent, self._before = {}, self._recent

    def is_anothers(self, row: Delivery) -> bool:
        """Say whether what is at the row's final path was moved there by another row."""
        owner = self._recent.get(row.final) or self._before.get(row.final)
        return owner is not None and owner != row.seq
