"""The files of the archive: ``STATE_DIR/history/``, each a segment of finished deliveries.

A segment has its name when it is whole and on disk, and is never changed again. Its name tells the
least and the greatest seq in it. Numbers that are in the archive are not given out again, even
where the journal was begun anew. Anything else there is a half-made segment, which whoever seals
next removes.

Measured, with paths of 62 characters and segments of 200,000 deliveries:

==========================================================  ========================================
bytes a delivery: in the journal, archived, with MOVES      220, 115, 128
CPU to seal one, in the other process, at 82 MB             23 µs
CPU of the daemon to delete 250                             1.3 ms
260,000 that ended: sealed, 200,000 deleted, nothing else   after 18 s, 42 s, at 42 MB
to be done
10,000,000 in 50 segments, a busy machine: a path, name,    0.01 to 0.1 s, 19 MB, besides 0.1 s to
directory, day, state, task, id                             start Python
a pattern in a directory with 100,000 files, nothing else   0.3 s; 4 s with nothing in the page
of which is known                                           cache
a pattern that tells neither directory nor extension and    1.2 s of CPU: SQLite looks at each name
matches nothing (``*2025*``), by 2,000,000
one that only brackets or ``?`` tell from most names        40 s of CPU: Python looks at each row
(``*[xyz].csv``), by 2,000,000
==========================================================  ========================================
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

DIRECTORY = "history"
_NAME = re.compile(r"(\d{19})-(\d{19})(?:-(\d+))?\.db")
DRAFT = re.compile(r"draft-.*|.*-draft(-journal)?")
"""What a sealing that was cut short may leave."""


class SegmentFile(NamedTuple):
    """A segment's file. Sorted, they are in the order of their greatest seqs."""

    last: int
    first: int
    number: int
    """More than 0 where another one has the same numbers in it."""
    path: str


def directory_of(state_dir: str) -> str:
    """Return the directory of the archive."""
    return os.path.join(state_dir, DIRECTORY)


def name_of(first: int, last: int, number: int = 0) -> str:
    """Return a segment's name."""
    return f"{first:019d}-{last:019d}{f'-{number}' if number else ''}.db"


def files(state_dir: str) -> list[SegmentFile]:
    """Return the segments, the newest first. Raises OSError."""
    directory = directory_of(state_dir)
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = filter(None, map(_NAME.fullmatch, names))
    found = (
        SegmentFile(
            int(match[2]), int(match[1]), int(match[3] or 0), os.path.join(directory, match[0])
        )
        for match in matches
    )
    return sorted(found, reverse=True)


def last_seq(state_dir: str) -> int:
    """Return the greatest seq in the archive; 0 if there is none. Raises OSError."""
    return max((file.last for file in files(state_dir)), default=0)


def unreadable(file: SegmentFile, error: Exception) -> str:
    """Return what is to be said of a segment that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
    return (
        f"the part {file.path} of the history cannot be read: {reason}; deliveries {file.first} "
        f"to {file.last} that ended are missing in what is shown. Put a copy of it back, or remove "
        "it: only the history needs it"
    )


def sync(directory: str) -> None:
    """Have the names in a directory on disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
