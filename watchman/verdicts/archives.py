"""zip, tar and 7z."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib

from watchman.verdicts.open_file import PIECE, CannotTell, NotWhole, OpenFile

_ZIP_END, _ZIP64_WHERE, _ZIP64_END, _ZIP_ENTRY = b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PK\1\2"
_MOST_ENTRIES = 1_000_000
_SEVENZIP_HEADER = 1 << 26
"""Bytes of a 7z archive's last header that are read at the most."""


def zip_by_end(file: OpenFile) -> None:
    """Find the end record and the central directory that it tells of."""
    tail = file.tail(22 + 0xFFFF)
    at = tail.rfind(_ZIP_END)
    while at >= 0:
        record = tail[at : at + 22]
        if len(record) == 22 and at + 22 + int.from_bytes(record[20:], "little") <= len(tail):
            _check_central(file, file.size - len(tail) + at, record)
            return
        at = tail.rfind(_ZIP_END, 0, at)
    raise NotWhole("there is no end of a zip archive in it")


def _check_central(file: OpenFile, end: int, record: bytes) -> None:
    """Hold the central directory against the end record, which lies at ``end``."""
    count, size, offset = struct.unpack("<HII", record[10:20])
    if end >= 20 and file.read(end - 20, 4) == _ZIP64_WHERE:
        (where,) = file.numbers("<Q", end - 12)
        # Behind what was put in front it is not where it was; then it lies just before.
        place = where if file.read(where, 4) == _ZIP64_END else max(0, end - 20 - 56)
        if file.read(place, 4) == _ZIP64_END:
            count, size, offset = file.numbers("<QQQ", place + 32)
            if place != where and where != offset + size:
                raise NotWhole("its zip archive's directory is not where its end says")
            end = place
    start = end - size  # what was put in front of the archive shifts all offsets
    if start < offset:
        raise NotWhole("its zip archive's directory is not where its end says")
    for _ in range(min(count, _MOST_ENTRIES)):
        if file.read(start, 4) != _ZIP_ENTRY:
            raise NotWhole("an entry of its zip archive's directory is missing")
        name, extra, comment = file.numbers("<HHH", start + 28)
        start += 46 + name + extra + comment
    if start > end:
        raise NotWhole("its zip archive's directory is longer than its end says")


def zip_all(file: OpenFile) -> None:
    """Read every member; their checksums must be right. What is encrypted is not read."""
    zip_by_end(file)
    with os.fdopen(os.dup(file.descriptor), "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                for member in archive.infolist():
                    if not member.flag_bits & 1:
                        _read_member(archive, member)
        except NotImplementedError as error:
            raise CannotTell(
                f"its zip archive has a compression of another kind: {error}"
            ) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
            raise NotWhole(f"its zip archive is damaged: {error}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as stream:
        while stream.read(PIECE):
            pass


def tar(file: OpenFile) -> None:
    """Go from header to header, until a block of nothing, and another one, end the archive."""
    offset, forced = 0, None
    while True:
        if offset + 512 > file.size:
            raise NotWhole("there is no end of a tar archive in it")
        header = file.read(offset, 512)
        if not any(header):
            break
        if _sum_of(header) not in {_octal(header[148:156]), _octal(header[148:155])}:
            raise NotWhole(f"there is no tar header at byte {offset}")
        size = _octal(header[124:136])
        if header[156:157] == b"x":
            forced = _pax_size(file.up_to(offset + 512, min(size, PIECE)))
        elif header[156:157] not in b"gLK":
            size, forced = size if forced is None else forced, None
            if header[156:157] in b"123456":
                size = 0  # links, devices, directories
        if header[156:157] == b"S":
            offset += 512 * _more_headers(file, offset, header)
        offset += 512 + -(-size // 512) * 512
    if offset + 1024 > file.size or any(file.read(offset + 512, 512)):
        raise NotWhole("there is only half an end of a tar archive in it")


def _sum_of(header: bytes) -> int:
    return sum(header[:148]) + 8 * 32 + sum(header[156:])


def _octal(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's own notation for large numbers
        return int.from_bytes(field[1:], "big") & (1 << 62) - 1
    digits = field.split(b"\0")[0].strip() or b"0"
    if digits.translate(None, b"01234567"):  # int() takes signs, and would have us go back
        raise NotWhole("a number in a tar header of it is none")
    return int(digits, 8)


def _pax_size(records: bytes) -> int | None:
    """Return the size that a pax header gives to the next member, if it does."""
    at = 0
    while found := re.compile(rb"(\d+) ([^=]+)=").match(records, at):
        end = at + int(found[1])  # a value may hold line ends, and whatever else
        value = records[found.end() : end - 1]
        if found[2] == b"size" and value.isdigit():
            return int(value)
        at = max(end, found.end())
    return None


def _more_headers(file: OpenFile, offset: int, header: bytes) -> int:
    """Return how many blocks of GNU's old format go on with the list of a file's holes."""
    count, goes_on = 0, header[482]
    while goes_on:
        count += 1
        goes_on = file.read(offset + 512 * count, 512)[504]
    return count


def sevenzip(file: OpenFile) -> None:
    """Check the header at the end by its length and checksum, which are at the beginning."""
    crc, offset, length, header_crc = file.numbers("<IQQI", 8)
    if zlib.crc32(file.read(12, 20)) != crc:
        raise NotWhole("its 7z archive was not finished: its first header is damaged")
    start = 32 + offset
    file.reaches(start + length, "its 7z archive")
    if length > _SEVENZIP_HEADER:
        return
    if zlib.crc32(file.read(start, length)) != header_crc:
        raise NotWhole("the header at the end of its 7z archive is damaged")
