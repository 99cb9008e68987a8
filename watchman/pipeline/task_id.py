"""The task ids of arrivals: the same for one arrival, and never twice for two."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from watchman import mounts
from watchman.identity import Evidence
from watchman.model import Version
from watchman.text import PATHS

NAMESPACE = bytes.fromhex("5f0a4b0e7d6c5d5f9a3c2f1e8b7d6a54")

_SHA1 = hashlib.sha1(NAMESPACE, usedforsecurity=False)
_NUMBERS = struct.Struct(">6q").pack
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_OF_SETS = Version(0, 0, 0, 0)
# Plain integers: members of an enum are compared several times slower.
_CAME, _PROVEN = int(Evidence.CAME), int(Evidence.WRITTEN)
_OLD_NS = 2_000_000_000
"""A file whose ctime is so much older than the directory that came with it was here before,
perhaps: under an id that may have been sent. So may one be from the future, by a clock that was set
back."""
_RECENT = 4000
"""Ids remembered at least, for the moment in which two files can have one ctime: a tick of the
clock, in which no kernel makes so many files."""


def task_id(source: str, version: Version, salt: int = 0) -> str:
    """Return the uuid5 (RFC 9562) of a source path, a version, and a number that makes it unique.

    The same as ``str(uuid.uuid5(namespace, name))``, several times faster.
    """
    sha1 = _SHA1.copy()
    sha1.update(source.encode(*PATHS) + _NUMBERS(*version, salt))
    d = sha1.hexdigest()
    return f"{d[:8]}-{d[8:12]}-5{d[13:16]}-{_VARIANT[d[16]]}{d[17:20]}-{d[20:32]}"


def set_id(of_files: Iterable[str]) -> str:
    """Return the id of the task of a set: the uuid5 of the ids that its files would have alone."""
    return task_id("\n".join(of_files), _OF_SETS)


class TaskIds:
    """Gives the ids of new arrivals.

    An id is made of the path and the version, so that a file that is found again after the journal
    was damaged has the id it had. Where that could be the id of another arrival, the time of the
    arrival is put in.
    """

    def __init__(self) -> None:
        self._recent: set[str] = set()
        self._before: set[str] = set()

    def choose(
        self, source: str, version: Version, evidence: Evidence, now_ns: int
    ) -> tuple[str, str]:
        """Return the id of an arrival, and the id under which it may be under way already.

        The second is empty where an event proves that this is another arrival.
        """
        plain = chosen = task_id(source, version)
        proven = evidence >= _PROVEN
        stability = mounts.stability(version.device)
        if (
            not (stability.inodes_last and stability.ctime_tells)
            or (evidence >= _CAME and (plain in self._recent or plain in self._before))
            or (evidence == _CAME and not now_ns - _OLD_NS <= version.changed_ns <= now_ns)
        ):
            chosen = task_id(source, version, now_ns)
        if len(self._recent) >= _RECENT:
            self._recent, self._before = set(), self._recent
        self._recent.add(chosen)
        return chosen, "" if proven else plain
