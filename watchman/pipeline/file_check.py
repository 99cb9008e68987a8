"""What is asked of one file: what can be told by looking beside it, and what has to be read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from watchman.file_access import FILE_FLAGS, Seen, look, release, version_of
from watchman.model import Criteria, Criterion, Version
from watchman.pipeline.companions import is_companion, is_shared, name_for, size_by_name
from watchman.verdicts.verdict import CriterionCheck

THERE = (Seen.COMPLETE, Seen.UNTESTED)


class Companion(NamedTuple):
    """A file beside another, as it was when that one was judged."""

    name: str
    version: Version
    action: str
    """What becomes of it when its file is recorded: ``move``, ``remove`` or ``keep``."""


class FileCheck:
    """A check of the file called ``name``, which is of ``version``, in an open directory.

    A context manager: what it opens is closed at its end.
    """

    def __init__(self, name: str, version: Version, directory: int, criteria: Criteria) -> None:
        self.asked: list[CriterionCheck] = []
        """What has to be read in another process."""
        self.is_to_be_read = False
        """Whether anything of it can only be told by reading; since :meth:`look_beside`."""
        self.companions: list[Companion] = []
        self.awaited: list[str] = []
        """Companions that may bring an answer when they come."""
        self.descriptors: list[int] = []
        """The file's, then those of companions."""
        self._name = name
        self._version = version
        self._directory = directory
        self._criteria = criteria

    def __enter__(self) -> FileCheck:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self.descriptors:
            release(descriptor)

    def look_beside(self) -> str:
        """Return why the file need not be read: what is missing beside it; else an empty text.

        Raises OSError where that cannot be told now.
        """
        for one in self._criteria.each:
            if one.kind in ("format", "callable"):
                self.is_to_be_read = True
            elif one.kind == "size" and not is_companion(one):
                size = size_by_name(one.argument, self._name)
                if size is None:
                    return f"its name tells no size, as {one.argument} has it"
                if size != self._version.size:
                    return f"it has {self._version.size} bytes, and its name says {size}"
            elif is_companion(one):
                reason = self._look_at_companion(one)
                if reason:
                    return reason
                self.is_to_be_read |= one.kind != "marker"
        return ""

    def look_at_members(self) -> str:
        """Return which members of its set are not there; empty if all are that must be.

        Whether they are complete is for ``sets.py`` to say.
        """
        missing = []
        for member in self._criteria.members:
            name = name_for(member.template, self._name)
            if not member.optional and look(name, self._directory).version is None:
                missing.append(name)
        return are_missing(missing) if missing else ""

    def _look_at_companion(self, criterion: Criterion) -> str:
        name = name_for(criterion.argument, self._name)
        self.awaited.append(name)
        if name == self._name:
            return f"{name} would tell of itself"
        seen = look(name, self._directory)
        if seen.error:
            raise OSError(seen.error, f"{name} cannot be looked at now")
        if seen.version is None or seen.seen not in THERE:
            being_written = seen.seen is Seen.BUSY
            return f"{name} is {'being written' if being_written else 'not there'}"
        if criterion.kind == "marker" and _is_older(seen.version, self._version):
            return f"{name} is older than the file"
        # What is that of many files stays.
        action = "keep" if is_shared(criterion) else self._criteria.marker_action
        self.companions.append(Companion(name, seen.version, action))
        return ""

    def open(self) -> Version:
        """Open the file, and the companions that are to be read; return the file's version.

        Raises OSError; ELOOP for what is no file.
        """
        version = self._open(self._name)
        for one in self._criteria.each:
            if one.kind in ("checksum", "size") and is_companion(one):
                name = name_for(one.argument, self._name)
                self._open(name)
                self.asked.append(CriterionCheck(one.kind, name, len(self.descriptors) - 1))
            elif one.kind in ("format", "callable"):
                self.asked.append(CriterionCheck(one.kind, one.argument))
        return version

    def _open(self, name: str) -> Version:
        # First of all: to open a FIFO lets go who waits for its reader.
        status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ELOOP, "it is no regular file")
        self.descriptors.append(os.open(name, FILE_FLAGS, dir_fd=self._directory))
        return version_of(os.fstat(self.descriptors[-1]))


def are_missing(names: Sequence[str]) -> str:
    """Say that files are not there; at least one."""
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing"


def _is_older(marker: Version, file: Version) -> bool:
    """Say whether a marker is of an earlier upload; either of its times may be set by hand."""
    return marker.mtime_ns < file.mtime_ns and marker.changed_ns < file.changed_ns
