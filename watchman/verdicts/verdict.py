"""What a check is asked, what it answers, and how long it may take: as two processes agree on it.

Questions and answers are plain values.
"""

from __future__ import annotations

import contextlib
import enum
import marshal
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from watchman.text import PATHS

LARGEST_QUESTION = 1 << 16
"""Bytes of a message, and of its answer: room for the paths and reasons of ``pool.TOGETHER``."""
SLOT = struct.Struct("q")
"""The number of the question that a process is at, 0 for none."""
CPU, CPU_PER_BYTE = 20, 1 / 2_000_000
"""Seconds of processor time that a file may take: so many, and one more for each 2 MB on disk."""
WALL = 15.0
"""How many times as long it may take where it has to wait, for a disk or for others."""


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
        [
            # As text, what is no UTF-8 would take three bytes each.
            (one.number, one.path.encode(*PATHS), list(map(tuple, one.asked)), *one[3:])
            for one in requests
        ]
    )


def decode_requests(data: bytes) -> list[CheckRequest]:
    """Return what came in one message."""
    return [
        CheckRequest(
            number, path.decode(*PATHS), tuple(CriterionCheck(*one) for one in asked), *limits
        )
        for number, path, asked, *limits in marshal.loads(data)  # noqa: S302 — from us
    ]


_LONGEST = 1000
"""Characters of a reason that are kept: those of all files in a message have room in its answer."""
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


def processor_time(descriptor: int) -> int:
    """Return how many seconds of processor time a file may take.

    It goes by what it has on disk: a hole of any size costs nobody anything to upload.
    """
    allocated = 0
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        allocated = min(status.st_size, status.st_blocks * 512)
        if not allocated:
            # Some file systems never tell; those do not tell of holes either.
            os.lseek(descriptor, 0, os.SEEK_DATA)
            allocated = status.st_size
    return CPU + int(allocated * CPU_PER_BYTE)
