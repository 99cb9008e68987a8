"""gzip, bzip2, xz and zstd.

gzip says nothing at its end that could be told from other bytes, so it is always read as a whole.
The three others can be told by their ends or by their blocks' lengths.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

_OUTPUT = 1 << 20
"""Bytes that are decompressed at a time, whatever the file makes of them."""
_BZIP2_END = 0x177245385090
_BZIP2_ZEROS = 5
"""Bytes of a stream's end that may be zeros: of its checksum, and of what fills its last byte."""
_PADDING = 1 << 16
"""Bytes of zeros behind a stream of bzip2 that are left out, as of a block of a tape."""
_XZ_MAGIC = b"\xfd7zXZ\0"
_NOT_HERE = ("memory usage limit", "unsupported")
"""In what lzma says of a stream that asks for more memory, or a newer library, than there is."""
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPED = range(0x184D2A50, 0x184D2A60)


class _Decompressor(Protocol):
    """What zlib's, bz2's and lzma's have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


Member = TypeVar("Member", bound=_Decompressor)


def gzip(file: OpenFile) -> None:
    """Decompress all members; their checksums and sizes must be right."""

    def feed(member: zlib._Decompress, piece: bytes) -> None:
        while piece and not member.eof:
            member.decompress(piece, _OUTPUT)
            piece = member.unconsumed_tail

    # 16: with gzip's header and trailer, which zlib checks.
    _members(file, lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), feed, zlib.error, b"\x1f\x8b")


def bzip2_by_end(file: OpenFile) -> None:
    """Look for the end of a stream: 48 bits, a checksum of 32, and up to 7 bits of nothing.

    Zeros may follow, of which some may be of that end.
    """
    tail = file.tail(_PADDING)
    end = len(tail.rstrip(b"\0"))
    for at in range(end, min(end + _BZIP2_ZEROS, len(tail)) + 1):
        bits = int.from_bytes(tail[max(0, at - 11) : at], "big")
        if any(bits >> (32 + pad) & (1 << 48) - 1 == _BZIP2_END for pad in range(8)):
            return
    raise NotWhole("its last bytes are not the end of a bzip2 stream")


def bzip2(file: OpenFile) -> None:
    """Decompress all streams; their checksums must be right."""

    def feed(stream: bz2.BZ2Decompressor, piece: bytes) -> None:
        stream.decompress(piece, _OUTPUT)
        while not stream.needs_input and not stream.eof:
            stream.decompress(b"", _OUTPUT)

    _members(file, bz2.BZ2Decompressor, feed, OSError, b"BZh")


def xz_by_end(file: OpenFile) -> None:
    """Check the last stream's footer and index, which say how long the stream is."""
    end = file.size
    while end >= 12 and file.read(end - 4, 4) == b"\0\0\0\0":
        end -= 4  # padding between and behind streams
    if end < 32:
        raise NotWhole("it is too short for an xz stream")
    crc, backward = file.numbers("<II", end - 12)
    footer = file.read(end - 8, 8)
    if footer[6:] != b"YZ" or zlib.crc32(footer[:6]) != crc:
        raise NotWhole("its last bytes are not the footer of an xz stream")
    length = (backward + 1) * 4
    start = end - 12 - length
    if start < 12:
        raise NotWhole("the index of its last xz stream is longer than the file")
    if length > 1 << 26:
        return  # an index of millions of blocks: the footer is enough
    index = file.read(start, length)
    if index[0] or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise NotWhole("the index of its last xz stream is damaged")
    blocks = _xz_blocks(index)
    begin = start - blocks - 12
    if begin < 0 or file.read(begin, 6) != _XZ_MAGIC:
        raise NotWhole("its last xz stream does not begin where the index says")


def xz(file: OpenFile) -> None:
    """Decompress all streams; their checksums must be right."""

    def feed(stream: lzma.LZMADecompressor, piece: bytes) -> None:
        try:
            stream.decompress(piece, _OUTPUT)
            while not stream.needs_input and not stream.eof:
                stream.decompress(b"", _OUTPUT)
        except lzma.LZMAError as error:
            if any(words in str(error).lower() for words in _NOT_HERE):
                raise CannotTell(f"it cannot be decompressed here: {error}") from error
            raise

    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 28)

    _members(file, make, feed, lzma.LZMAError, _XZ_MAGIC)


def zstd(file: OpenFile) -> None:
    """Go from block to block by their lengths, until the last frame ends where the file does."""
    offset, frames = 0, 0
    while offset < file.size or not offset:
        (magic,) = file.numbers("<I", offset)
        if magic in _ZSTD_SKIPPED:
            (length,) = file.numbers("<I", offset + 4)
            offset += 8 + length
        elif magic == _ZSTD_MAGIC:
            offset = _zstd_frame(file, offset + 4)
            frames += 1
        else:
            raise NotWhole(f"no zstd frame begins at byte {offset}")
        file.reaches(offset, "its last zstd frame")
    if not frames:
        raise NotWhole("there are only zstd frames to be skipped in it")


def _zstd_frame(file: OpenFile, offset: int) -> int:
    """Return where a frame ends whose descriptor is at ``offset`` (RFC 8878, 3.1.1)."""
    descriptor = file.read(offset, 1)[0]
    single = descriptor >> 5 & 1
    content_size = (single, 2, 4, 8)[descriptor >> 6]
    offset += 1 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    while True:
        header = int.from_bytes(file.read(offset, 3), "little")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        offset += 3 + (1 if kind == 1 else length)
        if last:
            return offset + (4 if descriptor & 4 else 0)


def _xz_blocks(index: bytes) -> int:
    """Return the length of all blocks that an index tells of, with their padding."""
    numbers = _variable_numbers(index[1:-4])
    count = next(numbers, 0)
    total = 0
    for _ in range(min(count, len(index))):
        total += next(numbers, 0) + 3 & ~3
        next(numbers, 0)
    return total


def _variable_numbers(data: bytes) -> Iterator[int]:
    """Yield numbers of 63 bits at the most, as xz has them. Raises NotWhole for a longer one."""
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise NotWhole("the index of its last xz stream is damaged")
        if not byte & 0x80:
            yield number
            number = shift = 0


def _members(
    file: OpenFile,
    make: Callable[[], Member],
    feed: Callable[[Member, bytes], None],
    error: type[Exception],
    magic: bytes,
) -> None:
    """Decompress one member after the other, and keep nothing of them.

    What follows the last one and is not another is left alone, as the tools do.
    """
    member: Member | None = None
    rest = b""
    for piece in file.pieces():
        rest += piece
        while rest:
            if member is None:
                rest = rest.lstrip(b"\0")  # padding, which other members may follow
                if len(rest) < len(magic) and magic.startswith(rest):
                    break  # nothing, or the next piece tells what it is
                if not rest.startswith(magic):
                    return
                member = make()
            try:
                feed(member, rest)
            except error as wrong:
                raise NotWhole(f"it cannot be decompressed: {wrong}") from wrong
            rest = member.unused_data if member.eof else b""
            if member.eof:
                member = None
    if member is not None or rest or not file.size:
        raise NotWhole("it ends in the middle of what is compressed")
