"""What the journal's table ``partial`` remembers of a loop's files, also of those of before."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence

from watchman.journal import Journal
from watchman.journal.partial import PartialFile
from watchman.model import Watch
from watchman.pipeline.pending_events import Key
from watchman.pipeline.waiting_file import WaitingFile
from watchman.sources.source import Source


class PartialMemory:
    """The rows that are about the files of one loop. Used from its thread."""

    def __init__(self, journal: Journal, source: Source) -> None:
        self._journal = journal
        self._source = source
        self._before: dict[str, PartialFile] = {}
        """Of the time before this process: by path, until the file is found again."""
        self._stored: set[str] = set()
        """Paths in the table."""

    def load(self, watch: Watch) -> None:
        """Read what an earlier process has left of a watch; before its first scan."""
        for one in self._journal.partial.below(watch.path):
            self._before[one.path] = one
            self._stored.add(one.path)

    def __bool__(self) -> bool:
        """Whether anything is left of the time before this process."""
        return bool(self._before)

    def before(self, path: str) -> PartialFile | None:
        """Return why a file waited when the process before this one ended; None if it did not."""
        return self._before.get(path)

    def take(self, path: str) -> PartialFile | None:
        """Return the same, of a file that is found again."""
        return self._before.pop(path, None)

    def note(self, waiting: Sequence[WaitingFile]) -> None:
        """Take note of what waits."""
        rows = [
            PartialFile(one.found.path, one.found.version, one.since_ns, one.reason)
            for one in waiting
        ]
        self._journal.partial.note(rows)
        self._stored.update(row.path for row in rows)

    def forget(self, paths: Iterable[str]) -> None:
        """Drop the rows of these; not all need to have one."""
        stored = self._stored.intersection(paths)
        if stored:
            self._stored -= stored
            self._journal.partial.forget(stored)

    def forget_missing(self, unsettled: Iterable[Container[Key]]) -> None:
        """Drop what was not found again, nor is among the ``unsettled``: a scan is over."""
        gone = []
        for path in self._before:
            key = self._source.find(os.path.dirname(path)), os.path.basename(path)
            if any(key in files for files in unsettled):
                continue
            watch_is_there = any(
                path.startswith(root.watch.prefix) and root.identity is not None
                for root in self._source.roots
            )
            if watch_is_there:
                gone.append(path)
        for path in gone:
            del self._before[path]
        self.forget(gone)
