"""Deliveries that one task announces together: one message, and one answer for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from watchman.model import Bundle, BundleKind, Delivery, Message, Outcome
from watchman.sender.messages import UploadStore, messages_for
from watchman.sender.precheck import Prechecked
from watchman.text import part_is_gone


class Tasks:
    """The tasks for deliveries, where some may be announced together."""

    def __init__(self, deliveries: list[Delivery], bundles: Mapping[int, Bundle]) -> None:
        self._deliveries = deliveries
        self.first = deliveries
        """For each task its first delivery, the one whose path is the task's argument."""
        self._files: dict[int, list[str]] = {}
        if bundles:
            self.first = []
            for delivery in deliveries:
                files = self._files.setdefault(delivery.bundle, []) if delivery.bundle else None
                if not files:
                    self.first.append(delivery)
                if files is not None:
                    files.append(delivery.final)

    def messages(self, uploads: UploadStore | None) -> list[Message]:
        """Return a message for each task."""
        messages = messages_for(self.first, uploads)
        if not self._files:
            return messages
        return [
            message._replace(files=tuple(self._files[first.bundle])) if first.bundle else message
            for first, message in zip(self.first, messages, strict=True)
        ]

    def for_each(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return for each delivery what became of its task."""
        if not self._files:
            return outcomes
        pairs = list(zip(self.first, outcomes, strict=True))
        of_bundle = {first.bundle: outcome for first, outcome in pairs if first.bundle}
        of_file = {first.seq: outcome for first, outcome in pairs}
        return [of_bundle[d.bundle] if d.bundle else of_file[d.seq] for d in self._deliveries]


class Kept(NamedTuple):
    """A batch that could be sent, but for some of its files."""

    kept_by: list[int]
    """The seqs of those."""
    seqs: frozenset[int]
    """Of all of it."""

    def to_leave(self, tried: set[int], inherited: int) -> list[int]:
        """Return which leave it, so that the others are sent; none where a task may be out.

        ``tried`` are seqs for which this process has tried to send a task; what was recorded up to
        ``inherited`` another one may have tried.
        """
        if tried & self.seqs or min(self.kept_by) <= inherited:
            return []
        return self.kept_by


class FoundBundles(NamedTuple):
    """What was found of deliveries, and what it means for the others of their bundles."""

    found: Prechecked
    kept: list[Kept]


def as_bundles(
    found: Prechecked, rows: Sequence[Delivery], bundles: Mapping[int, Bundle]
) -> FoundBundles:
    """Return what a look at deliveries means for bundles.

    A task is about all of its files: while one of them cannot be sent, the others wait. What has
    vanished is left out of a batch; a set vanishes with it, but for what was moved: of that the
    journal notes what becomes.
    """
    vanished = {delivery.seq: reason for delivery, reason in found.vanished}
    good = {delivery.seq for delivery in found.good}
    broken: dict[int, str] = {}
    waiting: list[Delivery] = []
    main_files: dict[int, int] = {}
    for row in rows:
        main_file = main_files.setdefault(row.bundle, row.seq)
        if row.bundle and row.seq in vanished:
            if bundles[row.bundle].kind is BundleKind.SET:
                is_main = row.seq == main_file
                why = part_is_gone(row.source, vanished[row.seq], is_main=is_main)
                broken.setdefault(row.bundle, why)
        elif row.bundle and row.seq not in good:
            waiting.append(row)
    if not (broken or waiting):
        return FoundBundles(found, [])
    wait = {row.bundle for row in waiting}
    kept = {row.bundle for row in found.good if row.bundle in wait - broken.keys()}
    gone = [
        (row, vanished.get(row.seq, broken[row.bundle]))
        for row in rows
        if row.bundle in broken and (row.seq in vanished or row.final == row.source)
    ]
    found = Prechecked(
        [row for row in found.good if row.bundle not in broken and row.bundle not in wait],
        [pair for pair in found.vanished if pair[0].bundle not in broken] + gone,
        [row for row in found.changed if row.bundle not in broken],
        found.obstacle,
    )
    batches = [number for number in kept if bundles[number].kind is BundleKind.BATCH]
    return FoundBundles(found, [_kept(number, waiting, rows) for number in batches])


def _kept(bundle: int, waiting: Sequence[Delivery], rows: Sequence[Delivery]) -> Kept:
    by = [row.seq for row in waiting if row.bundle == bundle]
    return Kept(by, frozenset(row.seq for row in rows if row.bundle == bundle))
