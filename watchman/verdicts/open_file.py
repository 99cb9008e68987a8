"""A file as a check reads it: by position, never beyond its end, a piece at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

PIECE = 1 << 18
"""Bytes read at a time."""


class NotWhole(Exception):  # noqa: N818 — a verdict, not an error
    """The file is not whole; the text says what tells so."""


class CannotTell(Exception):  # noqa: N818 — a verdict, not an error
    """Nothing can be said about the file; the text says why."""


class OpenFile:
    """An open regular file, of the size that it has now. Raises OSError as read(2) does."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on. Raises NotWhole where the file is shorter."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise NotWhole(f"it ends at byte {self.size}, and goes on until {offset + length}")
        parts = []
        while length:
            part = os.pread(self.descriptor, min(length, PIECE), offset)
            if not part:
                raise NotWhole("it became shorter while it was read")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def up_to(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset`` on: fewer at the end."""
        return self.read(offset, max(0, min(length, self.size - offset)))

    def tail(self, length: int) -> bytes:
        """Return up to so many of the last bytes."""
        return self.up_to(max(0, self.size - length), length)

    def numbers(self, layout: str, offset: int) -> tuple[int, ...]:
        """Return what :mod:`struct` makes of the bytes from ``offset`` on."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))

    def pieces(self, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield all bytes from ``offset`` to ``end``, or to the file's end, in order."""
        end = self.size if end is None else end
        while offset < end:
            piece = self.read(offset, min(PIECE, end - offset))
            yield piece
            offset += len(piece)

    def reaches(self, end: int, what: str) -> None:
        """Raise NotWhole where the file is shorter than ``end`` bytes, as ``what`` says it is."""
        if self.size < end:
            raise NotWhole(f"it has {self.size} bytes, and {what} asks for {end}")
