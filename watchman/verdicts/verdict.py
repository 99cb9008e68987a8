"""What a check is asked, and what it answers: plain values, as they go to another process."""

from __future__ import annotations

import enum
import marshal
from collections.abc import Iterable
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
    descriptors: int
    """How many come with it: the file's, then those of companions."""
    seconds: int
    """Of processor time that it may take."""


def encode_requests(requests: Iterable[CheckRequest]) -> bytes:
    """Return what is sent in one message."""
    return marshal.dumps(
        [(one.number, one.path, list(map(tuple, one.asked)), *one[3:]) for one in requests]
    )


def decode_requests(data: bytes) -> list[CheckRequest]:
    """Return what came in one message."""
    return [
        CheckRequest(number, path, tuple(CriterionCheck(*one) for one in asked), *limits)
        for number, path, asked, *limits in marshal.loads(data)  # noqa: S302 — from us
    ]


_LONGEST = 2000
"""Characters of a reason that are kept."""
_WORDS = 4
"""Of an answer: number, kind, checksum, reason."""


def encode_answers(answers: Iterable[tuple[int, FileVerdict]]) -> bytes:
    """Return the answers to a message, question's number and verdict each, as they are sent."""
    words: list[str] = []
    for number, verdict in answers:
        reason = verdict.reason[:_LONGEST].replace("\0", "")
        words += str(number), str(int(verdict.kind)), verdict.checksum, reason
    return "\0".join(words).encode("utf-8", "surrogateescape")


def decode_answers(data: bytes) -> list[tuple[int, FileVerdict]]:
    """Return questions' numbers and their answers. Raises ValueError for what is none.

    Plain text: what sent it may have been taken over by what it has read, so that nothing of it
    is to be believed but the words.
    """
    words = data.decode("utf-8", "surrogateescape").split("\0")
    if len(words) % _WORDS:
        raise ValueError(f"invalid: {len(words)} words")
    each = zip(*(iter(words),) * _WORDS, strict=True)
    return [
        (int(number), FileVerdict(Kind(int(kind)), reason, checksum))
        for number, kind, checksum, reason in each
    ]
