"""PDF, PNG and JPEG."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from watchman.verdicts.open_file import PIECE, NotWhole, OpenFile

_LINEARIZED = re.compile(rb"/Linearized\b[^>]*?/L\s+(\d+)")
_WHERE = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*\Z")
_TABLE = re.compile(rb"\s*(xref|\d+\s+\d+\s+obj)")
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG's markers without a length."""


def pdf(file: OpenFile) -> None:
    """Look for the last line, and for the table that the one before it points to."""
    first = _LINEARIZED.search(file.up_to(0, 1024))
    if first:
        # It has such a last line near its beginning, too.
        file.reaches(int(first[1]), "its PDF header")
    tail = file.tail(1024)
    end = tail.rfind(b"%%EOF") + 5
    found = _WHERE.search(tail[:end])
    if not found or _TABLE.match(tail[end:]):  # a later revision begins behind the end of one
        raise NotWhole("its last lines are not the end of a PDF")
    place, begin = int(found[1]), file.up_to(0, 1024).find(b"%PDF-")
    # What was put in front of it, as by a mail program, shifts its contents or not.
    if place and not any(_TABLE.match(file.up_to(at, 40)) for at in {place, place + begin}):
        raise NotWhole("its PDF table of contents is not where its end says")


def png_by_end(file: OpenFile) -> None:
    """Look for the last chunk; where something follows it, go from chunk to chunk."""
    if file.tail(12) != _IEND:
        for _ in _chunks(file):
            pass


def png(file: OpenFile) -> None:
    """Go from chunk to chunk; their checksums must be right."""
    for offset, length in _chunks(file):
        crc = 0
        for piece in file.pieces(offset + 4, offset + 8 + length):
            crc = zlib.crc32(piece, crc)
        if file.numbers(">I", offset + 8 + length) != (crc,):
            raise NotWhole(f"the PNG chunk at byte {offset} is damaged")


def _chunks(file: OpenFile) -> Iterator[tuple[int, int]]:
    """Yield (offset, length of the contents) of each chunk up to the last."""
    offset = 8
    while True:
        length, name = file.numbers(">II", offset)
        file.reaches(offset + 12 + length, "its PNG chunk")
        yield offset, length
        offset += 12 + length
        if name == int.from_bytes(b"IEND", "big"):
            return


def jpeg(file: OpenFile) -> None:
    """Go through the segments to the picture; it must end with the marker for that.

    Another picture inside a segment, such as a small preview, has an end of its own.
    """
    offset = _first_scan(file)
    if offset < file.size and file.tail(64).rstrip(b"\0\r\n ").endswith(b"\xff\xd9"):
        return
    while True:  # something may follow the picture
        marker, offset = _next_marker(file, offset)
        if marker == 0xD9:
            return
        if marker not in _ALONE:
            (length,) = file.numbers(">H", offset)
            offset += length


def _first_scan(file: OpenFile) -> int:
    """Return where the first scan's data begin."""
    offset = 2
    while True:
        marker, offset = _next_marker(file, offset)
        if marker in _ALONE:
            continue
        if marker == 0xD9:
            raise NotWhole("its JPEG has no picture")
        (length,) = file.numbers(">H", offset)
        offset += length
        file.reaches(offset, "its JPEG segment")
        if marker == 0xDA:
            return offset


def _next_marker(file: OpenFile, offset: int) -> tuple[int, int]:
    """Return the next marker from ``offset`` on, and where it ends."""
    length = 256  # mostly it is near, and there may be a million of them
    while offset < file.size:
        piece = file.up_to(offset, length)
        length = PIECE
        for found in re.finditer(rb"\xff([^\x00\xff])", piece):
            return found[1][0], offset + found.end()
        offset += max(1, len(piece) - 1)
        if offset >= file.size - 1:
            break
    raise NotWhole("there is no end of a JPEG in it")
