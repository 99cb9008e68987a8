"""What a check is asked, and what it answers: plain values, as they go to another process."""

from __future__ import annotations

import enum
import marshal
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What is told of a file."""

    WHOLE = 0
    PARTIAL = 1
    """It is not all there, or not what somebody says it is."""
    UNKNOWN = 2
    """Nothing can be said: the check failed, or took too long."""


class FileVerdict(NamedTuple):
    """The answer to a question."""

    kind: Kind
    reason: str = ""
    """Why it is not whole, as it is shown to people; empty where it is."""
    checksum: str = ""
    """A sum that was verified, as ``sha256:…``."""


WHOLE = FileVerdict(Kind.WHOLE)


class CriterionCheck(NamedTuple):
    """One condition, as it is checked in the other process."""

    kind: str
    """``format``, ``checksum``, ``size`` or ``callable``."""
    argument: str
    """The format; the companion's name; what the callable is registered as."""
    companion: int = -1
    """Which of the descriptors that were passed is the companion's; -1 for none."""


class CheckRequest(NamedTuple):
    """A file, and all that it must be."""

    number: int
    path: str
    asked: tuple[CriterionCheck, ...]

    def encode(self) -> bytes:
        """Return it as it is sent."""
        asked = [tuple(one) for one in self.asked]
        return marshal.dumps((self.number, self.path, asked))

    @classmethod
    def decode(cls, data: bytes) -> CheckRequest:
        """Return what was sent."""
        number, path, asked = marshal.loads(data)  # noqa: S302 — from a process of ours
        return cls(number, path, tuple(CriterionCheck(*one) for one in asked))


_LONGEST = 2000
"""Characters of a reason that are kept."""


def encode_answer(number: int, verdict: FileVerdict) -> bytes:
    """Return a verdict as it is sent."""
    reason = verdict.reason[:_LONGEST].replace("\0", "")
    text = f"{number}\0{int(verdict.kind)}\0{verdict.checksum}\0{reason}"
    return text.encode("utf-8", "surrogateescape")


def decode_answer(data: bytes) -> tuple[int, FileVerdict]:
    """Return a question's number and its answer. Raises ValueError for what is none.

    Plain text: what sent it may have been taken over by what it has read, so that nothing of it
    is to be believed but the words.
    """
    number, kind, checksum, reason = data.decode("utf-8", "surrogateescape").split("\0", 3)
    return int(number), FileVerdict(Kind(int(kind)), reason, checksum)
